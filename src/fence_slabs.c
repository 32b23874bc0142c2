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
static size_t built_count;

static struct granule *spare_pop(void)
{
    struct granule *fence = NULL;
    hmm_lock_acquire(&hmm_fences.lock);
    for (int i = 0; i < SPARE_COUNT && fence == NULL; i++) {
        fence = spare_fences[i];
        spare_fences[i] = NULL;
    }
    hmm_lock_release(&hmm_fences.lock);
    return fence;
}

void hmm_fence_yield(void)
{
    hmm_fence_flush();
    struct granule *fence = spare_pop();
    while (fence != NULL) {
        bool is_renewed;
        if (!hmm_fence_show(granule_address(fence), GRANULE_BYTES, &is_renewed)) {
            hmm_arena_note_hidden(fence, 1);
        }
        granule_set_kind(fence, GRANULE_FREE);
        counter_add(&hmm_fences.count, -1);
        hmm_purge_count_fenced(-GRANULE_BYTES, 0);
        hmm_arena_give_zero(fence, 1);
        fence = spare_pop();
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
static void built(struct granule *fence)
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
    built_count++;
    hmm_lock_release(&hmm_fences.lock);
}

static bool has_built(size_t count_max)
{
    hmm_lock_acquire(&hmm_fences.lock);
    bool has = built_count >= count_max;
    hmm_lock_release(&hmm_fences.lock);
    return has;
}

void hmm_fence_build(size_t count_max)
{
    struct granule *fence = can_fence() && !has_built(count_max) ? hmm_arena_take(1, 1) : NULL;
    if (fence == NULL) {
        return;
    }
    fence_mark(fence);
    if (hmm_os_decommit_unmarked(granule_address(fence), GRANULE_BYTES)) {
        built(fence);
    } else {
        granule_set_kind(fence, GRANULE_FREE);
        hmm_arena_give(fence, 1, 0);
        hmm_fence_use_fewer();
    }
}
