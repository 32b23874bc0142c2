/*
 * handle_guarded.c - lock, look at crimes, errno: for hardened heaps. See handle_guarded.h.
 */
#include "handle_guarded.h"

void *hmm_guarded_allocate(HmmHeap *handle, const char *call, size_t alignment, size_t bytes,
                           enum origin origin)
{
    hmm_handle_check(handle, call, NULL);
    do {
        struct crime crime;
        crime_clear(&crime);
        hmm_handle_lock(handle);
        void *ptr = hmm_heap_guard_allocate(&handle->heap, handle_guard(handle), alignment, bytes,
                                            origin, &crime);
        hmm_handle_unlock(handle);
        hmm_handle_judge(handle, call, NULL, &crime);
        if (LIKELY(ptr != NULL)) {
            return ptr;
        }
    } while (hmm_handle_make_room(handle, alignment, bytes));
    return hmm_handle_fail(handle, bytes);
}

void *hmm_guarded_resize(HmmHeap *handle, const char *call, void *ptr, size_t bytes)
{
    hmm_handle_check(handle, call, ptr);
    struct crime crime;
    crime_clear(&crime);
    size_t old_bytes = 0;
    hmm_handle_lock(handle);
    void *resized =
        hmm_heap_guard_resize(&handle->heap, handle_guard(handle), ptr, bytes, &old_bytes, &crime);
    hmm_handle_unlock(handle);
    hmm_handle_judge(handle, call, ptr, &crime);
    if (resized != NULL) {
        return resized;
    }
    void *moved = hmm_guarded_allocate(handle, call, BLOCK_UNIT_BYTES, bytes, ORIGIN_MALLOC);
    if (moved != NULL) {
        memcpy(moved, ptr, size_min(old_bytes, bytes));
        hmm_guarded_free(handle, ptr, &(struct claim){.call = call});
    }
    return moved;
}

void hmm_guarded_free(HmmHeap *handle, void *ptr, const struct claim *claim)
{
    hmm_handle_check(handle, claim->call, ptr);
    if (ptr == NULL) {
        return;
    }
    struct crime crime;
    crime_clear(&crime);
    hmm_handle_lock(handle);
    bool is_done = hmm_heap_guard_free(&handle->heap, handle_guard(handle), ptr, claim, &crime);
    hmm_handle_unlock(handle);
    if (UNLIKELY(!is_done)) {
        hmm_handle_judge(handle, claim->call, ptr, &crime);
    }
}

size_t hmm_guarded_usable(const HmmHeap *handle, const char *call, const void *ptr)
{
    hmm_handle_check(handle, call, ptr);
    if (ptr == NULL) {
        return 0;
    }
    struct crime crime;
    crime_clear(&crime);
    size_t usable_bytes = 0;
    hmm_handle_lock(handle);
    bool is_done = hmm_heap_guard_usable((struct heap *)&handle->heap, handle_guard(handle), ptr,
                                         &usable_bytes, &crime);
    hmm_handle_unlock(handle);
    if (UNLIKELY(!is_done)) {
        hmm_handle_judge(handle, call, ptr, &crime);
    }
    return usable_bytes;
}

/* What is held back goes on its way; or what was done to it is said. */
static bool flush_locked(HmmHeap *handle, struct crime *crime)
{
    crime_clear(crime);
    return hmm_heap_recover(&handle->heap, crime) &&
           hmm_heap_guard_flush(&handle->heap, handle_guard(handle), crime);
}

void hmm_guarded_flush(HmmHeap *handle, const char *call)
{
    struct crime crime;
    hmm_handle_lock(handle);
    bool is_done = flush_locked(handle, &crime);
    hmm_handle_unlock(handle);
    if (!is_done) {
        hmm_handle_judge(handle, call, NULL, &crime);
    }
}

void hmm_guarded_get_stats(HmmHeap *handle, HmmHeapStats *stats)
{
    struct crime crime;
    hmm_handle_lock(handle);
    bool is_done = flush_locked(handle, &crime);
    hmm_heap_guard_get_stats(&handle->heap, handle_guard(handle), stats);
    hmm_handle_unlock(handle);
    if (!is_done) {
        hmm_handle_judge(handle, "HmmHeapGetStats", NULL, &crime);
    }
}
