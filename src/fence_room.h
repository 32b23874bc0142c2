/*
 * fence_room.h - what the files of the fences' room share. For them only.
 *
 *     fence.c          blocks between fences: made, freed, and waiting
 *     fence_slabs.c    fences between slabs, and making do with fewer
 *     fence_empty.c    blocks of 0 bytes
 */
#ifndef HMM_FENCE_ROOM_H
#define HMM_FENCE_ROOM_H

#include "fence.h"
#include "lock.h"

struct fences {
    struct lock lock; /* guards what waits, fences between slabs, and blocks of 0 bytes */
    /* relaxed: opinions, held against each other */
    _Atomic ptrdiff_t count;     /* blocks between fences, and fences between slabs */
    _Atomic ptrdiff_t count_max; /* of them; comes down when the system refuses one */
};

extern HMM_HIDDEN struct fences hmm_fences;

static inline void *granule_address(const struct granule *granule)
{
    return (void *)granule_start(granule);
}

/* A granule that nobody can access, and that is no block's. */
static inline void fence_mark(struct granule *fence)
{
    fence->run = (struct run){0};
    granule_set_kind(fence, GRANULE_FENCE);
}

static inline bool can_fence(void)
{
    return atomic_load_explicit(&hmm_fences.count, memory_order_relaxed) <
           atomic_load_explicit(&hmm_fences.count_max, memory_order_relaxed);
}

/* Makes all accessible again, and says whether it is. What cannot be shown as it is is renewed:
 * fresh and inaccessible pages come first, which the system never refuses halfway, so that there is
 * never a hole into which another thread's mmap could fall. What is renewed is zero. */
HMM_HIDDEN bool hmm_fence_show(void *start, size_t bytes, bool *is_renewed);

/* The system has refused to split a mapping: some must be left for what is more important. */
HMM_HIDDEN HMM_COLD void hmm_fence_use_fewer(void);

#endif
