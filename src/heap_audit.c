/*
 * heap_audit.c - walks a heap and checks every numbered invariant of block.h, fit.h and heap.h.
 *
 * It trusts nothing it reads: a damaged heap must end in an answer, never in a fault or a loop.
 */
#include "heap.h"

/* What the walk over the blocks found, for comparison with the counters. */
struct census {
    size_t used_count;
    size_t used_bytes; /* usable */
    size_t free_count;
    size_t free_bytes; /* usable */
};

/* A tag in [first, end) that may be followed: B1, B5. */
static bool audit_is_step(const struct heap *heap, const struct block *block,
                          const struct block *end)
{
    return block_is_sealed(&heap->key, block) && block_bytes(block) >= BLOCK_BYTES_MIN &&
           is_aligned(block_bytes(block), BLOCK_UNIT_BYTES) &&
           block_bytes(block) <= block_address(end) - block_address(block);
}

static bool region_walk(const struct heap *heap, const struct region *region, HmmVisitor visit,
                        void *context)
{
    struct block *block = block_at(region->first);
    const struct block *end = region_sentinel(region);
    while (block != end) {
        if (!audit_is_step(heap, block, end)) {
            return false;
        }
        if (!block_is_gap(block) && !visit(block_payload(block), block_usable_bytes(block),
                                           !block_is_free(block), context)) {
            return false;
        }
        block = block_next(block);
    }
    return true;
}

bool hmm_heap_walk(const struct heap *heap, HmmVisitor visit, void *context)
{
    const struct region *region = heap->regions;
    while (region != NULL && region_walk(heap, region, visit, context)) {
        region = region->next;
    }
    return region == NULL;
}

static const char *audit_region(const struct heap *heap, const struct region *region,
                                struct census *census)
{
    const struct block *block = block_at(region->first);
    const struct block *end = region_sentinel(region);
    bool is_prev_free = false;
    if (region->base > region->brk || region->brk > region->limit) {
        return "R1: a break outside its region";
    }
    while (block != end) {
        if (!audit_is_step(heap, block, end)) {
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
            census->free_count++;
            census->free_bytes += block_usable_bytes(block);
        } else if (!block_is_gap(block)) {
            census->used_count++;
            census->used_bytes += block_usable_bytes(block);
        }
        is_prev_free = block_is_free(block);
        block = block_next(block);
    }
    bool is_sentinel = block_is_sealed(&heap->key, end) && block_is_sentinel(end) &&
                       !block_is_free(end) && block_is_prev_free(end) == is_prev_free;
    return is_sentinel ? NULL : "B5: a damaged sentinel";
}

/* Whether a link of the index leads to a free block of this heap. That the tag is good makes it
 * one, because the blocks were audited before. */
static bool audit_is_free_block(const struct heap *heap, const struct block *block)
{
    const struct region *region = heap->regions;
    while (region != NULL &&
           !(block_address(block) >= region->first && block < region_sentinel(region))) {
        region = region->next;
    }
    return region != NULL && is_aligned((uintptr_t)block_payload(block), BLOCK_UNIT_BYTES) &&
           audit_is_step(heap, block, region_sentinel(region)) && block_is_free(block);
}

/* One list from its head on. *count grows by its length; more than `count_max` means a loop. */
static const char *audit_list(const struct heap *heap, const struct block *head, size_t count_max,
                              size_t *count)
{
    const struct block *prev = NULL;
    for (const struct block *block = head; block != NULL; block = block->next) {
        if (!audit_is_free_block(heap, block)) {
            return "F1: a listed block that is not free";
        }
        if (block->prev != prev) {
            return "F2: a damaged link";
        }
        *count += 1;
        if (*count > count_max) {
            return "F1: a block listed twice";
        }
        prev = block;
    }
    return NULL;
}

static const char *audit_bin(const struct heap *heap, unsigned bin, size_t *count)
{
    const struct fit *fit = &heap->fit;
    const struct block *head = fit->bins[bin];
    bool has_bit = (fit->bins_filled[fit_row_of(bin)] >> fit_bit_of(bin) & 1) != 0;
    if (has_bit != (head != NULL)) {
        return "F3: a bit that disagrees with its bin";
    }
    const char *broken = audit_list(heap, head, fit->count, count);
    for (const struct block *block = head; broken == NULL && block != NULL; block = block->next) {
        if (fit_bin(block_bytes(block)) != bin) {
            broken = "F3: a block in the wrong bin";
        }
    }
    return broken;
}

static const char *audit_bins(const struct heap *heap, size_t *count)
{
    const struct fit *fit = &heap->fit;
    for (unsigned row = 0; row < fit->row_count; row++) {
        bool has_bit = (fit->rows_filled >> row & 1) != 0;
        if (has_bit != (fit->bins_filled[row] != 0)) {
            return "F3: a bit that disagrees with its row";
        }
    }
    const char *broken = NULL;
    for (unsigned bin = 0; broken == NULL && bin < fit_bin_count(fit); bin++) {
        broken = audit_bin(heap, bin, count);
    }
    return broken;
}

static const char *audit_one_list(const struct heap *heap, size_t *count)
{
    const struct fit *fit = &heap->fit;
    const char *broken = audit_list(heap, fit->head, fit->count, count);
    if (broken != NULL) {
        return broken;
    }
    bool has_cursor = fit->cursor == NULL;
    bool has_rover = fit->rover == NULL;
    const struct block *last = NULL;
    for (const struct block *block = fit->head; block != NULL; block = block->next) {
        if (last != NULL && !fit_is_before(fit, last, block)) {
            return "F4: a list out of order";
        }
        has_cursor |= block == fit->cursor;
        has_rover |= block == fit->rover;
        last = block;
    }
    if (last != fit->tail || !has_cursor || !has_rover ||
        (fit->head != NULL && fit->cursor == NULL)) {
        return "F2: a tail, cursor or rover that is not of the list";
    }
    return NULL;
}

const char *hmm_heap_audit(const struct heap *heap)
{
    struct census census = {0};
    for (const struct region *region = heap->regions; region != NULL; region = region->next) {
        const char *broken = audit_region(heap, region, &census);
        if (broken != NULL) {
            return broken;
        }
    }
    size_t listed_count = 0;
    const char *broken = fit_is_segregated(&heap->fit) ? audit_bins(heap, &listed_count)
                                                       : audit_one_list(heap, &listed_count);
    if (broken != NULL) {
        return broken;
    }
    if (listed_count != census.free_count || heap->fit.count != census.free_count) {
        return "F1: a free block that is not listed";
    }
    if (heap->live_count != census.used_count || heap->live_bytes != census.used_bytes ||
        heap->free_bytes != census.free_bytes || heap->peak_live_bytes < census.used_bytes) {
        return "H1: a counter that disagrees with the blocks";
    }
    return NULL;
}
