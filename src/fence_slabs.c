/*
 * fence_slabs.c - fences between slabs, and what becomes of them where mappings run
 * out. See fence.h.
 */
#include "fence_room.h"
#include "os.h"
#include "purge.h"

enum {
    /* Where the system has no more mappings, one part of the fences is left for others; and so many
     * between slabs are opened again, because the arena needs one to grow. */
    SPARED_SHARE = 8,
    SPARE_COUNT = 8,
};

/* guarded by the lock */
static struct granule *spare_fences[SPARE_COUNT]; /* NULL: none */
static struct granule *fences;                    /* the others, linked by run.next */
static struct granule *looked_at;                 /* those of them that a search has passed */
static size_t built_count;

static struct granule *spare_pop(void)
{
    struct granule *fence = NULL;
    hmm_lock_acquire(&hmm_fences.lock);
    for (int i = 0; i < SPARE_COUNT && fence == NULL; i++) {
        fence = spare_fences[i];
        spare_fences[i] = NULL;
    }
    built_count -= fence != NULL;
    hmm_lock_release(&hmm_fences.lock);
    return fence;
}

static void list_push(struct granule **list, struct granule *fence)
{
    fence->run.next = *list;
    *list = fence;
}

static struct granule *list_pop(struct granule **list)
{
    struct granule *fence = *list;
    if (fence != NULL) {
        *list = fence->run.next;
    }
    return fence;
}

/* Nothing lies there that an overflow could reach or come from; a moment's opinion. */
static bool is_idle_at(size_t index)
{
    return !granule_is_taken(index) || granule_kind(&hmm_arena.table[index]) == GRANULE_FENCE;
}

static bool is_idle(const struct granule *fence)
{
    size_t index = granule_index(fence);
    return (index == 0 || is_idle_at(index - 1)) && is_idle_at(index + 1);
}

/* A fence that guards nothing, and is in the way of large blocks; NULL: all have been looked at.
 * Only the one that is being opened is on no list: a forked child never gets that back. */
static struct granule *idle_pop(void)
{
    hmm_lock_acquire(&hmm_fences.lock);
    struct granule *fence = list_pop(&fences);
    while (fence != NULL && !is_idle(fence)) {
        list_push(&looked_at, fence);
        fence = list_pop(&fences);
    }
    if (fence != NULL) {
        built_count--;
    } else {
        fences = looked_at;
        looked_at = NULL;
    }
    hmm_lock_release(&hmm_fences.lock);
    return fence;
}

/* What others need more; NULL: nothing is left. */
static struct granule *dispensable_pop(void)
{
    struct granule *fence = spare_pop();
    return fence != NULL ? fence : idle_pop();
}

static void fence_open(struct granule *fence)
{
    bool is_renewed;
    if (!hmm_fence_show(granule_address(fence), GRANULE_BYTES, &is_renewed)) {
        hmm_arena_note_hidden(fence, 1);
    }
    granule_set_kind(fence, GRANULE_FREE);
    counter_add(&hmm_fences.count, -1);
    hmm_purge_count_fenced(-GRANULE_BYTES, 0);
    hmm_arena_give_zero(fence, 1);
}

void hmm_fence_yield(void)
{
    hmm_fence_flush();
    struct granule *fence = dispensable_pop();
    while (fence != NULL) {
        fence_open(fence);
        fence = dispensable_pop();
    }
}

void hmm_fence_use_fewer(void)
{
    ptrdiff_t count = atomic_load_explicit(&hmm_fences.count, memory_order_relaxed);
    atomic_store_explicit(&hmm_fences.count_max, count - count / SPARED_SHARE,
                          memory_order_relaxed);
    hmm_fence_yield();
}

/* Another fence is there, which may be opened again. */
static void fence_enlist(struct granule *fence)
{
    counter_add(&hmm_fences.count, 1);
    hmm_purge_count_fenced(GRANULE_BYTES, 0);
    hmm_lock_acquire(&hmm_fences.lock);
    for (int i = 0; i < SPARE_COUNT && fence != NULL; i++) {
        if (spare_fences[i] == NULL) {
            spare_fences[i] = fence;
            fence = NULL;
        }
    }
    if (fence != NULL) {
        list_push(&fences, fence);
    }
    built_count++;
    hmm_lock_release(&hmm_fences.lock);
}

static bool has_enough_built(size_t count_max)
{
    hmm_lock_acquire(&hmm_fences.lock);
    bool has = built_count >= count_max;
    hmm_lock_release(&hmm_fences.lock);
    return has;
}

void hmm_fence_build(size_t count_max)
{
    if (!can_fence() || has_enough_built(count_max)) {
        return;
    }
    struct granule *fence = hmm_arena_take(1, 1);
    if (fence == NULL) {
        return;
    }
    fence_mark(fence);
    if (hmm_os_decommit_unmarked(granule_address(fence), GRANULE_BYTES)) {
        fence_enlist(fence);
    } else {
        granule_set_kind(fence, GRANULE_FREE);
        hmm_arena_give(fence, 1, 0);
        hmm_fence_use_fewer();
    }
}
