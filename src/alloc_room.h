/*
 * alloc_room.h - what the files of the front's slow half share. For them only.
 *
 *     alloc.c           which room serves a request
 *     alloc_free.c      from a pointer that nobody vouches for to its room: free, usable size
 *     alloc_resize.c    realloc
 *     alloc_whole.c     the whole process: what is given back, the audit
 */
#ifndef HMM_ALLOC_ROOM_H
#define HMM_ALLOC_ROOM_H

#include "alloc.h"

/* -------------------------------------------------------------------------------------- alloc.c */

/* As the doors promise, in the name of a call. */
HMM_HIDDEN void *hmm_alloc_for(const struct request *request);

/* --------------------------------------------------------------------------------- alloc_free.c */

/* Each ends the program: for a crime that needs no evidence; of a pointer to a slot that is not in
 * use; and of one into a granule that nobody has. */
HMM_HIDDEN HMM_NORETURN void hmm_alloc_accuse(const char *call, const void *ptr, const char *what);
HMM_HIDDEN HMM_NORETURN void hmm_alloc_freed_crime(const char *call, const struct granule *slab,
                                                   const void *ptr);
HMM_HIDDEN HMM_NORETURN void hmm_alloc_granule_crime(const char *call, const char *what_if_free,
                                                     const void *ptr);

/* How much of a block in the arena may be used, which is not guarded. */
HMM_HIDDEN size_t hmm_alloc_usable_inside(const char *call, const void *ptr);

/* A pointer that the arena does not cover: the block heap's, or nobody's. */
static inline HmmHeap *block_heap_of(void)
{
    return hmm_process_engine() == ENGINE_BLOCK ? hmm_process_heap() : hmm_process_heap_if_open();
}

/* Whether a pointer into a slab is a slot in use, as far as the slot can show it. */
static inline bool is_used_slot(const struct granule *slab, const void *ptr)
{
    const struct slot *slot = ptr;
    return slab_is_slot(slab, ptr) && slot->mark != slot_free_mark(slab, slot);
}

/* The slab of a pointer to one of its slots, which is in use. */
static inline struct granule *slab_check(const char *call, const void *ptr)
{
    struct granule *slab = granule_of(ptr);
    if (UNLIKELY(!is_used_slot(slab, ptr))) {
        hmm_alloc_freed_crime(call, slab, ptr);
    }
    return slab;
}

#endif
