/*
 * stats.h - what the process heap has done, for people.
 */
#ifndef HMM_STATS_H
#define HMM_STATS_H

#include "base.h"
#include "hmm.h"

/* The process heap's numbers; all 0 before the first allocation. */
HMM_HIDDEN void hmm_stats_get(HmmHeapStats *stats);

/* The same as text on standard error, by one write. */
HMM_HIDDEN void hmm_stats_print(void);

#endif
