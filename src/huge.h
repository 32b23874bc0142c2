/*
 * huge.h - huge pages for large dense heaps.
 *
 * A heap that grows by slabs faults once for every page. Once it is large and dense, the next 2 MiB
 * at the frontier will soon be in use too, and one fault for all of them costs a third; and so does
 * each extent that comes back where a larger heap has been. A small process never gets there, so it
 * keeps the footprint of small pages.
 */
#ifndef HMM_HUGE_H
#define HMM_HUGE_H

#include "base.h"

/* Once, at the start. */
HMM_HIDDEN void hmm_huge_init(void);

/* The run was just taken at the frontier. If an extent begins in it, that may be filled as a whole.
 * No lock may be held. */
HMM_HIDDEN void hmm_huge_consider(size_t index, size_t count);

/* Whether it might be worth trying to fill the extent again, at a glance. */
HMM_HIDDEN bool hmm_huge_may_refill(size_t index);

/* An extent that had been given back, the caller's as a whole, may be filled again. Whether it was.
 * No lock may be held. */
HMM_HIDDEN bool hmm_huge_refill(size_t index);

/* Touches small pages, and learns how long that takes: what a huge one may take. false: the system
 * cannot. */
HMM_HIDDEN bool hmm_huge_touch_small(void *start, size_t bytes);

/* Pages are about to be given back from between others that stay: the system must not make huge
 * ones of what is left. Extents that come later are not concerned. */
HMM_HIDDEN void hmm_huge_withdraw(void);

/* Fresh pages were mapped there, which shall be one mapping with those around them again. The
 * arena's lock may be held. */
HMM_HIDDEN void hmm_huge_join(size_t index, size_t count);

/* All mappings from this granule on are fresh. The arena's lock is held. */
HMM_HIDDEN void hmm_huge_lower(size_t index);

#endif
