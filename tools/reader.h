/*
 * reader.h - the heap of another process, or of a core file, as it was at one moment.
 *
 * A reader is an open target: a process, a core, or a program that it starts on the library beside
 * the command and holds, memory and all, at its end. Nothing is switched on in the target
 * beforehand, and a running process is never stopped: the reader finds hmm_root in the target's
 * memory and copies the tables that it names. While they are copied the target runs on, so they may
 * not fit together. Everything read is bounds-checked and cross-checked. What does not fit is read
 * again a few times; then the snapshot says `has_changed`, and its numbers are near the truth but
 * need not add up.
 *
 *     struct reader *reader = reader_open(line->operands, line->is_program);
 *     if (reader == NULL) return EXIT_TROUBLE;          // a line on standard error has said why
 *     struct snapshot *snapshot = reader_read(reader, READ_PAGES);
 *     ...
 *     snapshot_free(snapshot);
 *     int status = reader_close(reader);
 *
 * All numbers are in the units of src/: granules of 64 KiB, classes of slots, blocks with tags.
 */
#ifndef HMM_READER_H
#define HMM_READER_H

#include "arena.h"
#include "options.h"
#include "process.h"
#include "sites.h"
#include "sizeclass.h"

#include <stdio.h>
#include <sys/types.h>

struct reader;

/* One of: a process id; a core file's path; with `is_program`, a program and its arguments, which
 * runs to its end here. `operands` is ended by NULL. NULL: a line on standard error has said why;
 * the exit status is EXIT_TROUBLE. */
struct reader *reader_open(char *const *operands, bool is_program);

/* The same of a program alone. NULL: *wait_status is the program's, as from waitpid, if it was
 * started, and that of an exit with EXIT_TROUBLE if not. */
struct reader *reader_run(char *const *program, int *wait_status);

/* From now on one read follows the other: what a moment ago was costly to count is
 * not counted again. */
void reader_watch(struct reader *reader);

/* Lets the target go. For a program that was started: its status, as from waitpid; else 0. */
int reader_close(struct reader *reader);

enum reader_kind { READER_PROCESS, READER_CORE, READER_PROGRAM };
enum reader_kind reader_kind(const struct reader *reader);

/* Of a core: whether it ends before what its headers promise, as on a full disk or
 * under `ulimit -c`. Its name says so, too. */
bool reader_is_cut(const struct reader *reader);

/* Of a core: the process that it was. */
pid_t reader_process_id(const struct reader *reader);

/* The program's name, or the core's. For titles. */
const char *reader_name(const struct reader *reader);

/* Memory of the target, for whoever wants more than a snapshot has. false: not all of
 * it is there. */
bool reader_copy(struct reader *reader, uintptr_t address, void *to, size_t bytes);

/* Which of the pages from `start` on are resident. false: that is not known. */
bool reader_pages(struct reader *reader, uintptr_t start, size_t page_count, bool *is_resident);

/* What a snapshot holds beyond counters; each costs time in proportion to the heap. */
enum read_want {
    READ_COUNTERS = 0,
    READ_PAGES = 1,    /* which pages are resident: parts, and granules' resident_bytes */
    READ_BLOCKS = 2,   /* a walk over tagged blocks: their pieces, and live_bytes of zones */
    READ_MAPPINGS = 4, /* the mappings of the process, which come with READ_PAGES too */
};

/* ----------------------------------------------------------------------------------- a snapshot */

enum { NO_THREAD = UINT16_MAX };

enum granule_view_kind {
    VIEW_CLEAN,  /* free; never touched, or given back */
    VIEW_DIRTY,  /* free, but its pages are still the process's */
    VIEW_TAKEN,  /* on its way between the arena and a thread */
    VIEW_SLAB,   /* slots of one class */
    VIEW_ZONE,   /* medium blocks */
    VIEW_LARGE,  /* one large block, or a part of it */
    VIEW_BEYOND, /* above the frontier; has memory only where a huge page brought it */
    VIEW_FENCE,  /* inaccessible, without memory: between blocks, or of blocks of 0 bytes */
};

/* Of a slab. */
enum slab_view_state {
    SLAB_VIEW_CURRENT, /* a thread's bin holds its slots */
    SLAB_VIEW_PARTIAL, /* a thread's, with free slots */
    SLAB_VIEW_FULL,    /* a thread's, without */
    SLAB_VIEW_ASLEEP,  /* nobody's, without free slots */
    SLAB_VIEW_WOKEN,   /* nobody's, with free slots */
    SLAB_VIEW_DORMANT, /* kept from a thread that ended */
};

struct granule_view {
    uint32_t live_bytes;     /* usable bytes of what is in use; of zones only with READ_BLOCKS */
    uint32_t resident_bytes; /* with READ_PAGES */
    uint32_t first_offset;   /* of zones and large runs: how many granules behind their first */
    uint16_t carved_slots;   /* of slabs, as all that follow */
    uint16_t used_slots;
    uint16_t cached_slots; /* in threads' bins; the rest of the carved ones is free */
    uint16_t thread;       /* the index of the owner, NO_THREAD */
    uint8_t kind;          /* enum granule_view_kind */
    uint8_t size_class;
    uint8_t state; /* enum slab_view_state */
};

struct class_view {
    size_t slot_bytes;
    size_t slab_count;
    size_t carved_slots;
    size_t used_slots;
    size_t cached_slots; /* in bins and batches of threads */
    size_t free_slots;   /* used + cached + free == carved */
    size_t handed_slots; /* ever put into bins: samples of it give the rate of malloc */
};

struct thread_view {
    /* the thread pointer, by which the library tells threads apart; 0: dormant */
    uintptr_t pointer;
    bool is_dormant;
    size_t slab_count;    /* that it owns */
    size_t cached_bytes;  /* in its bins */
    size_t batched_slots; /* of other threads' slabs, on their way home */
    size_t handed_slots;  /* ever put into its bins */
    size_t refill_count;
};

/* Medium blocks, all shards together. */
struct medium_view {
    size_t live_bytes;
    size_t live_count;
    size_t cached_bytes; /* held back in threads' quarantine: freed, but in use to their zones */
    size_t cached_count;
    size_t free_bytes; /* usable bytes of free blocks */
    size_t free_count;
    size_t held_bytes; /* zones, from end to end */
    size_t zone_count;
    size_t dirty_bytes;  /* inside free blocks and above the zones' tops */
    size_t placed_count; /* blocks ever handed out */
};

struct large_view {
    size_t live_bytes; /* whole pages */
    size_t live_count;
    size_t held_bytes; /* granules */
};

/* A block heap: the process heap, or one made by HmmHeapCreate. */
struct heap_view {
    uintptr_t address; /* the HmmHeap */
    bool is_process; /* what malloc runs on under engine=block, or what the arena had no room for */
    bool is_nested;  /* its memory is a block of another heap: not counted in the totals */
    HmmFit fit;
    HmmHeapStats
        stats; /* without what is held back; largest_free_bytes is 0: it is not looked for */
    size_t held_bytes; /* in quarantine: freed, but in use to the heap */
    size_t held_count;
    size_t first_region; /* in the snapshot's regions */
    size_t region_count;
};

struct region_view {
    uintptr_t base;
    uintptr_t first; /* the first tag */
    uintptr_t brk;
    uintptr_t limit;
    size_t heap; /* index */
};

/* A mapping of the target, as /proc/PID/maps or the core has it. */
struct mapping_view {
    uintptr_t start;
    uintptr_t end;
    const char *name;      /* a path, [heap], [stack], ""; the module's for its zeroed data */
    char access[5];        /* "rw-p" */
    bool is_ours;          /* lies whole in memory that HMM has mapped */
    size_t held_bytes;     /* of it, from its start: all but of a core, which may hold less */
    size_t resident_bytes; /* of a core: pages in it that are not all zero */
    size_t huge_bytes;
    size_t swapped_bytes;
};

/* Where resident memory is. The parts add up to resident_bytes. */
enum part_kind {
    PART_LIVE_SMALL,  /* slots in use */
    PART_LIVE_MEDIUM, /* blocks in use in zones */
    PART_LIVE_LARGE,
    PART_LIVE_BLOCKS, /* blocks in use in the process's block heap */
    PART_LIVE_HEAPS,  /* blocks in use in created heaps */
    PART_ROUNDING,    /* tags, and ends of slabs and runs that no block can use */
    PART_FREE_SLOTS,  /* free slots, and room for slots, on resident pages of slabs */
    PART_FREE_BLOCKS, /* free tagged blocks, and what lies above the last one */
    PART_CACHES,      /* slots in threads' bins and batches, and blocks in quarantine */
    PART_DIRTY,       /* free granules that were not given back */
    PART_HUGE,        /* brought along by huge pages, and never used */
    PART_METADATA,    /* descriptors, bit sets, threads, headers */
    PART_LIBRARY,     /* the library's own code and data */
    PART_OTHER,       /* a mapping that is not ours, by name */
    PART_KIND_COUNT
};

struct part {
    enum part_kind kind;
    const char *name; /* "live-small", ... "other: /usr/lib/libc.so.6" */
    size_t bytes;
};

struct totals {
    size_t live_bytes; /* usable bytes of all blocks in use */
    size_t live_count;
    size_t cached_bytes; /* in threads' bins and batches, or held back in quarantine */
    size_t free_bytes;   /* free slots and free blocks that belong to slabs, zones and heaps */
    size_t dirty_bytes;  /* free memory that was not given back, as the bound of purge= counts it */
    size_t metadata_bytes;
    size_t peak_bytes; /* the most granules ever taken, and the most ever live in block heaps */
    /* granules that are taken, but for what is away or a fence; block heaps up to their breaks */
    size_t held_bytes;
    size_t reserved_bytes;      /* address space for blocks */
    size_t resident_bytes;      /* of the whole process, as the kernel counts it */
    size_t resident_heap_bytes; /* with READ_PAGES: of it in what HMM has mapped */
    size_t swapped_bytes;
    size_t mapping_count; /* of the whole process, with its mappings */
};

struct snapshot {
    bool has_changed; /* while it was read, or is unfit: the numbers need not add up */
    bool is_unfit;    /* some tables do not fit together, as if they were damaged */
    enum engine engine;
    struct options options;
    size_t page_bytes;
    struct totals totals;

    /* the fast engine; all 0 with engine=block */
    uintptr_t arena_base;
    size_t arena_bytes;
    size_t frontier_count;
    struct granule_view
        *granules; /* [0, granule_count): up to the frontier, or what is populated */
    size_t granule_count;
    struct class_view classes[CLASS_COUNT];
    struct medium_view medium;
    struct large_view large;
    size_t empty_count;          /* blocks of 0 bytes, under hardened=2 and 3 */
    struct thread_view *threads; /* the live ones first */
    size_t thread_count;
    size_t live_thread_count;

    struct heap_view *heaps; /* the process heap first, if it is open */
    size_t heap_count;
    struct region_view *regions;
    size_t region_count;

    struct mapping_view *mappings; /* with READ_MAPPINGS, in the order of addresses */
    size_t mapping_count;

    struct part *parts; /* with READ_PAGES: none is empty */
    size_t part_count;

    struct piece *pieces; /* with READ_BLOCKS: those of zones, then heap by heap */
    size_t piece_count;
};

/* A tagged block of a zone or of a block heap; with its tag, so that pieces are adjacent. HELD:
 * freed, and in a thread's or the heap's quarantine. */
enum piece_kind { PIECE_USED, PIECE_HELD, PIECE_FREE, PIECE_GAP, PIECE_WILDERNESS };
struct piece {
    uintptr_t start;
    size_t bytes;
    enum piece_kind kind;
    int32_t heap; /* index of the block heap, -1: a zone */
};

/* NULL: the target has gone, or cannot be read; a line on standard error has said why. */
struct snapshot *reader_read(struct reader *reader, unsigned wants);
void snapshot_free(struct snapshot *snapshot);

enum check_result {
    CHECK_HOLDS,      /* every invariant */
    CHECK_BROKEN,     /* the text says which one is not, and where */
    CHECK_UNDECIDED,  /* it runs so busily that each look saw something else, or is cut short */
    CHECK_UNREADABLE, /* a line on standard error has said why */
};

/* What is doubtful about what was read, for people, as what "it" did: "changed while it was read".
 * NULL: nothing. `is_unfit`: some tables do not fit together. */
const char *reader_doubt(const struct reader *reader, bool has_changed, bool is_unfit);

/* Checks every invariant of the heap. *has_changed: it did, while it was read. */
enum { CHECK_TEXT_MAX = 256 };
enum check_result reader_check(struct reader *reader, char text[CHECK_TEXT_MAX], bool *has_changed);

/* ----------------------------------------------------------------------- what is at an address */

enum where_kind {
    WHERE_SLOT,       /* a slot of a slab */
    WHERE_MEDIUM,     /* a block of a zone */
    WHERE_LARGE,      /* a run of granules */
    WHERE_HEAP_BLOCK, /* a block of a block heap */
    WHERE_ROOM,       /* the heap's memory, but no block's */
    WHERE_MAPPING,    /* not the heap's */
    WHERE_NOTHING,    /* not mapped */
};

enum block_standing {
    BLOCK_IN_USE,
    BLOCK_IS_UNUSED,
    BLOCK_IN_CACHE, /* free, in a thread's bin or batch */
    BLOCK_ON_HOLD,  /* freed, and in quarantine */
};

struct neighbour {
    uintptr_t start; /* 0: there is none */
    enum block_standing standing;
};

struct stack_view {
    size_t frame_count; /* 0: not recorded */
    uintptr_t frames[SITE_FRAMES_MAX];
};

struct where {
    enum where_kind kind;
    /* Of rooms and mappings, too: from where to where. */
    uintptr_t start;
    size_t bytes;
    const char *what; /* of a room: what it is for; of a mapping: its name */
    char access[5];   /* of a mapping: "rw-p" */

    /* Of a block, as all that follow. */
    enum block_standing standing;
    bool has_request; /* hardening records what was asked for, and which call did */
    size_t request_bytes;
    enum origin origin;
    uintptr_t container; /* the slab, the zone or the HmmHeap, 0: none */
    size_t slot;         /* of a slab, as the next two */
    size_t slot_count;
    enum slab_view_state slab_state;
    uintptr_t owner; /* a slab's: the pointer of a thread that lives, 0: nobody */
    struct neighbour before;
    struct neighbour behind;
    struct stack_view allocated;
    struct stack_view freed;
};

/* Looks up `count` addresses in one look at the heap. false: a line on standard error has said why.
 * has_changed: the heap did meanwhile, or is damaged. Names live as long as the list, which is for
 * where_free. */
struct where_list {
    struct where *places; /* in the order of the addresses that were given */
    struct mapping_view *mappings;
    size_t mapping_count;
    struct mapping_view *modules; /* the files that frames of call stacks lie in */
    size_t module_count;
    bool has_changed;
    bool is_unfit;
};
bool reader_where(struct reader *reader, const uintptr_t *addresses, size_t count,
                  struct where_list *list);
void where_free(struct where_list *list);

/* A word for people: "live-small". */
const char *part_kind_name(enum part_kind kind);

/* What `hmm explain` prints, for `hmm run --report`. */
void explain_print(FILE *stream, const struct reader *reader, const struct snapshot *snapshot);

#endif
