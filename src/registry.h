/*
 * registry.h - the heaps that HmmHeapCreate made, so that fork() finds their locks and an error
 * message their names. Heaps in a caller's memory are not here: that memory may vanish unannounced.
 */
#ifndef HMM_REGISTRY_H
#define HMM_REGISTRY_H

#include "handle.h"

extern HMM_HIDDEN HmmHeap *hmm_registry; /* the newest first; root.h shows where it is */

HMM_HIDDEN void hmm_registry_add(HmmHeap *handle);
HMM_HIDDEN void hmm_registry_remove(HmmHeap *handle);

/* How many there are. Any thread; a moment's opinion. */
HMM_HIDDEN size_t hmm_registry_count(void);

/* fork(): takes the registry's lock and that of every heap in it, and gives them back. */
HMM_HIDDEN void hmm_registry_lock_all(void);
HMM_HIDDEN void hmm_registry_unlock_all(void);

#endif
