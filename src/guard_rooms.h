/*
 * guard_rooms.h - the three kinds of rooms as the guard uses them: slots, medium blocks, large
 * ones. For the files of the guard only.
 *
 * Each finds the block of a pointer into its part of the arena, or says what is wrong with it;
 * looks at what a call claims; and hands blocks out with their seals.
 */
#ifndef HMM_GUARD_ROOMS_H
#define HMM_GUARD_ROOMS_H

#include "guard.h"

/* As hmm_guard_resize. */
HMM_HIDDEN void *hmm_guard_slot_resize(void *ptr, size_t bytes, const struct claim *claim,
                                       size_t *old_bytes);
HMM_HIDDEN void *hmm_guard_medium_resize(void *ptr, size_t bytes, const struct claim *claim,
                                         size_t *old_bytes);

HMM_HIDDEN void *hmm_guard_large_resize(void *ptr, size_t bytes, const struct claim *claim,
                                        size_t *old_bytes);

/* NULL: no memory. */
HMM_HIDDEN void *hmm_guard_slot_allocate(struct thread *thread, unsigned size_class,
                                         const struct request *request);
HMM_HIDDEN void *hmm_guard_medium_allocate(const struct thread *thread,
                                           const struct request *request);
HMM_HIDDEN void *hmm_guard_large_allocate(const struct request *request);
/* Of any size, before a fence; NULL: no memory, or no room for a fence. */
HMM_HIDDEN void *hmm_guard_fenced_allocate(const struct request *request);

/* Of any block that is no slot. */
HMM_HIDDEN void hmm_guard_free_other(void *ptr, const struct claim *claim);
HMM_HIDDEN void hmm_guard_medium_free(void *ptr, const struct claim *claim);
HMM_HIDDEN void hmm_guard_large_free(void *ptr, const struct claim *claim);

/* What was asked for, of a live block. */
HMM_HIDDEN size_t hmm_guard_slot_usable(const char *call, const void *ptr);
HMM_HIDDEN size_t hmm_guard_medium_usable(const char *call, const void *ptr);
HMM_HIDDEN size_t hmm_guard_large_usable(const char *call, const void *ptr);

/* Follows the links in all of the thread's bins, whose slots go to others. */
HMM_HIDDEN void hmm_guard_slots_check(const char *call, const struct thread *thread);

/* The room of a medium block, which may be held back. */
HMM_HIDDEN size_t hmm_guard_medium_room(const char *call, const char *what_if_free,
                                        const void *ptr);

/* A medium block goes back to its zone. Somebody may have written into it while it
 * was held back. */
HMM_HIDDEN void hmm_guard_medium_release(void *ptr);

#endif
