/*
 * heap.h - a block heap: an index of free blocks over one or more regions.
 *
 * It splits, merges at once with both neighbours, grows in large steps and trims at the break. It
 * knows no threads, no operating system and no errno: whoever calls holds the heap's lock, and says
 * what a failure means.
 *
 * H1  The counters agree with the blocks: what heap_audit.c counts is what they say.
 * H2  break_bytes, summed over the regions, is live + free + overhead.
 * H3  A call that fails, for lack of memory or for a crime, has changed nothing but the break.
 */
#ifndef HMM_HEAP_H
#define HMM_HEAP_H

#include "block.h"
#include "check.h"
#include "fit.h"
#include "hmm.h"
#include "region.h"

/* What a heap may have. */
struct heap_grant {
    size_t quota_bytes; /* the most that all regions together may use, but for the rest of a page */
    size_t reach_bytes; /* index blocks up to this size from the start, so that regions which are
                           added later need no bins of their own; 0: as far as each needs */
};

/* All guarded by the heap's lock, but for the first group. */
struct heap {
    /* immutable after init */
    struct block_key key;
    HmmIntegrity integrity;
    struct heap_grant grant;

    struct region *regions; /* the first is the one that holds the heap */
    bool has_shared_break;  /* one of them is the program break, which others move too */
    bool keeps_zero;        /* what is free is 0: heap_guard.h (Q1). Set before the first region */
    struct fit fit;

    size_t live_bytes; /* usable bytes of used blocks, gaps left out */
    size_t live_count;
    size_t peak_live_bytes;
    size_t free_bytes; /* usable bytes of free blocks; fit.count is their number */
    size_t failed_count;
    size_t failed_bytes_max;
};

/* The used block of size 0 at the break. */
static inline struct block *region_sentinel(const struct region *region)
{
    return block_at(region->brk - BLOCK_TAG_BYTES);
}

/* The region whose blocks' payloads cover the address. */
static inline struct region *heap_region_of(const struct heap *heap, uintptr_t address)
{
    struct region *region = heap->regions;
    while (region != NULL &&
           !(region->first != 0 && address > region->first && address < region->brk)) {
        region = region->next;
    }
    return region;
}

/* An empty heap without memory. `secret` keys its checksums. */
HMM_HIDDEN void hmm_heap_init(struct heap *heap, HmmFit policy, HmmIntegrity integrity,
                              struct heap_grant grant, uint64_t secret);

/* Lays blocks into the region from `start` on, which lies between its base and its break. false:
 * the region has no room for one block, which takes so many bytes. The regions of a heap must not
 * overlap. */
HMM_HIDDEN HMM_MUST_USE bool hmm_heap_add(struct heap *heap, struct region *region, uintptr_t start,
                                          size_t block_bytes_min);

/* Whether [start, start + bytes) touches one of the heap's regions, up to its limit. */
HMM_HIDDEN bool hmm_heap_overlaps(const struct heap *heap, uintptr_t start, size_t bytes);

/* A block of at least `bytes` at a multiple of `alignment`, a power of two. NULL: no memory, or a
 * crime. */
HMM_HIDDEN void *hmm_heap_allocate(struct heap *heap, size_t alignment, size_t bytes,
                                   struct crime *crime);

/* Before a heap is read that may lie on the program break: what others cut off is ours again. The
 * calls that change the heap do it themselves. false: a crime. */
HMM_HIDDEN HMM_MUST_USE bool hmm_heap_recover(struct heap *heap, struct crime *crime);

/* The request of `bytes` has failed for good. */
HMM_HIDDEN void hmm_heap_count_failure(struct heap *heap, size_t bytes);

/* Makes the block of `ptr` hold `bytes` with the help of its neighbours and the break. Returns
 * where it is now, which may be below `ptr`; NULL: there is no room here (*usable_bytes tells the
 * old size), or a crime. */
HMM_HIDDEN void *hmm_heap_resize(struct heap *heap, void *ptr, size_t bytes, size_t *usable_bytes,
                                 struct crime *crime);

/* false: a crime, nothing has changed. */
HMM_HIDDEN HMM_MUST_USE bool hmm_heap_free(struct heap *heap, void *ptr, struct crime *crime);

/* false: a crime. */
HMM_HIDDEN HMM_MUST_USE bool hmm_heap_usable(const struct heap *heap, const void *ptr,
                                             size_t *usable_bytes, struct crime *crime);

/* Gives back what lies free at the breaks, but for `keep_bytes` each. Whether a break moved. */
HMM_HIDDEN bool hmm_heap_trim(struct heap *heap, size_t keep_bytes, struct crime *crime);

/* What the heap has of all its regions, up to their breaks. */
HMM_HIDDEN size_t hmm_heap_used_bytes(const struct heap *heap);

HMM_HIDDEN void hmm_heap_get_stats(const struct heap *heap, HmmHeapStats *stats);

/* Lengthens what is free at the region's break. false: there is no memory, or a crime. */
HMM_HIDDEN bool hmm_heap_grow_by(struct heap *heap, struct region *region, size_t least_bytes,
                                 struct crime *crime);

/* A block has no room for `bytes`, a block's size: where only free memory lies behind it the break
 * grows. false: there is still no room, or a crime. */
HMM_HIDDEN HMM_MUST_USE bool hmm_heap_grow_in_place(struct heap *heap, struct region *region,
                                                    const struct block *block, size_t bytes,
                                                    struct crime *crime);

/* What lies free at the region's break is given back, if it has become much; and the region, if all
 * of it is free, it was added for a time, and what it held would find room elsewhere. Then the
 * others are looked at, too. */
HMM_HIDDEN void hmm_heap_settle(struct heap *heap, struct region *region);

/* The halves of these calls, for heap_guard.c, which has to look at more before it acts:
 * what the first half found is verified, and the second half cannot fail. Sizes are those
 * of blocks, alignments at least BLOCK_UNIT_BYTES. hmm_heap_put and hmm_heap_refit leave the
 * break where it is, until hmm_heap_settle. */
HMM_HIDDEN struct block *hmm_heap_find_room(struct heap *heap, size_t alignment, size_t bytes,
                                            struct crime *crime);
HMM_HIDDEN void *hmm_heap_take_room(struct heap *heap, struct block *block, size_t alignment,
                                    size_t bytes);
HMM_HIDDEN void hmm_heap_put(struct heap *heap, struct block *block);
HMM_HIDDEN void hmm_heap_refit(struct heap *heap, struct block *block, size_t bytes);

/* heap_audit.c: every block to `visit`, and the first invariant that does not hold. */
HMM_HIDDEN bool hmm_heap_walk(const struct heap *heap, HmmVisitor visit, void *context);
HMM_HIDDEN const char *hmm_heap_audit(const struct heap *heap); /* NULL: all hold */

#endif
