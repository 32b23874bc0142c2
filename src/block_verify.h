/*
 * block_verify.h - how tags are looked at before they are believed, by whoever keeps blocks:
 * heap_verify.h and medium_verify.h.
 *
 * Every function here returns whether all is well, and describes the crime where it is not.
 */
#ifndef HMM_BLOCK_VERIFY_H
#define HMM_BLOCK_VERIFY_H

#include "block.h"
#include "check.h"

static inline bool crime_set(struct crime *crime, const char *what, const struct block *at,
                             size_t bytes)
{
    *crime = (struct crime){.what = what, .at = block_address(at), .block_bytes = bytes};
    return false;
}

/* Crimes that somebody asks for again, so there is one of each, in heap.c, and its address tells it
 * from others: that of every call but free, which has its own word for it, ... */
extern HMM_HIDDEN const char hmm_crime_freed_block[];

/* ... and of a free block, of the one before another, and of a tag that the size at the end of the
 * one before led to: what a hardened heap knows better, it says better. */
extern HMM_HIDDEN const char hmm_crime_damaged_free[];
extern HMM_HIDDEN const char hmm_crime_damaged_free_before[];
extern HMM_HIDDEN const char hmm_crime_damaged_tag_before[];

static inline void crime_of_free(struct crime *crime)
{
    crime->what = crime->what == hmm_crime_freed_block ? "double free" : crime->what;
}

/* The tag of the free block before one whose own tag is good and says that there is one. Blocks
 * begin at `first`. */
static inline bool block_verify_before(const struct block_key *key, uintptr_t first,
                                       const struct block *block, struct crime *crime)
{
    size_t bytes = block_prev_bytes(block);
    if (bytes < BLOCK_BYTES_MIN || bytes > block_address(block) - first ||
        !is_aligned(bytes, BLOCK_UNIT_BYTES)) {
        return crime_set(crime, hmm_crime_damaged_free_before, block, block_bytes(block));
    }
    const struct block *prev = block_before(block, bytes);
    if (UNLIKELY(!block_is_sealed(key, prev))) {
        return crime_set(crime, hmm_crime_damaged_tag_before, prev, 0);
    }
    return block_bytes(prev) == bytes ||
           crime_set(crime, hmm_crime_damaged_free_before, block, block_bytes(block));
}

/* Says what is wrong with a pointer whose word before is no good tag: a walk from `first` to `end`
 * finds the block that it points into, or the first tag that is damaged. */
static HMM_COLD bool block_blame(const struct block_key *key, uintptr_t first, uintptr_t end,
                                 const char *inside_gap, const void *ptr, struct crime *crime)
{
    const struct block *accused = block_of(ptr);
    const struct block *block = block_at(first);
    while (block_address(block) < end) {
        size_t bytes = block_bytes(block);
        if (!block_is_sealed(key, block) || !block_is_within(block, end)) {
            return crime_set(crime, "damaged tag", block, 0);
        }
        if (accused < block_after(block, bytes)) {
            bool is_inside = block != accused;
            return crime_set(crime,
                             block_is_gap(block)    ? inside_gap
                             : block_is_free(block) ? "invalid pointer, inside a free block"
                             : is_inside            ? "invalid pointer, inside a block"
                                                    : "damaged tag",
                             block, bytes);
        }
        block = block_after(block, bytes);
    }
    return crime_set(crime, "invalid pointer", NULL, 0);
}

#endif
