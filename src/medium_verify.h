/*
 * medium_verify.h - the half of each call that looks, and can still say no. For the medium rooms
 * only.
 *
 * As heap_verify.h: every function says whether all is well, and describes the crime where it is
 * not. A tag counts as trusted only after it was seen here.
 */
#ifndef HMM_MEDIUM_VERIFY_H
#define HMM_MEDIUM_VERIFY_H

#include "block_verify.h"
#include "zone.h"

static inline bool shard_verify_tag(const struct shard *shard, const struct granule *first,
                                    const struct block *block, struct crime *crime)
{
    return LIKELY(block_is_sealed(&shard->key, block) && block_is_within(block, first->zone.top)) ||
           crime_set(crime, "damaged tag", block, 0);
}

/* A free block whose tag is good: its size in both places, and its links both ways. */
static inline bool shard_verify_free(const struct shard *shard, const struct block *block,
                                     struct crime *crime)
{
    const struct block *next = block->next;
    const struct block *prev = block->prev;
    bool is_good = block_is_free(block) &&
                   *block_footer(block, block_bytes(block)) == block_bytes(block) &&
                   (next == NULL || (shard_can_follow(shard, next) && next->prev == block)) &&
                   (prev == NULL ? fit_list_head(&shard->touched, block) == block ||
                                       fit_list_head(&shard->purged, block) == block
                                 : shard_can_follow(shard, prev) && prev->next == block);
    return LIKELY(is_good) || crime_set(crime, "damaged free block", block, block_bytes(block));
}

/* The block after one whose own tag is good, if there is one. */
static inline bool shard_verify_next(const struct shard *shard, const struct granule *first,
                                     const struct block *block, struct crime *crime)
{
    const struct block *next = block_next(block);
    if (block_address(next) == first->zone.top) {
        return true;
    }
    if (!shard_verify_tag(shard, first, next, crime)) {
        return false;
    }
    if (UNLIKELY(block_is_prev_free(next) != block_is_free(block))) {
        return crime_set(crime, "damaged tag", next, 0);
    }
    return !block_is_free(next) || shard_verify_free(shard, next, crime);
}

/* Both neighbours of a block whose own tag is good. */
static inline bool shard_verify_neighbours(const struct shard *shard, const struct granule *first,
                                           const struct block *block, struct crime *crime)
{
    return shard_verify_next(shard, first, block, crime) &&
           (!block_is_prev_free(block) ||
            (block_verify_before(&shard->key, zone_start(first), block, crime) &&
             shard_verify_free(shard, block_before(block, block_prev_bytes(block)), crime)));
}

/* A block that the index named, before it is taken. Its zone; NULL: a crime. */
static inline struct granule *shard_verify_found(const struct shard *shard,
                                                 const struct block *block, struct crime *crime)
{
    struct granule *first = shard_zone_at(shard, block_payload(block));
    if (UNLIKELY(first == NULL)) {
        crime_set(crime, "damaged tag", block, 0);
        return NULL;
    }
    bool is_good = shard_verify_tag(shard, first, block, crime) &&
                   shard_verify_free(shard, block, crime) &&
                   shard_verify_next(shard, first, block, crime);
    return is_good ? first : NULL;
}

/* The zone of a pointer to a used block, which nobody vouches for; NULL: a crime. A zone that is
 * gone was all free. */
static inline struct granule *shard_verify_pointer(const struct shard *shard, const void *ptr,
                                                   struct crime *crime)
{
    const struct block *block = block_of(ptr);
    struct granule *first = shard_zone_at(shard, ptr);
    if (UNLIKELY(first == NULL)) {
        crime_set(crime, hmm_crime_freed_block, NULL, 0);
        return NULL;
    }
    bool is_tag = is_aligned((uintptr_t)ptr, BLOCK_UNIT_BYTES) &&
                  block_address(block) >= zone_start(first) &&
                  block_address(block) < first->zone.touched && block_is_sealed(&shard->key, block);
    bool is_used = is_tag && !block_is_free(block) && !block_is_gap(block);
    if (LIKELY(is_used && block_is_within(block, first->zone.top))) {
        return first;
    }
    if (is_tag && !is_used) {
        crime_set(crime, hmm_crime_freed_block, block, block_bytes(block));
    } else {
        block_blame(&shard->key, zone_start(first), first->zone.top,
                    "invalid pointer, inside a free block", ptr, crime);
    }
    return NULL;
}

/* Whether the first block of a list of the shelf is what it was when it was put there: K1. */
static inline bool shard_is_shelved(const struct shard *shard, const struct block *block)
{
    const unsigned flags = BLOCK_IS_GAP | BLOCK_IS_FREE;
    return block_is_sealed(&shard->key, block) && (block->tag & flags) == BLOCK_IS_GAP &&
           block->prev == shelf_link_seal(&shard->key, block);
}

/* The zone of that block; NULL: a crime. */
static inline struct granule *shard_verify_shelved(const struct shard *shard, unsigned index,
                                                   struct crime *crime)
{
    const struct block *block = shard->shelf.lists[index];
    struct granule *first = shard_zone_at(shard, block_payload(block));
    if (UNLIKELY(first == NULL || !block_is_sealed(&shard->key, block))) {
        crime_set(crime, "damaged tag", block, 0);
        return NULL;
    }
    if (UNLIKELY(!shard_is_shelved(shard, block) || shelf_index(block_bytes(block)) != index)) {
        crime_set(crime, "damaged free block", block, block_bytes(block));
        return NULL;
    }
    return first;
}

/* Whether a pointer into a zone is that of a used block of this shard, beyond doubt: it is not
 * looked at further then. At the start of a granule, where one pointer in thousands is, others
 * look: what is before it may be nobody's. */
static inline bool shard_can_vouch(const struct shard *shard, const void *ptr)
{
    const struct granule *granule = granule_of(ptr);
    return BLOCK_HAS_CHECKSUM && is_aligned((uintptr_t)ptr, BLOCK_UNIT_BYTES) &&
           !is_aligned((uintptr_t)ptr, GRANULE_BYTES) && granule_kind(granule) == GRANULE_ZONE &&
           granule->shard == shard_number(shard);
}

static inline bool tag_is_used(const struct shard *shard, const struct block *block, uintptr_t tag)
{
    return tag_is_sealed(&shard->key, block, tag) && tag_bytes(tag) >= BLOCK_BYTES_MIN &&
           (tag & (BLOCK_IS_GAP | BLOCK_IS_FREE)) == 0;
}

static inline bool shard_is_used(const struct shard *shard, const void *ptr)
{
    const struct block *block = block_of(ptr);
    return shard_can_vouch(shard, ptr) && tag_is_used(shard, block, block->tag);
}

/* Whether nobody has written over the tag behind a used block. At the end of a granule others look:
 * what comes may be nobody's. At the top of a zone there is no tag. */
static inline bool shard_next_is_sealed(const struct shard *shard, const struct block *block)
{
    const struct block *next = block_next(block);
    return !is_aligned((uintptr_t)&next->tag, GRANULE_BYTES) && block_is_sealed(&shard->key, next);
}

#endif
