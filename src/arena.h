/*
 * arena.h - granules: one reserved range, cut into pieces of 64 KiB, with a descriptor for each.
 *
 *     base                      frontier         committed                    base + bytes
 *      | granules, taken or free    |  never touched  |  no access, no memory     |
 *      +----+----+----+----+--------+-----------------+---------------------------+
 *        |    |
 *        v    v
 *      +----+----+---             the table, in a reservation of its own, which no
 *      | d0 | d1 | ...            overflow of a block can reach: 128 bytes a granule
 *      +----+----+---
 *
 * From a pointer to its descriptor is one subtraction and one shift, and the same comparison sorts
 * out NULL and pointers of others. The descriptor is all the metadata of a slab; a run's is that of
 * its first granule.
 *
 * Two bit sets say how a granule stands: taken (it belongs to a slab, a zone or a large block), and
 * touched (its pages may hold memory, with content that nobody knows). What is free and touched is
 * dirty: it is reused before anything else is, lowest address first, and what exceeds the bound of
 * purge.c goes back to the system, highest address first. What is not touched is zero.
 *
 * A third one says which are hidden: free, but nobody can access them, so that they are not
 * accounted to the process, or because the system has refused that. They are taken last.
 * Whoever takes them makes them accessible, for which others that are free are hidden where
 * there is a limit.
 *
 * A1  Granules below the frontier have been taken once; at and above it none is taken or touched.
 * A2  [base, base + committed) is readable and writable but for fences and what is hidden, and
 *     frontier <= committed <= bytes.
 * A3  The table is committed for every granule below the frontier, and for none beyond the range
 *     but to the end of a step.
 * A4  taken_count and dirty_count agree with the bit sets.
 * A5  The first granule of a taken run has a kind; a free granule's is GRANULE_FREE.
 * A6  What is hidden is free and lies below the frontier; hidden_count agrees with the bit set.
 */
#ifndef HMM_ARENA_H
#define HMM_ARENA_H

#include "base.h"
#include "check.h"
#include "lock.h"

#include <stdatomic.h>

enum {
    GRANULE_SHIFT = 16,
    GRANULE_BYTES = 1 << GRANULE_SHIFT,
    LINE_BYTES = 64,
    WORD_BITS = 64,              /* of a bit set */
    ARENA_ALIGN_BYTES = 2 << 20, /* a huge page, where pages are 4 KiB: an extent */
    EXTENT_COUNT = ARENA_ALIGN_BYTES / GRANULE_BYTES,
};

enum granule_kind {
    GRANULE_FREE, /* also: inside a large run */
    GRANULE_SLAB,
    GRANULE_ZONE,  /* medium blocks; every granule of the zone has it */
    GRANULE_LARGE, /* the first granule of a large block */
    GRANULE_FENCE, /* inaccessible; of a freed block between fences, the first with its run */
    GRANULE_EMPTY, /* blocks of 0 bytes: fence.h */
};

/* A free slot; of one in use nothing is the library's. */
struct slot {
    struct slot *next;
    uintptr_t mark; /* slab.h: says that the slot is free */
};

/* A zone of medium blocks: zone.h. Addresses; guarded by the lock of its shard. */
struct zone {
    uintptr_t top;     /* where the next block would begin; blocks tile [start, top) */
    uintptr_t touched; /* from here on the zone's memory was never touched, and is zero */
    uintptr_t end;
    struct granule *next; /* the shard's zones */
    struct granule *prev;
};

/* A large block: large.c. Its holder's, as the block itself is. */
struct run {
    uintptr_t start; /* the block's first byte */
    size_t bytes;    /* that may be used: whole pages, but for fenced and guarded ones */
    size_t granule_count;
    union {
        size_t request_bytes; /* guard.h; so are origin and alignment_shift */
        struct granule *next; /* fence_slabs.c: of a fence between slabs */
    };
    uint32_t site;  /* where it was allocated */
    uint8_t origin; /* enum origin */
    uint8_t alignment_shift;
    bool is_fenced; /* fence.h */
};

/* Blocks of 0 bytes in a granule: fence.c. */
struct empty_set {
    uint64_t *words; /* a bit for each block: it is live */
    uint32_t live_count;
    uint32_t next_word; /* where the next search begins */
    struct granule *next;
};

struct granule {
    /* Line 0: what the granule is. It does not change with its blocks: whoever frees a block of
     * another thread's looks here only to find that it is one, and would else fetch the line from
     * that thread's cache. */

    /* The thread whose pointer this is may touch line 1 of a slab, but for `remote`; 0 or a mark:
     * no thread. Written by the owner, or by whoever has the granule to itself; read by any thread,
     * relaxed, because a thread only asks whether the value is its own. */
    _Atomic uintptr_t owner;
    /* Of a slab. Where there is a guard no slots are carved of what is none, so that
     * is seen here. */
    _Atomic uint32_t carved_slots; /* written by the owner, read by any thread, relaxed */
    uint32_t index_factor;         /* slab.h: from an offset to a slot's index */
    uint32_t slot_bytes;           /* of the class */
    uint32_t slot_fraction;        /* slab.h: from an offset to where in its slot it is */
    uint32_t run_offset;           /* of a zone: how many granules behind its first */
    /* Written by whoever takes the granule, before its first block is handed out. */
    _Atomic uint8_t kind;
    _Atomic uint8_t size_class;
    uint8_t shard;     /* of a zone; written as the kind is */
    bool is_zero;      /* of a slab: its granule was untouched when it was taken */
    bool is_populated; /* a huge page had brought the granule's memory when it was taken */
    bool has_moved;    /* of a run: its pages came from elsewhere by mremap */

    /* Line 1: what the owner changes with each free, and others with each batch of them. */

    _Alignas(LINE_BYTES) union {
        struct {
            struct slot *free;     /* slots that came back to the owner */
            uint32_t need;         /* slab.h: at 0 there is something to do */
            uint32_t virgin_units; /* slab.h: from so many units on slots are zero */
            struct granule *next;  /* the list that the slab's state names */
            struct granule *prev;
        };
        struct zone zone;
        struct run run;
        struct empty_set empty;
    };
    _Atomic uint64_t remote;    /* remote.h; any thread */
    _Atomic uint32_t threshold; /* remote.h: how many remote frees wake the slab, or complete it */
    uint16_t floor_slots;       /* slab.h: so many more than `need` says are in use */
    uint16_t loose_slots;       /* slab.h: free, and perhaps on free pages */
    _Atomic uint16_t away; /* slab.h: a bit for each page given back; written as carved_slots is */
    uint8_t state;         /* slab.h */
};

static_assert(sizeof(struct granule) == 2 * LINE_BYTES, "two cache lines");
static_assert(offsetof(struct granule, free) == LINE_BYTES, "line 0 is everybody's to read");

/* Which of some granules are taken, which may hold other than zeros, and which are free and may be
 * inaccessible: a bit each. */
struct set_words {
    _Atomic uint64_t taken;
    _Atomic uint64_t touched;
    _Atomic uint64_t hidden;
};

struct arena {
    /* immutable once open, but for hmm_arena_shrink; all 0 before, so that no pointer is inside */
    uintptr_t base;
    size_t bytes;
    struct granule *table;

    _Alignas(LINE_BYTES) struct lock lock; /* guards the rest */
    size_t granule_count;
    size_t frontier_count;
    size_t lowered_count; /* where the frontier stood before it last came down */
    size_t committed_count;
    size_t table_committed_count;
    _Atomic size_t taken_count; /* also read without the lock, as the next two are */
    _Atomic size_t taken_count_max;
    _Atomic size_t dirty_count;
    size_t dirty_low_hint;  /* no dirty granule below this word of the sets */
    size_t dirty_high_hint; /* none in words above this one but what the system has refused */
    size_t free_hint;       /* no free granule below this word but hidden ones */
    size_t hidden_count;
    /* Free, untouched and accessible, when hiding was last tried; 0: since then they were few. */
    size_t idle_left_count;
    /* Granules below this one may have memory, by huge.c; also read without the lock. */
    _Atomic size_t populated_count;
    _Atomic bool was_refused; /* the system has refused memory; also read without the lock */
    uintptr_t metadata;       /* where the last of it begins: it grows downwards */
    uintptr_t metadata_committed;
    uintptr_t metadata_start;
    struct set_words *sets; /* one for so many granules in a row as a word has bits */
};

extern HMM_HIDDEN struct arena hmm_arena;

/* What its range is called in maps. */
#define ARENA_NAME "hmm heap"

/* How many bits are set: sums of two, four and eight bits side by side, and of all by a product
 * (Warren, Hacker's Delight, counting 1-bits). The compiler's own would be a call where the
 * processor need not have the instruction. */
static inline unsigned bit_count(uint64_t bits)
{
    bits -= bits >> 1 & UINT64_C(0x5555555555555555);
    bits = (bits & UINT64_C(0x3333333333333333)) + (bits >> 2 & UINT64_C(0x3333333333333333));
    bits = (bits + (bits >> 4)) & UINT64_C(0x0f0f0f0f0f0f0f0f);
    return (unsigned)(bits * UINT64_C(0x0101010101010101) >> 56);
}

/* NULL and pointers outside give a large number. */
static inline uintptr_t arena_offset(const void *ptr)
{
    return (uintptr_t)ptr - hmm_arena.base;
}

static inline bool arena_covers(const void *ptr)
{
    return arena_offset(ptr) < hmm_arena.bytes;
}

/* Of a pointer inside. */
static inline struct granule *granule_of(const void *ptr)
{
    return &hmm_arena.table[arena_offset(ptr) >> GRANULE_SHIFT];
}

static inline size_t granule_index(const struct granule *granule)
{
    return (size_t)(granule - hmm_arena.table);
}

static inline uintptr_t granule_start(const struct granule *granule)
{
    return hmm_arena.base + (granule_index(granule) << GRANULE_SHIFT);
}

/* The memory of the granule of that index. */
static inline void *granule_at(size_t index)
{
    return (void *)(hmm_arena.base + (index << GRANULE_SHIFT));
}

static inline enum granule_kind granule_kind(const struct granule *granule)
{
    return (enum granule_kind)atomic_load_explicit(&granule->kind, memory_order_relaxed);
}

static inline void granule_set_kind(struct granule *granule, enum granule_kind kind)
{
    atomic_store_explicit(&granule->kind, (uint8_t)kind, memory_order_relaxed);
}

static inline uintptr_t granule_owner(const struct granule *granule)
{
    return atomic_load_explicit(&granule->owner, memory_order_relaxed);
}

static inline void granule_set_owner(struct granule *granule, uintptr_t owner)
{
    atomic_store_explicit(&granule->owner, owner, memory_order_relaxed);
}

/* Whether the granule may hold other than zeros. Of a granule that the caller has taken and not
 * written to yet. */
static inline bool granule_is_touched(const struct granule *granule)
{
    size_t index = granule_index(granule);
    uint64_t word =
        atomic_load_explicit(&hmm_arena.sets[index / WORD_BITS].touched, memory_order_relaxed);
    return (word >> index % WORD_BITS & 1) != 0;
}

/* Whether somebody has the granule of that index. Of another's granule an opinion. */
static inline bool granule_is_taken(size_t index)
{
    uint64_t word =
        atomic_load_explicit(&hmm_arena.sets[index / WORD_BITS].taken, memory_order_relaxed);
    return (word >> index % WORD_BITS & 1) != 0;
}

/* Opens the arena, of at most `limit_bytes` (0: as the machine suggests). false: not to be had.
 * Once, before any other call. */
HMM_HIDDEN bool hmm_arena_open(size_t limit_bytes);

/* Leaves no more of the reserved range than `bytes`, and what is accessible; what is known of
 * it shrinks alike. */
HMM_HIDDEN HMM_COLD void hmm_arena_shrink(size_t bytes);

/* A run of `count` adjacent granules whose first begins at a multiple of `align_count` granules
 * from the base, which is itself aligned to ARENA_ALIGN_BYTES. Readable and writable; the kinds
 * are for the caller to set. NULL: no memory. */
HMM_HIDDEN struct granule *hmm_arena_take(size_t count, size_t align_count);

/* The granules right after a taken run, if they are free. false: nothing has changed. */
HMM_HIDDEN bool hmm_arena_extend(struct granule *first, size_t count, size_t more_count);

/* Gives a run back whose kinds the caller has cleared. Only the first `touched_count` granules
 * have been written to since they were taken. May return memory to the system. */
HMM_HIDDEN void hmm_arena_give(struct granule *first, size_t count, size_t touched_count);

/* Gives a run back whose pages the caller has emptied: all of it is zero. */
HMM_HIDDEN void hmm_arena_give_zero(struct granule *first, size_t count);

/* Of a run that the caller is about to give back: the system may not make all of it accessible now.
 * Whoever takes it next tries again. */
HMM_HIDDEN HMM_COLD void hmm_arena_note_hidden(struct granule *first, size_t count);

/* Whether an empty granule should not be kept for the next request: it lies far above what is
 * taken, so that it alone may keep the frontier up, or the system has once refused memory. */
HMM_HIDDEN bool hmm_arena_wants_back(const struct granule *granule);

/* Gives dirty granules back to the system, `budget_bytes` at most, until only `keep_bytes` of dirty
 * memory are left. How many bytes went. */
HMM_HIDDEN size_t hmm_arena_purge(size_t keep_bytes, size_t budget_bytes);

/* The same, of what is above the bound. */
HMM_HIDDEN size_t hmm_arena_purge_excess(size_t budget_bytes);

/* A run of so many granules brought the frontier up by some: where dirty ones were of no use to it,
 * and the heap is larger than it was lately, as many of those go back. */
HMM_HIDDEN void hmm_arena_offset_growth(size_t run_count, size_t grown_count);

/* The extent that begins at `index` has memory, though its granules may never have been taken. */
HMM_HIDDEN void hmm_arena_note_populated(size_t index);

/* fork(), in the child: granules that were on their way between the arena and a thread that the
 * child does not have are free again. The lock is held for the fork. */
HMM_HIDDEN void hmm_arena_reclaim(void);

/* Memory for the library itself, zero, never given back, apart from all blocks. NULL: no memory. */
HMM_HIDDEN void *hmm_arena_metadata(size_t bytes);

/* The first invariant that does not hold; NULL: all do. No other thread may use the arena. */
HMM_HIDDEN const char *hmm_arena_audit(void);

#endif
