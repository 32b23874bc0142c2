/*
 * process.h - what there is once a process: its options, its engine, and its block heap.
 *
 * There is no call that starts them. Whoever comes first, be it ld.so before any constructor has
 * run, does; everybody else finds them by one load. The block heap is what malloc runs on with
 * engine=block, and what takes the overflow of an arena that is too small for a request.
 */
#ifndef HMM_PROCESS_H
#define HMM_PROCESS_H

#include "handle.h"
#include "options.h"

enum engine { ENGINE_NONE, ENGINE_FAST, ENGINE_BLOCK };

/* Where it all lies, for root.c. */
struct process {
    _Atomic(HmmHeap *) *heap;
    _Atomic int *engine; /* enum engine */
    const struct options *options;
};

extern HMM_HIDDEN const struct process hmm_process;

/* What malloc runs on; the second: ENGINE_NONE until somebody has allocated. */
HMM_HIDDEN enum engine hmm_process_engine(void);
HMM_HIDDEN enum engine hmm_process_engine_if_started(void);

/* Whether the block heap may take what the arena has no room for. */
HMM_HIDDEN bool hmm_process_can_overflow(void);

/* The block heap. NULL: no memory, now. */
HMM_HIDDEN HmmHeap *hmm_process_heap(void);

/* NULL: nobody has needed it yet. */
HMM_HIDDEN HmmHeap *hmm_process_heap_if_open(void);

/* process_exit.c: the file that leaks are reported to is noted while it is surely there, and the
 * reports that the options ask for are written at the end. */
HMM_HIDDEN void hmm_process_note_leaks_file(void);
HMM_HIDDEN void hmm_process_report(void);

/* fork(): the lock under which the heap is opened, and the heap's own. */
HMM_HIDDEN void hmm_process_lock_start(void);
HMM_HIDDEN void hmm_process_unlock_start(void);

/* fork.c: from now on a forked child finds every heap whole. */
HMM_HIDDEN void hmm_fork_register(void);

/* fork.c: whether the heap is the caller's own. A child of vfork() borrows its parent's, and one of
 * _Fork() may have inherited locks that nobody gives back. */
HMM_HIDDEN HMM_COLD bool hmm_fork_is_owner(void);

#endif
