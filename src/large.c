/*
 * large.c - runs of granules as blocks. See large.h.
 */
#include "large.h"
#include "huge.h"
#include "os.h"
#include "settings.h"

enum {
    /* Up to here blocks are copied, whose memory then stays for others (docs/experiments.md). */
    COPIED_BYTES_MAX = 512 << 10,
    /* And up to here where more than half of the new place is touched already: pages that move
     * there would take the place of those, and would be gone with the block. A longer copy would
     * be waited for. */
    COPIED_ONTO_BYTES_MAX = 4 << 20,
    /* Pages that moved are a mapping of their own until they are given back, and a process may have
     * 65,530 mappings. */
    MOVED_MAX = 200,
};

/* Blocks whose pages came from elsewhere. */
static _Atomic ptrdiff_t moved_count;
static _Atomic bool is_refused; /* the system has not moved a block when it was asked to */

static bool can_move(const struct granule *first)
{
    return first->run.bytes > COPIED_BYTES_MAX &&
           !atomic_load_explicit(&is_refused, memory_order_relaxed) &&
           atomic_load_explicit(&moved_count, memory_order_relaxed) < MOVED_MAX &&
           hmm_os_can_move((void *)first->run.start, first->run.granule_count << GRANULE_SHIFT);
}

static size_t granules_for(size_t bytes)
{
    return (bytes + GRANULE_BYTES - 1) >> GRANULE_SHIFT;
}

/* Whole pages; 0: no block can be as large. */
static size_t pages_for(size_t bytes)
{
    size_t page_bytes = hmm_os_page_bytes();
    return bytes <= OBJECT_BYTES_MAX - GRANULE_BYTES ? align_up(size_max(bytes, 1), page_bytes) : 0;
}

/* A longer run, cut. */
struct granule *hmm_large_take_aligned(size_t before_count, size_t count, size_t alignment)
{
    size_t more_count = alignment >> GRANULE_SHIFT;
    if (more_count > hmm_arena.granule_count || count > hmm_arena.granule_count) {
        return NULL;
    }
    struct granule *first = hmm_arena_take(count + more_count, 1);
    if (first == NULL) {
        return NULL;
    }
    const uintptr_t earliest = granule_start(first + before_count);
    size_t lead_count = (align_up(earliest, alignment) - earliest) >> GRANULE_SHIFT;
    if (lead_count != 0) {
        hmm_arena_give(first, lead_count, 0);
    }
    if (lead_count < more_count) {
        hmm_arena_give(first + lead_count + count, more_count - lead_count, 0);
    }
    return first + lead_count;
}

static struct granule *run_take(size_t alignment, size_t bytes)
{
    size_t count = granules_for(bytes);
    struct granule *first = alignment <= ARENA_ALIGN_BYTES
                                ? hmm_arena_take(count, size_max(alignment >> GRANULE_SHIFT, 1))
                                : hmm_large_take_aligned(0, count, alignment);
    if (first == NULL) {
        return NULL;
    }
    first->run.start = granule_start(first);
    first->run.bytes = bytes;
    first->run.granule_count = count;
    first->has_moved = false;
    granule_set_kind(first, GRANULE_LARGE);
    return first;
}

void *hmm_large_allocate(size_t alignment, size_t bytes)
{
    size_t run_bytes = pages_for(bytes);
    struct granule *first = run_bytes != 0 ? run_take(alignment, run_bytes) : NULL;
    return first != NULL ? (void *)first->run.start : NULL;
}

/* Granules that were never touched, or given back, are zero already. */
void hmm_large_clear(void *ptr, size_t bytes)
{
    const struct granule *granule = granule_of(ptr);
    uintptr_t start = (uintptr_t)ptr;
    const uintptr_t end = start + bytes;
    while (start < end) {
        size_t piece_bytes = size_min(granule_start(granule) + GRANULE_BYTES, end) - start;
        if (granule_is_touched(granule)) {
            memset((void *)start, 0, piece_bytes);
        }
        start += piece_bytes;
        granule++;
    }
}

static bool run_find(const void *ptr, struct granule **first, struct crime *crime)
{
    *first = granule_of(ptr);
    if ((*first)->run.start == (uintptr_t)ptr) {
        return true;
    }
    *crime = (struct crime){.what = "invalid pointer, inside a block",
                            .at = (*first)->run.start,
                            .block_bytes = (*first)->run.bytes};
    return false;
}

enum renewal {
    RENEWED,
    RENEWED_HIDDEN, /* as far as anybody can be kept out: they are inaccessible */
    NOT_RENEWED,    /* their content is still there */
};

/* Pages that moved here are a mapping of their own: fresh ones in their place join their
 * neighbours' again. */
static enum renewal moved_renew(struct granule *first)
{
    void *start = (void *)granule_start(first);
    size_t bytes = first->run.granule_count << GRANULE_SHIFT;
    enum renewal result = NOT_RENEWED;
    if (hmm_os_renew(start, bytes, ARENA_NAME)) {
        hmm_huge_join(granule_index(first), first->run.granule_count);
        result = RENEWED;
    } else if (hmm_os_plug(start, bytes)) {
        hmm_arena_note_hidden(first, first->run.granule_count);
        result = RENEWED_HIDDEN;
    }
    if (result != NOT_RENEWED) {
        counter_add(&moved_count, -1);
        first->has_moved = false;
    }
    return result;
}

static void run_give(struct granule *first)
{
    size_t count = first->run.granule_count;
    granule_set_kind(first, GRANULE_FREE);
    if (first->has_moved && moved_renew(first) == RENEWED) {
        hmm_arena_give_zero(first, count);
    } else {
        hmm_arena_give(first, count, count);
    }
}

bool hmm_large_free(void *ptr, struct crime *crime)
{
    struct granule *first;
    if (!run_find(ptr, &first, crime)) {
        return false;
    }
    run_give(first);
    return true;
}

bool hmm_large_free_cleared(void *ptr, struct crime *crime)
{
    struct granule *first;
    if (!run_find(ptr, &first, crime)) {
        return false;
    }
    size_t count = first->run.granule_count; /* whole granules: all of the last one is zero then */
    enum renewal renewal = first->has_moved ? moved_renew(first) : NOT_RENEWED;
    if (renewal == NOT_RENEWED && !hmm_os_purge(ptr, count << GRANULE_SHIFT)) {
        memset(ptr, 0, first->run.bytes);
        run_give(first);
    } else if (renewal == RENEWED_HIDDEN) {
        run_give(first);
    } else {
        granule_set_kind(first, GRANULE_FREE);
        hmm_arena_give_zero(first, count);
    }
    return true;
}

bool hmm_large_usable(const void *ptr, size_t *usable_bytes, struct crime *crime)
{
    struct granule *first;
    if (!run_find(ptr, &first, crime)) {
        return false;
    }
    *usable_bytes = first->run.bytes;
    return true;
}

/* Under guard nothing is left behind that is not zero. */
static bool is_better_copied(const struct granule *first, const struct granule *new)
{
    const size_t count = first->run.granule_count;
    if (hmm_settings.guard.level != GUARD_OFF || first->run.bytes > COPIED_ONTO_BYTES_MAX) {
        return false;
    }
    size_t touched_count = 0;
    for (size_t i = 0; i < count; i++) {
        touched_count += granule_is_touched(new + i);
    }
    return touched_count > count / 2;
}

/* The pages go to a longer run: whole granules, so that what is left behind is zero to its end; or
 * their content does. NULL: neither. A system that could not once is not asked again; where it has
 * lost the new run's mapping that stays a large run which is no block. What has moved before, and
 * then grown, is two mappings: it is copied, and can move after that. */
static struct granule *run_move(struct granule *first, size_t bytes)
{
    struct granule *new = can_move(first) ? run_take(1, bytes) : NULL;
    if (new == NULL) {
        return NULL;
    }
    size_t count = first->run.granule_count;
    if (is_better_copied(first, new)) {
        memcpy((void *)new->run.start, (const void *)first->run.start, first->run.bytes);
        run_give(first);
        return new;
    }
    enum os_move result =
        hmm_os_move((void *)first->run.start, (void *)new->run.start, count << GRANULE_SHIFT);
    if (result != OS_MOVED) {
        atomic_store_explicit(&is_refused, true, memory_order_relaxed);
        new->run.start = 0;
        if (result == OS_NOT_MOVED) {
            granule_set_kind(new, GRANULE_FREE);
            hmm_arena_give(new, new->run.granule_count, 0);
        }
        return NULL;
    }
    counter_add(&moved_count, 1);
    new->has_moved = true;
    if (first->has_moved) {
        run_give(first);
    } else {
        granule_set_kind(first, GRANULE_FREE);
        hmm_arena_give_zero(first, count);
    }
    return new;
}

/* A moved run keeps its granules, because they come back as one. */
static void run_shrink(struct granule *first, size_t bytes)
{
    size_t count = granules_for(bytes);
    size_t old_count = first->run.granule_count;
    first->run.bytes = bytes;
    if (count < old_count && !first->has_moved) {
        first->run.granule_count = count;
        hmm_arena_give(first + count, old_count - count, old_count - count);
    }
}

static bool run_grow(struct granule *first, size_t bytes)
{
    size_t count = granules_for(bytes);
    size_t old_count = first->run.granule_count;
    if (count > old_count && !hmm_arena_extend(first, old_count, count - old_count)) {
        return false;
    }
    first->run.bytes = bytes;
    first->run.granule_count = size_max(count, old_count);
    return true;
}

void *hmm_large_resize(void *ptr, size_t bytes, size_t *usable_bytes, struct crime *crime)
{
    struct granule *first;
    if (!run_find(ptr, &first, crime)) {
        return NULL;
    }
    *usable_bytes = first->run.bytes;
    size_t run_bytes = pages_for(bytes);
    if (run_bytes == 0) {
        return NULL;
    }
    if (run_bytes <= first->run.bytes) {
        run_shrink(first, run_bytes);
        return ptr;
    }
    if (run_grow(first, run_bytes)) {
        return ptr;
    }
    struct granule *moved = run_move(first, run_bytes);
    return moved != NULL ? (void *)moved->run.start : NULL;
}
