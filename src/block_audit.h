/*
 * block_audit.h - the invariants of block.h and fit.h, checked by a walk: for heap_audit.c and
 * medium_audit.c.
 *
 * Nothing that is read is trusted: damaged blocks must end in an answer, never in a fault or a
 * loop. Every function returns the first invariant that does not hold; NULL: all do.
 */
#ifndef HMM_BLOCK_AUDIT_H
#define HMM_BLOCK_AUDIT_H

#include "fit.h"

/* What a walk over blocks found, for comparison with counters. */
struct census {
    size_t used_count;
    size_t used_bytes; /* usable */
    size_t free_count;
    size_t free_bytes; /* usable */
};

/* A tag below `end` that may be followed: B1, B5. */
static inline bool audit_is_step(const struct block_key *key, const struct block *block,
                                 uintptr_t end)
{
    return block_is_sealed(key, block) && block_is_within(block, end) &&
           is_aligned(block_bytes(block), BLOCK_UNIT_BYTES);
}

static inline void census_count(struct census *census, const struct block *block)
{
    if (block_is_free(block)) {
        census->free_count++;
        census->free_bytes += block_usable_bytes(block);
    } else if (!block_is_gap(block)) {
        census->used_count++;
        census->used_bytes += block_usable_bytes(block);
    }
}

/* The blocks that tile [first, end). *is_last_free: whether the last of them is free. */
static inline const char *audit_blocks(const struct block_key *key, uintptr_t first, uintptr_t end,
                                       struct census *census, bool *is_last_free)
{
    const struct block *block = block_at(first);
    bool is_prev_free = false;
    while (block_address(block) != end) {
        if (!audit_is_step(key, block, end)) {
            return "B1: a damaged tag";
        }
        if (block_is_prev_free(block) != is_prev_free) {
            return "B3: a tag that is wrong about the block before";
        }
        if (block_is_free(block)) {
            if (*block_footer(block, block_bytes(block)) != block_bytes(block)) {
                return "B2: a free block whose sizes disagree";
            }
            if (is_prev_free) {
                return "B4: two neighbours both free";
            }
        }
        census_count(census, block);
        is_prev_free = block_is_free(block);
        block = block_next(block);
    }
    *is_last_free = is_prev_free;
    return NULL;
}

/* Whether a link leads to a free block that `keeper` would list in this index. */
typedef bool audit_is_listed(const void *keeper, const struct fit *fit, const struct block *block);

/* One list from its head on. *count grows by its length; more than the index counts
 * means a loop. */
static inline const char *audit_list(const void *keeper, audit_is_listed *is_listed,
                                     const struct fit *fit, const struct block *head, size_t *count)
{
    const struct block *prev = NULL;
    for (const struct block *block = head; block != NULL; block = block->next) {
        if (!is_listed(keeper, fit, block)) {
            return "F1: a listed block that is not free";
        }
        if (block->prev != prev) {
            return "F2: a damaged link";
        }
        *count += 1;
        if (*count > fit->count) {
            return "F1: a block listed twice";
        }
        prev = block;
    }
    return NULL;
}

static inline const char *audit_bin(const void *keeper, audit_is_listed *is_listed,
                                    const struct fit *fit, unsigned bin, size_t *count)
{
    const struct block *head = fit->bins[bin];
    bool has_bit = (fit->bins_filled[fit_row_of(bin)] >> fit_bit_of(bin) & 1) != 0;
    if (has_bit != (head != NULL)) {
        return "F3: a bit that disagrees with its bin";
    }
    const char *broken = audit_list(keeper, is_listed, fit, head, count);
    for (const struct block *block = head; broken == NULL && block != NULL; block = block->next) {
        if (fit_bin(block_bytes(block)) != bin) {
            broken = "F3: a block in the wrong bin";
        }
    }
    return broken;
}

/* All bins of a segregated index. */
static inline const char *audit_bins(const void *keeper, audit_is_listed *is_listed,
                                     const struct fit *fit, size_t *count)
{
    for (unsigned row = 0; row < fit->row_count; row++) {
        bool has_bit = (fit->rows_filled >> row & 1) != 0;
        if (has_bit != (fit->bins_filled[row] != 0)) {
            return "F3: a bit that disagrees with its row";
        }
    }
    const char *broken = NULL;
    for (unsigned bin = 0; broken == NULL && bin < fit_bin_count(fit); bin++) {
        broken = audit_bin(keeper, is_listed, fit, bin, count);
    }
    return broken;
}

#endif
