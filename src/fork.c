/*
 * fork.c - a child of fork() finds every heap whole and every lock free.
 *
 * Before the fork this thread takes all locks in rank order, so no heap is in the middle of a
 * change. The child's only thread is the one that called fork, so it makes the locks new instead of
 * giving them back: their sleepers are gone.
 *
 * Other handlers of pthread_atfork may run while the locks are taken, in whatever order they were
 * registered, and may allocate: lock.h lets the forking thread through.
 */
#include "alloc.h"
#include "registry.h"

#include <pthread.h>

static void fork_prepare(void)
{
    hmm_alloc_lock_start();
    HmmHeap *heap = hmm_alloc_heap_if_open();
    hmm_registry_lock_all();
    if (heap != NULL) {
        hmm_lock_acquire(&heap->lock);
    }
    hmm_lock_fork_begin();
}

static void fork_parent(void)
{
    HmmHeap *heap = hmm_alloc_heap_if_open();
    hmm_lock_fork_end();
    if (heap != NULL) {
        hmm_lock_release(&heap->lock);
    }
    hmm_registry_unlock_all();
    hmm_alloc_unlock_start();
}

static void fork_child(void)
{
    HmmHeap *heap = hmm_alloc_heap_if_open();
    hmm_lock_fork_end();
    if (heap != NULL) {
        hmm_lock_reset(&heap->lock);
    }
    hmm_registry_reset_all();
    hmm_alloc_reset_start();
}

void hmm_fork_register(void)
{
    (void)pthread_atfork(fork_prepare, fork_parent, fork_child);
}
