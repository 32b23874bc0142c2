/*
 * alloc.h - the process heap: the one behind malloc.
 *
 * There is no call that starts it. Whoever comes first, be it ld.so before any constructor has run,
 * opens it; everybody else finds it by one load.
 */
#ifndef HMM_ALLOC_H
#define HMM_ALLOC_H

#include "handle.h"

/* NULL: no memory, now. */
HMM_HIDDEN HmmHeap *hmm_alloc_heap(void);

/* NULL: nobody has allocated yet. */
HMM_HIDDEN HmmHeap *hmm_alloc_heap_if_open(void);

/* fork(): the lock under which the heap is opened, and the heap's own. */
HMM_HIDDEN void hmm_alloc_lock_start(void);
HMM_HIDDEN void hmm_alloc_unlock_start(void);

/* fork.c: from now on a forked child finds every heap whole. */
HMM_HIDDEN void hmm_fork_register(void);

#endif
