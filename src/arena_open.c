/*
 * arena_open.c - the reservations: that of the blocks, and that of what is known about them. See arena.h.
 */
#include "arena_sets.h"
#include "huge.h"
#include "os.h"

enum {
    /* Below this an arena of granules has too few of them for 56 classes of slots. */
    RESERVE_BYTES_MIN = 32 << 20,
    /* The library's own memory: one part in so many of the arena, and at most so much. */
    METADATA_SHARE = 16,
    METADATA_BYTES_MAX = 256 << 20,
    METADATA_STEP_BYTES = 64 * 1024,
    /* No address that the table could be reached from by an overflow. */
    GUARD_BYTES = 64 * 1024,
};

/* Sizes of what lies apart from the blocks: [guard | table | bit sets | metadata | guard]. */
struct layout {
    size_t table_bytes;
    size_t set_bytes;
    size_t metadata_bytes;
    size_t bytes;
};

static struct layout layout_for(size_t arena_bytes)
{
    size_t count = arena_bytes >> GRANULE_SHIFT;
    struct layout layout = {
        .table_bytes =
            align_up(align_up(count, TABLE_COMMIT_COUNT) * sizeof(struct granule), GUARD_BYTES),
        .set_bytes = align_up(count / CHAR_BIT + sizeof(uint64_t), GUARD_BYTES),
        .metadata_bytes = size_min(arena_bytes / METADATA_SHARE, METADATA_BYTES_MAX),
    };
    layout.bytes =
        layout.table_bytes + 2 * layout.set_bytes + layout.metadata_bytes + 2 * GUARD_BYTES;
    return layout;
}

/* Both reservations, or none. */
static bool open_with(size_t arena_bytes)
{
    struct layout layout = layout_for(arena_bytes);
    void *range = hmm_os_reserve(arena_bytes + ARENA_ALIGN_BYTES);
    void *beside = range != NULL ? hmm_os_reserve(layout.bytes) : NULL;
    uintptr_t table = (uintptr_t)beside + GUARD_BYTES;
    uintptr_t sets = table + layout.table_bytes;
    if (beside == NULL || !hmm_os_show((void *)table, layout.table_bytes) ||
        !hmm_os_commit((void *)sets, 2 * layout.set_bytes + METADATA_STEP_BYTES)) {
        if (beside != NULL) {
            hmm_os_release(beside, layout.bytes);
        }
        if (range != NULL) {
            hmm_os_release(range, arena_bytes + ARENA_ALIGN_BYTES);
        }
        return false;
    }
    hmm_arena.taken = (_Atomic uint64_t *)sets;
    hmm_arena.touched = (_Atomic uint64_t *)(sets + layout.set_bytes);
    hmm_arena.metadata = sets + 2 * layout.set_bytes;
    hmm_arena.metadata_committed = hmm_arena.metadata + METADATA_STEP_BYTES;
    hmm_arena.metadata_end = hmm_arena.metadata + layout.metadata_bytes;
    hmm_arena.granule_count = arena_bytes >> GRANULE_SHIFT;
    hmm_arena.table = (struct granule *)table;
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
    void *probe = hmm_os_reserve(bytes);
    if (probe != NULL) {
        hmm_os_release(probe, bytes);
    }
    return probe != NULL;
}

/* Halved until the system agrees, and once more then, so that a tight limit leaves room for others. */
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

void *hmm_arena_metadata(size_t bytes)
{
    void *memory = NULL;
    bytes = align_up(bytes, LINE_BYTES);
    hmm_lock_acquire(&hmm_arena.lock);
    if (bytes <= hmm_arena.metadata_end - hmm_arena.metadata) {
        uintptr_t end = hmm_arena.metadata + bytes;
        uintptr_t committed = align_up(end, METADATA_STEP_BYTES);
        committed =
            size_min(size_max(committed, hmm_arena.metadata_committed), hmm_arena.metadata_end);
        if (committed == hmm_arena.metadata_committed ||
            hmm_os_commit((void *)hmm_arena.metadata_committed,
                          committed - hmm_arena.metadata_committed)) {
            hmm_arena.metadata_committed = committed;
            memory = (void *)hmm_arena.metadata;
            hmm_arena.metadata = end;
        }
    }
    hmm_lock_release(&hmm_arena.lock);
    return memory;
}
