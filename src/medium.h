/*
 * medium.h - blocks of 8 KiB to less than 256, and of any smaller size for threads that have no
 * bins: the block heap's tags and index over zones of granules.
 */
#ifndef HMM_MEDIUM_H
#define HMM_MEDIUM_H

#include "arena.h"
#include "block.h"
#include "check.h"
#include "sizeclass.h"

enum {
    /* 256 KiB themselves fill granules of their own, as every power of two above does, and
     * need no tag. */
    MEDIUM_BYTES_MAX = 256 * 1024 - SLOT_UNIT_BYTES,
    MEDIUM_ALIGN_BYTES_MAX = GRANULE_BYTES,
};

/* A crime must be empty before a call. It may be another block's than the call's own: one that was
 * freed while its shard was busy, and is looked at only now; crime.at tells. */

/* A part of a block that is known to be zero. */
struct zero_span {
    uintptr_t start;
    uintptr_t end;
};

/* A used block's tag can be read without the lock: nobody changes its size meanwhile, and its word
 * is written whole. */
HMM_RACY static inline uintptr_t medium_tag_peek(const struct block *block)
{
    return *(const volatile uintptr_t *)&block->tag;
}

/* A block of at least `bytes`, up to MEDIUM_BYTES_MAX, at a multiple of `alignment`, a power of two
 * up to MEDIUM_ALIGN_BYTES_MAX. NULL: no memory, or a crime. `shard` is any number: threads with
 * different ones seldom meet. */
HMM_HIDDEN void *hmm_medium_allocate(unsigned shard, size_t alignment, size_t bytes,
                                     struct zero_span *zero, struct crime *crime);

/* Makes a block that was just allocated zero, as far as it is not. */
HMM_HIDDEN void hmm_medium_clear(void *ptr, size_t bytes, struct zero_span zero);

/* From now on blocks are as large as was asked for, to the unit, and merged as they are freed.
 * Before there are any. */
HMM_HIDDEN void hmm_medium_set_exact(void);

/* Of a pointer into a zone. false: a crime, nothing has changed. */
HMM_HIDDEN HMM_MUST_USE bool hmm_medium_free(void *ptr, struct crime *crime);
HMM_HIDDEN HMM_MUST_USE bool hmm_medium_usable(const void *ptr, size_t *usable_bytes,
                                               struct crime *crime);

/* Whether the block and those beside it are as they should be, before anything is done that cannot
 * be undone. false: a crime. */
HMM_HIDDEN HMM_MUST_USE bool hmm_medium_verify(const void *ptr, struct crime *crime);

/* Makes the block hold `bytes` where it is, larger or smaller. false: there is no room
 * (*usable_bytes tells the old size), or a crime. */
HMM_HIDDEN bool hmm_medium_resize(void *ptr, size_t bytes, size_t *usable_bytes,
                                  struct crime *crime);

/* When a large block or a slab goes, what is free in zones may have become too much: so much of
 * that goes with it, lest one call give hundreds of MiB back. */
enum { ZONES_BYTES_WITH_SLAB = 1 << 20, ZONES_BYTES_WITH_LARGE = 16 << 20 };

/* Gives back what exceeds the bound, as far as zones have it: so many bytes, roughly. No lock
 * may be held. */
HMM_HIDDEN void hmm_medium_purge_excess(size_t budget_bytes);

/* Merges all that waits on shelves, and gives zones that hold no block to the arena. */
HMM_HIDDEN HMM_COLD void hmm_medium_yield(void);

/* Gives whole pages that lie free back to the system, however few between two blocks, until it is
 * so much. How many bytes went. */
HMM_HIDDEN HMM_COLD size_t hmm_medium_trim(size_t budget_bytes);

struct medium_stats {
    size_t live_bytes;
    size_t live_count;
    size_t free_bytes; /* in blocks below the zones' tops */
    size_t free_count;
    size_t zone_bytes; /* up to the tops */
    size_t held_bytes; /* zones from end to end */
    size_t dirty_bytes;
};
/* Takes no lock: a moment's opinion while others allocate. */
HMM_HIDDEN void hmm_medium_get_stats(struct medium_stats *stats);

/* Every block in use, until `visit` says no. The shard's lock is held meanwhile: `visit` must not
 * come back here. */
typedef bool (*medium_visitor)(void *ptr, size_t usable_bytes, void *context);
HMM_HIDDEN void hmm_medium_walk(medium_visitor visit, void *context);

/* fork(): every shard's lock. */
HMM_HIDDEN void hmm_medium_lock_all(void);
HMM_HIDDEN void hmm_medium_unlock_all(void);

/* The first invariant that does not hold; NULL: all do. Takes the locks. */
HMM_HIDDEN const char *hmm_medium_audit(void);

#endif
