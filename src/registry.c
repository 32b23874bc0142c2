/*
 * registry.c - the list of created heaps. See registry.h.
 */
#include "registry.h"
#include "process.h"

static struct lock registry_lock = LOCK_INITIALIZER(LOCK_RANK_REGISTRY);
HmmHeap *hmm_registry; /* guarded by registry_lock */
static _Atomic ptrdiff_t registry_count;

size_t hmm_registry_count(void)
{
    return (size_t)atomic_load_explicit(&registry_count, memory_order_relaxed);
}

void hmm_registry_add(HmmHeap *handle)
{
    hmm_lock_acquire(&registry_lock);
    handle->registry_next = hmm_registry;
    handle->registry_link = &hmm_registry;
    if (hmm_registry != NULL) {
        hmm_registry->registry_link = &handle->registry_next;
    }
    hmm_registry = handle;
    counter_add(&registry_count, 1);
    hmm_lock_release(&registry_lock);
}

void hmm_registry_remove(HmmHeap *handle)
{
    hmm_lock_acquire(&registry_lock);
    *handle->registry_link = handle->registry_next;
    if (handle->registry_next != NULL) {
        handle->registry_next->registry_link = handle->registry_link;
    }
    counter_add(&registry_count, -1);
    hmm_lock_release(&registry_lock);
}

const HmmHeap *hmm_handle_owner(const void *ptr)
{
    HmmHeap *handle = NULL;
    if (hmm_lock_try(&registry_lock)) {
        handle = hmm_registry;
        while (handle != NULL && !hmm_handle_covers(handle, ptr)) {
            handle = handle->registry_next;
        }
        hmm_lock_release(&registry_lock);
    }
    if (handle == NULL) {
        handle = hmm_process_heap_if_open();
        handle = handle != NULL && hmm_handle_covers(handle, ptr) ? handle : NULL;
    }
    return handle;
}

void hmm_registry_lock_all(void)
{
    hmm_lock_acquire_for_fork(&registry_lock);
    for (HmmHeap *handle = hmm_registry; handle != NULL; handle = handle->registry_next) {
        hmm_lock_acquire_for_fork(&handle->lock);
    }
}

void hmm_registry_unlock_all(void)
{
    for (HmmHeap *handle = hmm_registry; handle != NULL; handle = handle->registry_next) {
        hmm_lock_release_after_fork(&handle->lock);
    }
    hmm_lock_release_after_fork(&registry_lock);
}
