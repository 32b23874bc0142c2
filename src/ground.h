/*
 * ground.h - where the memory of the process heap and of created heaps comes from.
 *
 * One of two files stands behind it: ground_system.c (program break and reserved ranges), or
 * ground_array.c (one static array, for libhmm-array.so and programs that want a bounded heap).
 */
#ifndef HMM_GROUND_H
#define HMM_GROUND_H

#include "handle.h"
#include "options.h"

/* Whether memory may be taken from the system. */
extern HMM_HIDDEN const bool hmm_ground_is_system;

/* Opens the process heap on its first region. NULL: no memory. */
HMM_HIDDEN HmmHeap *hmm_ground_open(const struct options *options, const HmmHeapOptions *heap);

/* Leaves of each range that is reserved for the process heap no more than `bytes`, and what
 * is in use. */
HMM_HIDDEN HMM_COLD void hmm_ground_shrink(HmmHeap *heap, size_t bytes);

/* Opens a created heap, beside so many others, on a region of its own, which the heap ends;
 * `limit_bytes` 0: it has no limit. NULL: not to be had. */
HMM_HIDDEN HmmHeap *hmm_ground_create(size_t limit_bytes, size_t others_count,
                                      const HmmHeapOptions *options);

#endif
