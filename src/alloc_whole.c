/*
 * alloc_whole.c - what concerns all rooms of the process at once: what is given back, what is kept,
 * the audit. See alloc.h.
 */
#include "alloc_room.h"
#include "fence.h"
#include "ground.h"
#include "medium.h"
#include "purge.h"

/* What lies free and is touched, as far as anybody has counted: small blocks between others as a
 * whole, slabs only where something is loose. */
static size_t free_bytes_known(void)
{
    struct medium_stats medium;
    hmm_medium_get_stats(&medium);
    return hmm_purge_dirty_bytes() + medium.free_bytes + hmm_purge_loose_bytes();
}

/* Slabs and blocks of threads first: what they leave empty becomes the arena's. */
static bool trim_fast(size_t keep_bytes)
{
    struct thread *thread = hmm_thread.thread;
    hmm_purge_try_again();
    if (guard_is_on()) {
        hmm_guard_flush("malloc_trim", thread);
    }
    hmm_thread_flush(thread);
    hmm_medium_yield();
    size_t budget_bytes = SIZE_MAX;
    if (keep_bytes != 0) {
        size_t free_bytes = free_bytes_known();
        budget_bytes = size_less(free_bytes, keep_bytes);
    }
    size_t purged_bytes = hmm_thread_trim(thread, budget_bytes);
    purged_bytes += hmm_remote_trim(size_less(budget_bytes, purged_bytes));
    purged_bytes += hmm_medium_trim(size_less(budget_bytes, purged_bytes));
    purged_bytes += hmm_arena_purge(keep_bytes, SIZE_MAX);
    return purged_bytes != 0;
}

bool hmm_alloc_scavenge(void)
{
    if (hmm_process_engine_if_started() != ENGINE_FAST) {
        return false;
    }
    hmm_fence_settle();
    (void)hmm_arena_purge_excess(SIZE_MAX);
    hmm_medium_purge_excess(SIZE_MAX);
    hmm_thread_purge_excess(hmm_thread.thread);
    return hmm_purge_has_regret();
}

bool hmm_alloc_keep(size_t bytes)
{
    bool is_fast = hmm_process_engine() == ENGINE_FAST;
    if (is_fast) {
        hmm_purge_keep(bytes);
    }
    return is_fast;
}

void hmm_alloc_shrink_range(size_t bytes)
{
    HmmHeap *heap = hmm_process_heap_if_open();
    bool is_fast = hmm_process_engine_if_started() == ENGINE_FAST;
    if (is_fast) {
        hmm_arena_shrink(bytes);
    }
    if (heap != NULL) {
        hmm_ground_shrink(heap, is_fast ? 0 : bytes);
    }
}

bool hmm_alloc_trim(size_t keep_bytes)
{
    HmmHeap *heap = hmm_process_heap_if_open();
    bool is_done = heap != NULL && hmm_handle_trim(heap, "malloc_trim", keep_bytes);
    if (hmm_process_engine_if_started() == ENGINE_FAST) {
        is_done |= trim_fast(keep_bytes);
    }
    return is_done;
}

const char *hmm_alloc_audit(void)
{
    if (hmm_process_engine_if_started() != ENGINE_FAST) {
        return NULL;
    }
    const char *broken = hmm_thread_audit();
    broken = broken != NULL ? broken : hmm_remote_audit();
    broken = broken != NULL ? broken : hmm_medium_audit();
    broken = broken != NULL ? broken : hmm_arena_audit();
    return broken != NULL || !guard_is_on() ? broken : hmm_guard_audit();
}
