/*
 * heap_verify.h - the half of each heap call that looks, and can still say no. For heap.c,
 * heap_region.c and the files of heap_guard.h.
 *
 * Every function here returns whether all is well, and describes the crime where it is not. A tag
 * counts as trusted only after it was seen here; what is read without a tag (a size repeated, a
 * link) is held against the tags that it leads to.
 */
#ifndef HMM_HEAP_VERIFY_H
#define HMM_HEAP_VERIFY_H

#include "block_verify.h"
#include "heap.h"

static inline bool heap_is_verifying(const struct heap *heap)
{
    return heap->integrity != HMM_INTEGRITY_NONE;
}

/* Before any block is looked at: what others cut off below a break that we share is ours again. */
static inline bool heap_recover(struct heap *heap, struct crime *crime)
{
    return !heap->has_shared_break || hmm_heap_recover(heap, crime);
}

static inline bool heap_verify_all(const struct heap *heap, struct crime *crime)
{
    const char *broken = heap->integrity == HMM_INTEGRITY_FULL ? hmm_heap_audit(heap) : NULL;
    return broken == NULL || crime_set(crime, broken, NULL, 0);
}

static inline bool heap_verify_tag(const struct heap *heap, const struct block *block,
                                   struct crime *crime)
{
    if (UNLIKELY(!block_is_sealed(&heap->key, block))) {
        return crime_set(crime, "damaged tag", block, 0);
    }
    return true;
}

/* Whether the block ends within its region. A checksum vouches for that; a tag without one may
 * hold any size. */
static inline bool heap_can_end(const struct heap *heap, const struct block *block)
{
    if (BLOCK_HAS_CHECKSUM) {
        return true;
    }
    const struct region *region = heap_region_of(heap, (uintptr_t)block_payload(block) - 1);
    return region != NULL &&
           block_bytes(block) <= block_address(region_sentinel(region)) - block_address(block);
}

/* A free block: its size in both places, and its links both ways. The index follows links without
 * looking, so whoever can write into a freed block could otherwise have a word written anywhere. */
static inline bool heap_verify_free(const struct heap *heap, const struct block *block,
                                    struct crime *crime)
{
    const struct block *next = block->next;
    const struct block *prev = block->prev;
    bool is_good = block_is_free(block) && heap_can_end(heap, block) &&
                   *block_footer(block, block_bytes(block)) == block_bytes(block) &&
                   (next == NULL || (fit_is_link(&heap->fit, next) && next->prev == block)) &&
                   (prev == NULL ? fit_list_head(&heap->fit, block) == block
                                 : fit_is_link(&heap->fit, prev) && prev->next == block);
    return is_good || crime_set(crime, hmm_crime_damaged_free, block, block_bytes(block));
}

/* The block after one whose own tag is good. */
static inline bool heap_verify_next(const struct heap *heap, const struct block *block,
                                    struct crime *crime)
{
    const struct block *next = block_next(block);
    if (!heap_verify_tag(heap, next, crime)) {
        return false;
    }
    if (block_is_prev_free(next) != block_is_free(block) || !heap_can_end(heap, next)) {
        return crime_set(crime, "damaged tag", next, 0);
    }
    return !block_is_free(next) || heap_verify_free(heap, next, crime);
}

/* The tag behind the next block, at the level that asks for it. */
static inline bool heap_verify_beyond(const struct heap *heap, const struct block *block,
                                      struct crime *crime)
{
    const struct block *next = block_next(block);
    return heap->integrity < HMM_INTEGRITY_NEIGHBOURS || block_is_sentinel(next) ||
           heap_verify_next(heap, next, crime);
}

/* Before the block takes of the free one behind it: the tag behind that is written anew. */
static inline bool heap_verify_behind(const struct heap *heap, const struct block *block,
                                      struct crime *crime)
{
    const struct block *next = block_next(block);
    return !block_is_free(next) || heap_verify_next(heap, next, crime);
}

/* The free block before one whose own tag is good and says that there is one. */
static inline bool heap_verify_prev(const struct heap *heap, const struct region *region,
                                    const struct block *block, struct crime *crime)
{
    return block_verify_before(&heap->key, region->first, block, crime) &&
           heap_verify_free(heap, block_before(block, block_prev_bytes(block)), crime);
}

static inline bool heap_blame(const struct heap *heap, const struct region *region, const void *ptr,
                              struct crime *crime)
{
    return block_blame(&heap->key, region->first, block_address(region_sentinel(region)),
                       "not a heap pointer", ptr, crime);
}

/* From a pointer that nobody vouches for to a used block whose tag is good. */
static inline bool heap_verify_used(const struct heap *heap, const struct region *region,
                                    const void *ptr, struct crime *crime)
{
    const struct block *block = block_of(ptr);
    if (!is_aligned((uintptr_t)ptr, BLOCK_UNIT_BYTES) || block_at(region->first) > block ||
        !block_is_sealed(&heap->key, block) || block_is_sentinel(block) || block_is_gap(block)) {
        return heap_blame(heap, region, ptr, crime);
    }
    if (block_is_free(block)) {
        return crime_set(crime, hmm_crime_freed_block, block, block_bytes(block));
    }
    size_t room_bytes = block_address(region_sentinel(region)) - block_address(block);
    return block_bytes(block) <= room_bytes || heap_blame(heap, region, ptr, crime);
}

/* The region of a pointer to a used block; NULL: a crime. */
static inline struct region *heap_find(const struct heap *heap, const void *ptr,
                                       struct crime *crime)
{
    struct region *region = heap_region_of(heap, (uintptr_t)ptr);
    if (region == NULL) {
        crime_set(crime, "not a heap pointer", NULL, 0);
        return NULL;
    }
    if (!heap_is_verifying(heap)) {
        return region;
    }
    return heap_verify_all(heap, crime) && heap_verify_used(heap, region, ptr, crime) ? region
                                                                                      : NULL;
}

/* The neighbours of a block whose own tag is good. */
static inline bool heap_verify_neighbours(const struct heap *heap, const struct region *region,
                                          const struct block *block, struct crime *crime)
{
    return heap_verify_next(heap, block, crime) && heap_verify_beyond(heap, block, crime) &&
           (!block_is_prev_free(block) || heap_verify_prev(heap, region, block, crime));
}

/* As heap_find, for a call that is going to change the block's neighbours. */
static inline struct region *heap_find_to_change(const struct heap *heap, const void *ptr,
                                                 struct crime *crime)
{
    struct region *region = heap_find(heap, ptr, crime);
    if (region == NULL || !heap_is_verifying(heap)) {
        return region;
    }
    return heap_verify_neighbours(heap, region, block_of(ptr), crime) ? region : NULL;
}

#endif
