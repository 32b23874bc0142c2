/*
 * copy.h - the target's own tables, copied: what snapshots are made of and what `hmm check` checks.
 * For the reader's files only.
 *
 * Pointers in it are the target's. What is used as an index or followed was checked before.
 */
#ifndef HMM_COPY_H
#define HMM_COPY_H

#include "handle_guarded.h"
#include "target.h"

enum thread_standing { THREAD_LIVE, THREAD_DORMANT, THREAD_UNUSED };

struct thread_copy {
    uintptr_t address;
    enum thread_standing standing;
    struct thread thread;
    uintptr_t bins[CLASS_COUNT];
    uint32_t bin_counts[CLASS_COUNT]; /* how many slots each holds */
    struct quarantine quarantine;     /* all 0 where there is none */
};

/* A live thread by what slabs name as their owner. */
struct owner_copy {
    uintptr_t self;
    size_t thread;
};

/* That a thread may hold slots of a slab: in the bin of a class, whose current slab it is, or in
 * a batch. */
struct holder_copy {
    uintptr_t slab; /* its descriptor */
    size_t thread;
    size_t place; /* a class, or CLASS_COUNT and more: a batch */
};

struct heap_copy {
    uintptr_t address;
    bool is_process;
    bool is_nested; /* its memory is a block of another heap */
    HmmHeap handle;
    size_t held_bytes; /* freed, and in quarantine; usable bytes */
    size_t held_count;
    uintptr_t places[GUARD_PLACES_MAX]; /* what waits, by address; first those that are 0 */
    size_t first_region;
    size_t region_count;
};

struct region_copy {
    struct region region;
    size_t heap;
};

struct copy {
    bool has_changed;    /* what was read does not fit together */
    const char *trouble; /* what could not be followed; NULL: everything */
    enum engine engine;
    struct options options;
    uintptr_t heap;     /* the process's HmmHeap, 0: none */
    uintptr_t link_key; /* slab.h: 0: links between slots are plain */
    uint32_t first_slot;

    /* all 0 but with the fast engine */
    struct arena arena;
    struct purge_counts purge;
    struct set_words *sets;      /* up to the frontier */
    struct granule *granules;    /* [0, arena.frontier_count); 0 where nothing is taken */
    struct thread_copy *threads; /* live, dormant, unused */
    size_t thread_count;
    struct owner_copy *owners; /* by self */
    size_t owner_count;
    struct holder_copy *holders; /* by slab: of live and dormant threads */
    size_t holder_count;
    struct shard shards[SHARD_COUNT_MAX];
    struct woken woken[CLASS_COUNT];

    struct heap_copy *heaps; /* the process heap first */
    size_t heap_count;
    struct region_copy *regions;
    size_t region_count;
};

/* Copies all tables, again if the target has changed meanwhile, up to so often. false: it cannot be
 * read any more; a line has said so. */
bool copy_take(struct reader *reader, struct copy *copy, int tries_max);
void copy_free(struct copy *copy);

/* For copy_take: all block heaps. false: they cannot be read; what does not fit
 * together is trouble. */
bool copy_heaps(struct reader *reader, struct copy *copy);

/* Notes what does not fit together. The first one counts. */
void copy_trouble(struct copy *copy, const char *what);

/* Whether the target's small tables are still as they were copied: all; those of the arena and of
 * threads; a granule's descriptor; a shard; a block heap. */
bool copy_is_current(struct reader *reader, const struct copy *copy);
bool copy_tables_are_current(struct reader *reader, const struct copy *copy);
bool copy_granule_is_current(struct reader *reader, const struct copy *copy, size_t index);
bool copy_shard_is_current(struct reader *reader, const struct copy *copy, size_t shard);
bool copy_heap_is_current(struct reader *reader, const struct copy *copy, size_t heap);

/* Copies a shard or a block heap once more, and the descriptors of the zone whose first granule is
 * `index`. Nothing is remembered of the memory behind them. false: it is another one by now. */
bool copy_refresh_shard(struct reader *reader, struct copy *copy, size_t shard);
bool copy_refresh_heap(struct reader *reader, struct copy *copy, size_t heap);
bool copy_refresh_zone(struct reader *reader, struct copy *copy, size_t index);

/* The live thread that owns what names `self` as its owner; SIZE_MAX: there is none. */
size_t copy_owner_index(const struct copy *copy, uintptr_t self);

/* As debuggers show it. */
static inline uintptr_t copy_thread_pointer(const struct thread_copy *thread)
{
    return thread->thread.self & ~(uintptr_t)OWNER_GUARDED;
}

/* The first of the holders of the slab, if it has one; the others follow. */
size_t copy_holder_index(const struct copy *copy, uintptr_t slab);

/* The granule whose descriptor is at a pointer of the target's; SIZE_MAX: there is none. */
size_t copy_granule_index(const struct copy *copy, const struct granule *descriptor);

static inline uintptr_t copy_granule_start(const struct copy *copy, size_t index)
{
    return copy->arena.base + (index << GRANULE_SHIFT);
}

static inline bool copy_is_taken(const struct copy *copy, size_t index)
{
    return (copy->sets[index / WORD_BITS].taken >> index % WORD_BITS & 1) != 0;
}

static inline bool copy_is_touched(const struct copy *copy, size_t index)
{
    return (copy->sets[index / WORD_BITS].touched >> index % WORD_BITS & 1) != 0;
}

static inline bool copy_is_hidden(const struct copy *copy, size_t index)
{
    return (copy->sets[index / WORD_BITS].hidden >> index % WORD_BITS & 1) != 0;
}

/* For qsort and bsearch. */
static inline int address_compare(const void *left, const void *right)
{
    const uintptr_t *a = left;
    const uintptr_t *b = right;
    return (*a > *b) - (*a < *b);
}

/* A bool of the target's, which may hold anything. */
static inline bool copy_flag(const void *flag)
{
    return *(const unsigned char *)flag != 0;
}

/* What a slab's descriptor says; a torn one says something possible. */
static inline size_t copy_class(const struct granule *slab)
{
    size_t size_class = slab->size_class;
    return size_class < CLASS_COUNT ? size_class : 0;
}

static inline uint32_t copy_carved(const struct granule *slab)
{
    uint32_t carved = slab->carved_slots;
    uint32_t capacity = class_capacity((unsigned)copy_class(slab));
    return carved < capacity ? carved : capacity;
}

/* How many of them can be in use. */
static inline uint32_t copy_slots(const struct copy *copy, const struct granule *slab)
{
    uint32_t carved = copy_carved(slab);
    return carved - (copy->first_slot < carved ? copy->first_slot : carved);
}

/* The next slot of a list, from the word that says so. */
static inline uintptr_t copy_link(const struct copy *copy, uintptr_t slot, uintptr_t word)
{
    return copy->link_key == 0 ? word : link_read(slot, word, copy->link_key);
}

/* Slots on the slab's own list, on the remote one, and on pages that are away. */
static inline uint32_t copy_free_slots(const struct copy *copy, const struct granule *slab)
{
    uint32_t carved = copy_slots(copy, slab);
    uint32_t counted = slab->state == SLAB_FULL
                           ? class_wake((unsigned)copy_class(slab))
                           : carved - (slab->floor_slots < carved ? slab->floor_slots : carved);
    uint32_t own = counted > slab->need ? counted - slab->need : 0;
    uint32_t all = own + remote_count(slab->remote);
    return all < carved ? all : carved;
}

/* How a slab stands. */
enum slab_view_state copy_slab_state(const struct granule *slab);

/* The metadata's range: descriptors, bit sets, threads. */
struct address_range {
    uintptr_t start;
    uintptr_t end;
};

static inline struct address_range copy_metadata(const struct copy *copy)
{
    return (struct address_range){copy->arena.metadata_start,
                                  (uintptr_t)(copy->arena.table + copy->arena.granule_count)};
}

/* What of it is in use, in bytes. */
size_t copy_metadata_bytes(const struct copy *copy);

/* How far a region's memory may reach. The program break has no limit of its own. */
static inline uintptr_t region_end(const struct region *region)
{
    bool is_open_ended = region->limit >> (sizeof region->limit * CHAR_BIT - 1) != 0;
    return is_open_ended ? region->brk : region->limit;
}

/* How each slot of a slab stands. */
enum slot_state { SLOT_UNCARVED, SLOT_USED, SLOT_FREE, SLOT_CACHED };
enum { SLOTS_MAX = GRANULE_BYTES / SLOT_UNIT_BYTES };

/* By a walk over the lists; slots on pages that are away are free. false: one leads astray;
 * *broken, if not NULL, says how. */
bool copy_slot_states(struct reader *reader, const struct copy *copy, size_t index,
                      uint8_t states[SLOTS_MAX], const char **broken);

/* Walks the blocks of zones and block heaps into pieces. A damaged one is trouble. */
void copy_pieces(struct reader *reader, struct copy *copy, struct piece **pieces,
                 size_t *piece_count);

/* parts.c: what the resident pages of the snapshot's mappings hold. */
void snapshot_add_parts(struct reader *reader, const struct copy *copy, struct snapshot *snapshot);

#endif
