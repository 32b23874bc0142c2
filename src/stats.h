/*
 * stats.h - what the process heap holds, counted when somebody asks.
 *
 * Nothing is counted for the sake of these numbers: they are read off the descriptors, the
 * shards' counters and the threads' bins. So they are exact while nobody else allocates, and a
 * moment's opinion otherwise.
 */
#ifndef HMM_STATS_H
#define HMM_STATS_H

#include "base.h"
#include "hmm.h"

/* The process heap as one heap, for mallinfo; all 0 before the first allocation. */
HMM_HIDDEN void hmm_stats_get(HmmHeapStats *stats);

/* HmmGetStats for a signal handler: waits for no lock. Where those of the threads' list or of the
 * arena are not to be had, slots in the bins of other threads count as live. */
HMM_HIDDEN void hmm_stats_peek(HmmStats *stats);

/* As text on standard error; the second from a signal handler. */
HMM_HIDDEN void hmm_stats_print(void);
HMM_HIDDEN void hmm_stats_print_peeked(void);

#endif
