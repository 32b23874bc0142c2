/*
 * arena_open.c - the reservations: that of the blocks, and that of what is known about
 * them. See arena.h.
 */
#include "arena_sets.h"
#include "huge.h"
#include "os.h"

enum {
    /* Below this an arena of granules has too few of them for a slab of each class. */
    RESERVE_BYTES_MIN = 32 << 20,
    /* The library's own memory: one part in so many of the arena, and at most so much. */
    METADATA_SHARE = 16,
    METADATA_BYTES_MAX = 256 << 20,
    METADATA_STEP_BYTES = 64 * 1024,
    /* No address that the table could be reached from by an overflow. */
    GUARD_BYTES = 64 * 1024,
};

/* Sizes of what lies apart from the blocks: [guard | metadata | bit sets | table | guard]. The
 * metadata grows downwards, so that what every process needs of all three is made accessible by
 * one call. */
struct layout {
    size_t metadata_bytes;
    size_t sets_bytes;
    size_t table_bytes;
    size_t bytes;
};

static struct layout layout_for(size_t arena_bytes)
{
    size_t count = arena_bytes >> GRANULE_SHIFT;
    struct layout layout = {
        .table_bytes =
            align_up(align_up(count, TABLE_COMMIT_COUNT) * sizeof(struct granule), GUARD_BYTES),
        .sets_bytes = align_up((count / WORD_BITS + 1) * sizeof(struct set_words), GUARD_BYTES),
        .metadata_bytes = size_min(arena_bytes / METADATA_SHARE, METADATA_BYTES_MAX),
    };
    layout.bytes = layout.table_bytes + layout.sets_bytes + layout.metadata_bytes + 2 * GUARD_BYTES;
    return layout;
}

/* Both reservations, or none. */
static bool open_with(size_t arena_bytes)
{
    const size_t first_bytes = TABLE_COMMIT_COUNT * sizeof(struct granule); /* of the table */
    struct layout layout = layout_for(arena_bytes);
    void *range = hmm_os_reserve(arena_bytes + ARENA_ALIGN_BYTES, 0);
    void *beside = range != NULL ? hmm_os_reserve(layout.bytes, 0) : NULL;
    const uintptr_t metadata = (uintptr_t)beside + GUARD_BYTES;
    const uintptr_t sets = metadata + layout.metadata_bytes;
    const uintptr_t table = sets + layout.sets_bytes;
    const uintptr_t committed = sets - METADATA_STEP_BYTES;
    if (beside == NULL || !hmm_os_commit((void *)committed, table + first_bytes - committed) ||
        !hmm_os_show((void *)(table + first_bytes), layout.table_bytes - first_bytes)) {
        if (beside != NULL) {
            hmm_os_release(beside, layout.bytes);
        }
        if (range != NULL) {
            hmm_os_release(range, arena_bytes + ARENA_ALIGN_BYTES);
        }
        return false;
    }
    hmm_arena.sets = (struct set_words *)sets;
    hmm_arena.metadata_start = metadata;
    hmm_arena.metadata_committed = committed;
    hmm_arena.metadata = sets;
    hmm_arena.granule_count = arena_bytes >> GRANULE_SHIFT;
    hmm_arena.table = (struct granule *)table;
    hmm_arena.table_committed_count = TABLE_COMMIT_COUNT;
    hmm_os_name(range, arena_bytes + ARENA_ALIGN_BYTES, ARENA_NAME);
    hmm_os_name(beside, layout.bytes, "hmm metadata");
    hmm_arena.base = align_up((uintptr_t)range, ARENA_ALIGN_BYTES);
    hmm_arena.bytes = arena_bytes;
    hmm_huge_init();
    return true;
}

/* Whether the system would agree, for now. */
static bool can_open_with(size_t arena_bytes)
{
    size_t bytes = arena_bytes + layout_for(arena_bytes).bytes + ARENA_ALIGN_BYTES;
    void *probe = hmm_os_reserve(bytes, 0);
    if (probe != NULL) {
        hmm_os_release(probe, bytes);
    }
    return probe != NULL;
}

/* Halved until the system agrees, and once more then, so that a tight limit leaves
 * room for others. */
bool hmm_arena_open(size_t limit_bytes)
{
    if (limit_bytes != 0) {
        size_t bytes = align_down(limit_bytes, GRANULE_BYTES);
        return bytes >= RESERVE_BYTES_MIN && open_with(bytes);
    }
    size_t bytes = hmm_os_range_bytes();
    if (open_with(bytes)) {
        return true;
    }
    do {
        bytes /= 2;
    } while (bytes >= RESERVE_BYTES_MIN && !can_open_with(bytes));
    return bytes / 2 >= RESERVE_BYTES_MIN && open_with(bytes / 2);
}

/* The table ends at `bytes`, and a guard follows. */
static void table_shrink(size_t bytes, size_t old_bytes)
{
    const uintptr_t end = (uintptr_t)hmm_arena.table + bytes;
    if (old_bytes > bytes && hmm_os_hide((void *)end, GUARD_BYTES)) {
        hmm_os_release((void *)(end + GUARD_BYTES), old_bytes - bytes);
    }
}

/* It begins at `start`, and a guard lies before it: it is inaccessible there. */
static void metadata_shrink(uintptr_t start)
{
    const uintptr_t old = hmm_arena.metadata_start;
    if (start > old) {
        hmm_os_release((void *)(old - GUARD_BYTES), start - old);
        hmm_arena.metadata_start = start;
    }
}

/* Who judges a pointer meanwhile may still see the old end: beyond the new one there has never
 * been a block. */
void hmm_arena_shrink(size_t bytes)
{
    hmm_lock_acquire(&hmm_arena.lock);
    const size_t old_bytes = hmm_arena.bytes;
    const size_t count =
        align_up(size_max(bytes >> GRANULE_SHIFT, hmm_arena.committed_count), TABLE_COMMIT_COUNT);
    if (count < old_bytes >> GRANULE_SHIFT) {
        const size_t new_bytes = count << GRANULE_SHIFT;
        const struct layout old = layout_for(old_bytes);
        const struct layout new = layout_for(new_bytes);
        hmm_arena.granule_count = count;
        hmm_arena.table_committed_count = size_min(hmm_arena.table_committed_count, count);
        __atomic_store_n(&hmm_arena.bytes, new_bytes, __ATOMIC_RELAXED);
        hmm_os_release((void *)(hmm_arena.base + new_bytes), old_bytes - new_bytes);
        table_shrink(new.table_bytes, old.table_bytes);
        metadata_shrink(size_min((uintptr_t)hmm_arena.sets - new.metadata_bytes,
                                 align_down(hmm_arena.metadata_committed, GUARD_BYTES)));
    }
    hmm_lock_release(&hmm_arena.lock);
}

/* Whether all from there on is accessible now. */
static bool metadata_commit(uintptr_t start)
{
    const uintptr_t old = hmm_arena.metadata_committed;
    const uintptr_t committed =
        size_max(align_down(start, METADATA_STEP_BYTES), hmm_arena.metadata_start);
    if (start >= old) {
        return true;
    }
    const bool is_done = hmm_os_commit((void *)committed, old - committed);
    hmm_arena.metadata_committed = is_done ? committed : old;
    return is_done;
}

void *hmm_arena_metadata(size_t bytes)
{
    void *memory = NULL;
    bytes = align_up(bytes, LINE_BYTES);
    hmm_lock_acquire(&hmm_arena.lock);
    if (bytes <= hmm_arena.metadata - hmm_arena.metadata_start &&
        metadata_commit(hmm_arena.metadata - bytes)) {
        hmm_arena.metadata -= bytes;
        memory = (void *)hmm_arena.metadata;
    }
    hmm_lock_release(&hmm_arena.lock);
    return memory;
}
