/*
 * fork.c - a child of fork() finds every heap whole and every lock free.
 *
 * Before the fork this thread takes all locks in rank order, so no heap is in the middle of a
 * change; after it parent and child give them back. The child wakes sleepers that it does not have,
 * which is harmless.
 *
 * Other handlers of pthread_atfork may run while the locks are taken, and may allocate: lock.h lets
 * the forking thread through. They must not wait for a thread that allocates, as a library's
 * handler does when it takes its own mutex. So ours run innermost: the library asks to be
 * initialised first (-z initfirst), and whoever registers first prepares last.
 */
#include "alloc.h"
#include "registry.h"

#include <pthread.h>

static HmmHeap *forked_heap; /* guarded by the start lock, as the heap is not opened meanwhile */

static void fork_prepare(void)
{
    hmm_alloc_lock_start();
    hmm_lock_fork_begin();
    hmm_registry_lock_all();
    forked_heap = hmm_alloc_heap_if_open();
    if (forked_heap != NULL) {
        hmm_lock_acquire_for_fork(&forked_heap->lock);
    }
}

static void fork_finish(void)
{
    hmm_lock_fork_end();
    if (forked_heap != NULL) {
        hmm_lock_release_after_fork(&forked_heap->lock);
    }
    hmm_registry_unlock_all();
    hmm_alloc_unlock_start();
}

void hmm_fork_register(void)
{
    (void)pthread_atfork(fork_prepare, fork_finish, fork_finish);
}
