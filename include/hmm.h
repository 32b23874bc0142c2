/*
 * hmm.h - the whole public interface of HMM, the Heap Memory Manager.
 *
 * Two parts. The process heap (HmmAlloc and its family) is what malloc runs on when a program is
 * started with LD_PRELOAD=libhmm.so or linked with -lhmm. First-class heaps (HmmHeap) are heaps
 * that a program owns: inside an array of its own, or on a reserved range with a limit.
 *
 * What holds for every call, unless its comment says otherwise:
 *   returns   memory aligned to 16 bytes (8 on 32-bit targets); a request of 0 bytes gets a block
 *             of its own.
 *   fails     iff no memory is left, or the request is above PTRDIFF_MAX: NULL, errno = ENOMEM,
 *             and nothing has changed. Success leaves errno alone; freeing always does.
 *   threads   any thread may make any call at any time. Not from a signal handler.
 *   crimes    a pointer that is not a live block, or a damaged tag, ends in one line on standard
 *             error and abort(): "hmm: CALL(POINTER): CRIME: EVIDENCE".
 *   sizes     are in bytes.
 */
#ifndef HMM_H
#define HMM_H

#include <stdbool.h>
#include <stddef.h>

#define HMM_VERSION_MAJOR 0
#define HMM_VERSION_MINOR 1
#define HMM_VERSION       "0.1"

#if defined(__GNUC__)
#define HMM_API         __attribute__((visibility("default")))
#define HMM_MALLOC(...) __attribute__((malloc, warn_unused_result, alloc_size(__VA_ARGS__)))
#else
#define HMM_API
#define HMM_MALLOC(...)
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* ----------------------------------------------------------------------------- the process heap */

/* A block of at least `bytes`. Its content is undefined. Cost, with the fast engine: up to 8 KiB a
 * dozen instructions, and now and then a refill of the thread's bin, which is O(1) plus the slots
 * of one page; above, O(1) under a lock, or a search of some bits for each MiB of heap. With the
 * block engine: O(1) under fit=good plus, now and then, one system call to move the break; O(free
 * blocks) under the other policies. */
HMM_API void *HmmAlloc(size_t bytes) HMM_MALLOC(1);

/* A block of `count` x `bytes`, zeroed. A product that overflows fails like a request too
 * large. The fast engine does not clear what is known to be zero, so untouched parts of a large
 * block cost nothing. */
HMM_API void *HmmCalloc(size_t count, size_t bytes) HMM_MALLOC(1, 2);

/* The block `ptr` with room for `bytes`, content kept up to the smaller size; in place where the
 * block itself or what is free behind it has the room, else moved; large blocks by their pages, not
 * by copying. On failure `ptr` is as it was. HmmRealloc(NULL, n) allocates. HmmRealloc(ptr, 0)
 * frees and returns NULL, as glibc's realloc does. Cost: O(1), or a copy. */
HMM_API void *HmmRealloc(void *ptr, size_t bytes);

/* Frees `ptr`, from whatever thread it comes; NULL is ignored. Never fails, never changes errno.
 * Cost: O(1), and now and then a system call that gives memory back. In the block engine's ordered
 * lists the block's place is searched for, from where they last were. */
HMM_API void HmmFree(void *ptr);

/* A block of at least `bytes` at a multiple of `alignment`, a power of two; anything else fails
 * with EINVAL. Alignments up to the heap's own size work where there is room. Free with HmmFree.
 * HmmRealloc keeps the alignment only while the block stays in place. */
HMM_API void *HmmAlignedAlloc(size_t alignment, size_t bytes) HMM_MALLOC(2);

/* How many bytes of `ptr` may be used: at least what was asked for, all of it writable. 0 for
 * NULL. Cost: O(1). */
HMM_API size_t HmmUsableSize(const void *ptr);

/* A program can carry its own defaults for HMM_OPTIONS ("key=value,key=value") by defining
 * this variable; the environment overrides them key by key. NULL or absent: none. libhmm.so
 * finds it only if it is visible, which this declaration sees to: include this header where
 * you define it. */
extern HMM_API const char *HmmOptions;

/* What is called instead of abort() when a crime was found and its line was written: `message`
 * is that line, newline and all, for as long as the call lasts, `ptr` the pointer. No lock of HMM's
 * is held and nothing has changed, so the handler may allocate, and may leave by longjmp(); when it
 * returns abort() follows. There are three exceptions. Where free() meets a write into another
 * block that leaves the quarantine, its own block is freed. Where a call meets what another thread
 * has freed wrongly, it may have been done, all but its result. And where a heap is called inside a
 * call of it, by a visitor, its lock is held: the handler must not call into that heap. */
typedef void (*HmmFatalHandler)(const char *message, const void *ptr, void *context);

/* Installs a handler for all heaps of the process, NULL: none, and returns the one before. Not
 * while another thread sets one; a crime in another thread at that moment may meet the handler
 * before with the context of this one. Cost: O(1). */
HMM_API HmmFatalHandler HmmSetFatalHandler(HmmFatalHandler handler, void *context);

/* ------------------------------------------------------------------ the process heap in numbers */

/* Slots of one size. */
typedef struct HmmClassStats {
    size_t slot_bytes;
    size_t slab_count; /* pieces of 64 KiB that hold such slots */
    size_t live_count; /* slots in use */
    /* free, in the hands of a thread that will use them next, or in quarantine */
    size_t cached_count;
    size_t free_count; /* free otherwise */
} HmmClassStats;

enum { HMM_CLASS_COUNT_MAX = 64 };

/* Exact while no other thread allocates, else a moment's opinion. Live, cached and free are parts
 * of what is held; the rest of that is tags and room that no block has used yet. */
typedef struct HmmStats {
    size_t live_bytes; /* usable bytes of all blocks in use: the sum of the next four. With
                          hardened=1 or 2 a small block counts as its whole slot */
    size_t small_bytes;
    size_t medium_bytes;
    size_t large_bytes;
    size_t other_bytes; /* in the block heap: all, with engine=block */
    size_t live_count;  /* blocks in use */
    /* free slots that threads keep for themselves, and what was freed and waits in quarantine; in
     * the block heap that is overhead */
    size_t cached_bytes;
    size_t free_bytes;  /* other free slots, and free blocks between used ones */
    size_t held_bytes;  /* what slabs, zones, large blocks and the block heap lie in, but for pages
                              of slabs that were given back, or not used yet */
    size_t peak_bytes;  /* the most that they ever lay in; of a block heap, that was ever live */
    size_t dirty_bytes; /* free memory that was not given back to the system */
    size_t metadata_bytes; /* the library's own tables */
    size_t mapped_bytes;   /* what can be written to, tables and all */
    size_t reserved_bytes; /* address space for blocks */
    size_t resident_bytes; /* of the whole process, as the kernel counts; 0: it does not say */
    size_t failed_count;   /* requests that the block heap found no room for */
    size_t class_count;    /* of the following; 0 with engine=block */
    HmmClassStats classes[HMM_CLASS_COUNT_MAX];
} HmmStats;

/* Fills `stats`; all 0 before the first allocation. Not from a signal handler: HMM_OPTIONS has
 * stats_signal for that. Cost: O(granules of 64 KiB), and the threads' free slots. */
HMM_API void HmmGetStats(HmmStats *stats);

typedef enum HmmStatsFormat {
    HMM_STATS_TEXT, /* for people: not to be parsed */
    HMM_STATS_JSON  /* one object: the engine, the process, and by its names what HmmStats has */
} HmmStatsFormat;

/* Writes the same to a file descriptor, without allocating. false: not all of it could be written
 * (errno says why), or `format` is none (EINVAL). Threads, cost: as HmmGetStats. */
HMM_API bool HmmPrintStats(int file, HmmStatsFormat format);

/* ---------------------------------------------------------------------------- first-class heaps */
/* [heaps] The lines between these marks are also the interface of the two-file form. */

/* A heap of one's own. Its metadata lies in the memory that it manages: 8 bytes a used block on
 * 64-bit (4 on 32-bit), and a header (HmmHeapGetStats shows it as overhead). When it is full a
 * call returns NULL; it takes nothing from the system beyond its limit. */
typedef struct HmmHeap HmmHeap;

/* Which free block serves a request. All four split, and merge at once with both neighbours. */
typedef enum HmmFit {
    HMM_FIT_GOOD,  /* two-level segregated fit (Masmano et al., ECRTS 2004: bins by power of two,
                      each cut into equal ranges, found by two bit scans): O(1) */
    HMM_FIT_FIRST, /* the lowest address that fits: O(free blocks) */
    HMM_FIT_NEXT,  /* as first, from where the last search ended: O(free blocks); quick on
                      queues, but it can waste several times the memory elsewhere */
    HMM_FIT_BEST   /* the smallest that fits: O(free blocks) */
} HmmFit;

/* What each call verifies before it trusts a tag. Damage that is seen is a crime (see above). On
 * 32-bit a tag has no room for a checksum: its size, flags and neighbours are checked instead. */
typedef enum HmmIntegrity {
    HMM_INTEGRITY_TAG,        /* the block's own tag, and every other tag that the call reads */
    HMM_INTEGRITY_NONE,       /* nothing: for callers that are trusted with the heap */
    HMM_INTEGRITY_NEIGHBOURS, /* also, on every call, its neighbours, their links, and the tag
                                 beyond */
    HMM_INTEGRITY_FULL        /* the whole heap, on every call: O(blocks), for finding bugs */
} HmmIntegrity;

/* What is added to each block, so that more crimes are seen (docs/security.md has the whole table).
 * A block of a hardened heap takes 8 bytes more; 24, where HMM_OPTIONS=sites=1 wants to know by
 * whom it is allocated and freed. Freed memory is 0 in it, and so are a new block's bytes; a usable
 * size is exactly what was asked for; freeing costs O(bytes), and so does allocating what was used
 * before. Tags are verified, whatever `integrity` says. */
typedef enum HmmHardening {
    /* as HMM_OPTIONS=hardened=N says at that time, 3 being taken for 2; in the two-file form:
     * none */
    HMM_HARDENING_PROCESS,
    HMM_HARDENING_NONE,
    /* 1: each second free, each write behind a block, each write into a freed one that is handed
     * out again */
    HMM_HARDENING_SEALS,
    /* 2: besides, freed blocks wait before they are used again: up to an eighth of the memory,
     * 1 MiB and 256 blocks; before a call finds no room, they are used. The heap is not O(1) then:
     * it may look through all of them */
    HMM_HARDENING_QUARANTINE
} HmmHardening;

/* All zero: the defaults. */
typedef struct HmmHeapOptions {
    HmmFit fit;
    /* No lock at all, whatever `lock` says: one thread at a time uses the heap. Calls that take it
     * as const then write nothing into it, unless it is hardened: its memory may have become
     * read-only. */
    bool unlocked;
    HmmIntegrity integrity;
    HmmHardening
        hardening; /* lies where 64-bit targets had padding, so nothing else has moved there */
    void (*lock)(void *context);   /* for targets without pthreads, both or none; else the heap */
    void (*unlock)(void *context); /* has a lock of its own (none in the two-file form) */
    /* Called, without the lock, when a request finds no room, which takes `bytes` with what its
     * alignment may cost. true: memory was freed or added, try again; false: fail. May call into
     * the heap, but not destroy it; keep it from failing forever. */
    bool (*on_full)(HmmHeap *heap, size_t bytes, void *context);
    void *context; /* given to lock, unlock and on_full */
} HmmHeapOptions;

/* A heap inside `memory`, which stays the caller's and must outlive the heap. `options` may be
 * NULL. Fails with EINVAL iff the memory is NULL, not aligned to 16 bytes (8 on 32-bit), too small
 * for the header and one block (1 KiB is always enough, 4 KiB a useful heap), or wraps past the end
 * of the address space, or an option is out of range; what is too small may have been written into.
 * The heap knows where it lies and what it calls: a copy of the memory elsewhere is none, and other
 * processes must not use it, whether they share it or map it later. Nothing needs to be freed:
 * destroying such a heap only marks it dead. In a forked child it may be used iff no other thread
 * was inside it at the fork. Cost: O(1). */
HMM_API HmmHeap *HmmHeapInit(void *memory, size_t memory_bytes, const HmmHeapOptions *options);

/* Gives the heap one more piece of memory, which need not be adjacent, and stays the caller's.
 * false with EINVAL iff the piece is NULL, misaligned, too small, wraps, or overlaps memory that
 * the heap has already. Alignment, and what is too small, as for HmmHeapInit. Cost: O(pieces). */
HMM_API bool HmmHeapAdd(HmmHeap *heap, void *memory, size_t memory_bytes);

/* Ends the heap, live blocks and all: none of them may be used any more. Memory that the heap
 * reserved goes back to the system, memory that was given to it stays as it is. NULL is ignored.
 * No other thread may be using the heap. Cost: O(1) in blocks. */
HMM_API void HmmHeapDestroy(HmmHeap *heap);

/* As HmmAlloc, HmmCalloc, HmmRealloc, HmmAlignedAlloc, HmmFree and HmmUsableSize, in this heap. A
 * block must go back to the heap that it came from; another heap's is a crime. With HMM_FIT_GOOD in
 * given memory every call is bounded: no loop over the heap and no system call (HmmHeapCalloc and a
 * moving HmmHeapRealloc still touch the bytes). */
HMM_API void *HmmHeapAlloc(HmmHeap *heap, size_t bytes);
HMM_API void *HmmHeapCalloc(HmmHeap *heap, size_t count, size_t bytes);
HMM_API void *HmmHeapRealloc(HmmHeap *heap, void *ptr, size_t bytes);
HMM_API void *HmmHeapAlignedAlloc(HmmHeap *heap, size_t alignment, size_t bytes);
HMM_API void HmmHeapFree(HmmHeap *heap, void *ptr);
HMM_API size_t HmmHeapUsableSize(const HmmHeap *heap, const void *ptr);

/* capacity = what the heap can ever use; break = what it uses now = live + free + overhead. */
typedef struct HmmHeapStats {
    size_t capacity_bytes;     /* the limit, and all memory given: the break can move up to here;
                                  without a limit that of the ranges that there are */
    size_t break_bytes;        /* up to the break, over all pieces, less what others took between */
    size_t live_bytes;         /* usable bytes of used blocks */
    size_t live_count;         /* used blocks */
    size_t free_bytes;         /* usable bytes of free blocks below the break */
    size_t free_count;         /* free blocks */
    size_t largest_free_bytes; /* the largest request that would succeed now, growth included;
                                  0: none would. Of a created heap: what the limit allows, or
                                  without one the ranges of addresses that there are; the system
                                  may refuse it, and without a limit allow more elsewhere */
    size_t peak_live_bytes;    /* highest live_bytes so far */
    size_t overhead_bytes;     /* tags and headers */
    size_t failed_count;       /* requests that found no room (after on_full gave up) */
    size_t failed_bytes_max;   /* the largest of them */
} HmmHeapStats;

/* Fills `stats`. Cost: O(pieces) with HMM_FIT_GOOD, else O(free blocks) for the largest. In a
 * hardened heap usable bytes are those that were asked for, and what a block has besides is
 * overhead; what waits is put to use first, so that largest_free_bytes is exact there, too. */
HMM_API void HmmHeapGetStats(const HmmHeap *heap, HmmHeapStats *stats);

/* Shows every block, in address order within each piece, to `visit`, until it returns false.
 * Returns whether it saw them all; a damaged tag also ends the walk. The heap's lock is held: the
 * visitor must not call into this heap, nor create or destroy heaps, nor fork. Cost: O(blocks). */
typedef bool (*HmmVisitor)(void *ptr, size_t usable_bytes, bool is_used, void *context);
HMM_API bool HmmHeapWalk(const HmmHeap *heap, HmmVisitor visit, void *context);

/* Whether every invariant of the heap holds (docs/design.md says where they stand). Cost:
 * O(blocks), and O(bytes) in a hardened heap. */
HMM_API bool HmmHeapCheck(const HmmHeap *heap);

/* [/heaps] */

/* A heap on a reserved address range of its own, whose break grows and shrinks; `limit_bytes` is
 * the most that it may ever take from the system, header included, 0 for no limit but the
 * machine's; what HmmHeapAdd gives it comes on top. Memory is taken as it is used. `options` may be
 * NULL. Fails with EINVAL iff an option is out of range or the limit is too small for one block,
 * with ENOMEM iff the range or its first page is not to be had. Such a heap works in a forked
 * child, unless it has a lock of the caller's or none. In libhmm-array.so the range is a block of
 * the array, and the limit must be given (0: ENOMEM).
 *
 * Without a limit the range has four times the machine's memory, at most 256 GiB, and less the more
 * heaps there are from eight on, down to a 64th or 1 GiB. Where it is full another is reserved; a
 * block that grows from one into another is copied. A further range ends when it is empty, and what
 * it held would find room elsewhere. */
HMM_API HmmHeap *HmmHeapCreate(size_t limit_bytes, const HmmHeapOptions *options);

#ifdef __cplusplus
}
#endif

#endif /* HMM_H */
