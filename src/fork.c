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
 *
 * glibc takes one lock after all handlers that it holds elsewhere while it waits for somebody who
 * allocates, that of its list of streams. So we take it before ours.
 *
 * While there is one thread nothing of that is done. A signal handler may fork, even where it has
 * interrupted a heap call, or a fork: then this thread has locks already. The child goes on where
 * its parent would, with those locks and in the middle of that call.
 */
#include "arena.h"
#include "fence.h"
#include "guard.h"
#include "libc.h"
#include "medium.h"
#include "os.h"
#include "process.h"
#include "registry.h"
#include "scavenger.h"
#include "thread.h"

#include <pthread.h>

static HmmHeap *forked_heap; /* guarded by the start lock, as the heap is not opened meanwhile */
static uint64_t owner_id;    /* the process whose memory this is; 0: nobody has registered yet */
static unsigned depth;       /* guarded by the start lock: forks, each in a handler of the last */

static HMM_COLD void fork_lock(void)
{
    libc_lock_streams();
    hmm_process_lock_start();
    depth++;
    hmm_lock_fork_begin();
    hmm_registry_lock_all();
    forked_heap = hmm_process_heap_if_open();
    if (forked_heap != NULL) {
        hmm_lock_acquire_for_fork(&forked_heap->lock);
    }
    hmm_thread_lock();
    hmm_remote_lock_all();
    hmm_medium_lock_all();
    hmm_fence_lock();
    hmm_lock_acquire_for_fork(&hmm_arena.lock);
}

static void fork_prepare(void)
{
    if (!process_has_one_thread()) {
        fork_lock();
    }
}

static HMM_COLD void fork_unlock(void)
{
    depth = 0;
    hmm_lock_fork_end();
    hmm_lock_release_after_fork(&hmm_arena.lock);
    hmm_fence_unlock();
    hmm_medium_unlock_all();
    hmm_remote_unlock_all();
    hmm_thread_unlock();
    if (forked_heap != NULL) {
        hmm_lock_release_after_fork(&forked_heap->lock);
    }
    hmm_registry_unlock_all();
    hmm_process_unlock_start();
}

static void fork_finish(void)
{
    if (depth == 0) {
        return;
    }
    if (depth == 1) {
        fork_unlock();
    } else {
        depth--;
    }
    libc_unlock_streams();
}

/* What the parent's other threads held is this one's now. */
static HMM_COLD void fork_inherit(void)
{
    hmm_thread_bury_others();
    hmm_arena_reclaim();
    fork_unlock();
    libc_reset_streams();
    if (guard_is_on()) {
        hmm_guard_inherit();
    }
}

static void fork_finish_in_child(void)
{
    if (guard_is_on()) {
        hmm_guard_renew();
    }
    if (depth != 0) {
        fork_inherit();
    }
    owner_id = hmm_os_process_id();
    if (UNLIKELY(hmm_scavenger_is_wanted)) {
        hmm_scavenger_forked();
    }
}

bool hmm_fork_is_owner(void)
{
    return owner_id == 0 || owner_id == hmm_os_process_id();
}

void hmm_fork_register(void)
{
    owner_id = hmm_os_process_id();
    (void)pthread_atfork(fork_prepare, fork_finish, fork_finish_in_child);
}
