/*
 * fence.c - blocks between inaccessible granules: made, freed, and waiting. See fence.h.
 */
#include "fence_room.h"
#include "large.h"
#include "os.h"
#include "purge.h"

enum {
    FENCED_MAX = 8192,
    /* Freed blocks that wait, and how many granules all of them may have: one part of the arena. */
    WAITING_COUNT = 32,
    WAITING_SHARE = 16,
};

struct waiting {
    struct granule *first; /* NULL: none */
    size_t dirty_bytes;    /* it has kept so much memory */
};

struct fences hmm_fences = {
    .lock = LOCK_INITIALIZER(LOCK_RANK_FENCE),
    .count_max = FENCED_MAX,
};

/* guarded by the lock */
static struct waiting waiting[WAITING_COUNT];
static size_t waiting_next;
static size_t waiting_granule_count;
static size_t waiting_dirty_bytes;
/* Its wait is over: the next block takes it with its fences, if it wants as many granules. */
static struct waiting offered;

/* ------------------------------------------------------------------------------------- granules */

static uintptr_t run_end(const struct granule *first)
{
    return granule_start(first) + (first->run.granule_count << GRANULE_SHIFT);
}

static uintptr_t page_start(uintptr_t address)
{
    return align_down(address, size_min(hmm_os_page_bytes(), GRANULE_BYTES));
}

/* Where the block's first page begins, and what lies before it is inaccessible. */
static uintptr_t access_start(const struct granule *first)
{
    return page_start(first->run.start);
}

/* The first fence, and what lies between it and the block's first page. */
static size_t closed_bytes(const struct granule *first)
{
    return access_start(first) - granule_start(first - 1);
}

bool hmm_fence_show(void *start, size_t bytes, bool *is_renewed)
{
    *is_renewed = !hmm_os_unhide(start, bytes, ARENA_NAME);
    return !*is_renewed ||
           (hmm_os_decommit_unmarked(start, bytes) && hmm_os_unhide(start, bytes, ARENA_NAME));
}

/* --------------------------------------------------------------------------------------- fences */

/* They are nobody's, all of them: of a block between fences, and the fences. */
static void fences_forget(struct granule *first)
{
    granule_set_kind(first - 1, GRANULE_FREE);
    granule_set_kind(first, GRANULE_FREE);
    granule_set_kind(first + first->run.granule_count, GRANULE_FREE);
    counter_add(&hmm_fences.count, -1);
}

/* Gives back what was taken for a block whose second fence could not be closed. */
static HMM_COLD void fences_give_up(struct granule *first)
{
    struct granule *fence = first - 1;
    bool is_renewed;
    if (!hmm_fence_show(granule_address(fence), closed_bytes(first), &is_renewed)) {
        hmm_arena_note_hidden(fence, align_up(closed_bytes(first), GRANULE_BYTES) >> GRANULE_SHIFT);
    }
    fences_forget(first);
    hmm_arena_give(fence, first->run.granule_count + 2, 0);
}

/* Both fences, and what lies between the first and the block. false: the granules are nobody's. */
static bool fences_close(struct granule *first)
{
    struct granule *fence = first - 1;
    if (!hmm_os_decommit_unmarked(granule_address(fence), closed_bytes(first))) {
        fences_forget(first);
        hmm_arena_give(fence, first->run.granule_count + 2, 0);
        return false;
    }
    if (!hmm_os_decommit_unmarked((void *)run_end(first), GRANULE_BYTES)) {
        fences_give_up(first);
        return false;
    }
    hmm_purge_count_fenced((ptrdiff_t)(closed_bytes(first) + GRANULE_BYTES), 0);
    return true;
}

/* A block's granules and its fences are accessible again, and nobody's. They count as inaccessible,
 * and the block as holding so much; 0: it was emptied. Where the system refuses, because others
 * have taken what may be accessible, they are emptied and free as they are. */
static void fences_open(struct granule *first, size_t dirty_bytes)
{
    size_t count = first->run.granule_count;
    struct granule *fence = first - 1;
    void *start = granule_address(fence);
    size_t bytes = (count + 2) << GRANULE_SHIFT;
    bool is_zero;
    if (!hmm_fence_show(start, bytes, &is_zero)) {
        is_zero = hmm_os_decommit_unmarked(start, bytes) || hmm_os_purge(start, bytes);
        hmm_arena_note_hidden(fence, count + 2);
    }
    hmm_purge_count_fenced(-(ptrdiff_t)bytes, -(ptrdiff_t)dirty_bytes);
    fences_forget(first);
    if (dirty_bytes != 0 && !is_zero) {
        hmm_arena_give_zero(fence, 1);
        hmm_arena_give(first, count + 1, count);
    } else {
        hmm_arena_give_zero(fence, count + 2);
    }
}

/* -------------------------------------------------------------------------------------- waiting */

/* Takes the place of the one that has waited longest, which may be none, or leaves it empty. */
static struct waiting waiting_swap(struct waiting new)
{
    hmm_lock_acquire(&hmm_fences.lock);
    struct waiting old = waiting[waiting_next];
    waiting[waiting_next] = new;
    waiting_next = (waiting_next + 1) % WAITING_COUNT;
    waiting_granule_count += new.first != NULL ? new.first->run.granule_count : 0;
    waiting_granule_count -= old.first != NULL ? old.first->run.granule_count : 0;
    waiting_dirty_bytes += new.dirty_bytes - old.dirty_bytes;
    hmm_lock_release(&hmm_fences.lock);
    return old;
}

/* Once so much more is live. */
static bool has_too_many_waiting(size_t more_bytes)
{
    size_t dirty_bytes_max = hmm_purge_fenced_bound_bytes(more_bytes);
    hmm_lock_acquire(&hmm_fences.lock);
    bool has = waiting_granule_count > hmm_arena.granule_count / WAITING_SHARE ||
               waiting_dirty_bytes > dirty_bytes_max;
    hmm_lock_release(&hmm_fences.lock);
    return has;
}

/* Another one is offered instead, or none. */
static struct waiting offered_swap(struct waiting new)
{
    hmm_lock_acquire(&hmm_fences.lock);
    struct waiting old = offered;
    offered = new;
    hmm_lock_release(&hmm_fences.lock);
    return old;
}

/* Its fences are taken down, if there is one. */
static void waiting_open(struct waiting old)
{
    if (old.first != NULL) {
        fences_open(old.first, old.dirty_bytes);
    }
}

/* Its wait is over: it is offered as it is, if the arena would keep its memory, too. */
static void waiting_offer(struct waiting old)
{
    if (old.dirty_bytes != 0 && hmm_purge_would_keep(old.dirty_bytes)) {
        old = offered_swap(old);
    }
    waiting_open(old);
}

/* No more waits than may, once so much more is live. */
static void waiting_settle(size_t more_bytes)
{
    for (int i = 0; i < WAITING_COUNT && has_too_many_waiting(more_bytes); i++) {
        waiting_offer(waiting_swap((struct waiting){0}));
    }
}

/* --------------------------------------------------------------------------------------- blocks */

/* A run between fences, all of it 0 that can be accessed, with a block at its end; NULL: no memory,
 * or no fence. */
static struct granule *fenced_run_make(size_t count, size_t room_bytes, size_t alignment)
{
    struct granule *fence = alignment > GRANULE_BYTES
                                ? hmm_large_take_aligned(1, count + 2, alignment)
                                : hmm_arena_take(count + 2, 1);
    if (fence == NULL) {
        return NULL;
    }
    counter_add(&hmm_fences.count, 1);
    struct granule *first = fence + 1;
    first->run = (struct run){.granule_count = count};
    first->run.start = run_end(first) - room_bytes;
    first->has_moved = false;
    fence_mark(fence);
    fence_mark(first + count);
    granule_set_kind(first, GRANULE_FENCE);
    if (!fences_close(first)) {
        hmm_fence_use_fewer();
        return NULL;
    }
    const uintptr_t start = page_start(first->run.start);
    hmm_large_clear((void *)start, run_end(first) - start);
    return first;
}

/* The same from the one that is offered, which keeps its fences if it has as many granules, and
 * loses them if not. */
static struct granule *fenced_run_reuse(size_t count, size_t room_bytes)
{
    struct waiting old = offered_swap((struct waiting){0});
    struct granule *first = old.first;
    if (first == NULL || first->run.granule_count != count) {
        waiting_open(old);
        return NULL;
    }
    uintptr_t start = run_end(first) - room_bytes;
    uintptr_t access = page_start(start);
    size_t bytes = run_end(first) - access;
    if (!hmm_os_unhide((void *)access, bytes, ARENA_NAME)) {
        waiting_open(old);
        return NULL;
    }
    memset((void *)access, 0, bytes);
    first->run = (struct run){.start = start, .granule_count = count};
    hmm_purge_count_fenced(-(ptrdiff_t)bytes, -(ptrdiff_t)old.dirty_bytes);
    return first;
}

/* What the end of a block is a multiple of: that of a larger alignment's begins where its run
 * does. */
static size_t fenced_alignment(size_t alignment)
{
    return size_min(size_max(alignment, 2 * sizeof(void *)), GRANULE_BYTES);
}

void *hmm_fence_allocate(size_t alignment, size_t bytes)
{
    size_t room_bytes = size_max(bytes, 1);
    if (!can_fence() || bytes > OBJECT_BYTES_MAX - 4 * (size_t)GRANULE_BYTES) {
        return NULL;
    }
    room_bytes = align_up(room_bytes, fenced_alignment(alignment));
    size_t count = align_up(room_bytes, GRANULE_BYTES) >> GRANULE_SHIFT;
    waiting_settle(room_bytes);
    struct granule *first = alignment <= GRANULE_BYTES ? fenced_run_reuse(count, room_bytes) : NULL;
    first = first != NULL ? first : fenced_run_make(count, room_bytes, alignment);
    if (first == NULL) {
        return NULL;
    }
    first->run.bytes = bytes;
    first->run.is_fenced = true;
    granule_set_kind(first, GRANULE_LARGE);
    return (void *)first->run.start;
}

size_t hmm_fence_lead_bytes(const struct granule *first)
{
    return first->run.start - page_start(first->run.start);
}

size_t hmm_fence_tail_bytes(const struct granule *first)
{
    return run_end(first) - first->run.start - first->run.bytes;
}

/* Nobody can access the block any more. What it holds goes to the system, unless it may stay for
 * the next block: then *dirty_bytes is how much that is. */
static bool block_close(struct granule *first, enum fence_memory memory, size_t *dirty_bytes)
{
    uintptr_t start = access_start(first);
    size_t bytes = run_end(first) - start;
    *dirty_bytes = 0;
    if (memory == FENCE_MEMORY_STAYS) {
        hmm_purge_count_fenced((ptrdiff_t)bytes, (ptrdiff_t)bytes);
        if (bytes <= hmm_purge_fenced_bound_bytes(0) && hmm_os_hide((void *)start, bytes)) {
            *dirty_bytes = bytes;
            return true;
        }
        hmm_purge_count_fenced(-(ptrdiff_t)bytes, -(ptrdiff_t)bytes);
    }
    /* An earlier block of these granules may have begun before this one. */
    void *emptied = granule_address(first);
    if (!hmm_os_decommit_unmarked(emptied, run_end(first) - granule_start(first))) {
        return false;
    }
    hmm_purge_note_gone();
    hmm_purge_count_fenced((ptrdiff_t)bytes, 0);
    return true;
}

void hmm_fence_free(struct granule *first, enum fence_memory memory)
{
    struct waiting new = {.first = first};
    granule_set_kind(first, GRANULE_FENCE);
    if (!can_fence() || !block_close(first, memory, &new.dirty_bytes)) {
        size_t bytes = run_end(first) - access_start(first);
        hmm_purge_count_fenced((ptrdiff_t)bytes, (ptrdiff_t)bytes);
        fences_open(first, bytes);
        return;
    }
    waiting_offer(waiting_swap(new));
    waiting_settle(0);
}

/* ---------------------------------------------------------------------------------- other calls */

void hmm_fence_settle(void)
{
    waiting_settle(0);
}

void hmm_fence_flush(void)
{
    waiting_open(offered_swap((struct waiting){0}));
    for (int i = 0; i < WAITING_COUNT; i++) {
        waiting_open(waiting_swap((struct waiting){0}));
    }
}

void hmm_fence_lock(void)
{
    hmm_lock_acquire_for_fork(&hmm_fences.lock);
}

void hmm_fence_unlock(void)
{
    hmm_lock_release_after_fork(&hmm_fences.lock);
}
