/*
 * heap_audit.c - walks a heap and checks every numbered invariant of block.h, fit.h and heap.h.
 *
 * It trusts nothing it reads: a damaged heap must end in an answer, never in a fault or a loop.
 */
#include "block_audit.h"
#include "heap.h"

static bool region_walk(const struct heap *heap, const struct region *region, HmmVisitor visit,
                        void *context)
{
    struct block *block = block_at(region->first);
    const struct block *end = region_sentinel(region);
    while (block != end) {
        if (!audit_is_step(&heap->key, block, block_address(end))) {
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
    const struct block *end = region_sentinel(region);
    bool is_last_free = false;
    if (region->base > region->brk || region->brk > region->limit) {
        return "E1: a break outside its region";
    }
    const char *broken =
        audit_blocks(&heap->key, region->first, block_address(end), census, &is_last_free);
    if (broken != NULL) {
        return broken;
    }
    bool is_sentinel = block_is_sealed(&heap->key, end) && block_is_sentinel(end) &&
                       !block_is_free(end) && block_is_prev_free(end) == is_last_free;
    return is_sentinel ? NULL : "B5: a damaged sentinel";
}

/* Whether a link of the index leads to a free block of this heap. That the tag is good makes it
 * one, because the blocks were audited before. */
static bool audit_is_free_block(const void *keeper, const struct fit *fit,
                                const struct block *block)
{
    const struct heap *heap = keeper;
    const struct region *region = heap->regions;
    (void)fit;
    while (region != NULL &&
           !(block_address(block) >= region->first && block < region_sentinel(region))) {
        region = region->next;
    }
    return region != NULL && is_aligned((uintptr_t)block_payload(block), BLOCK_UNIT_BYTES) &&
           audit_is_step(&heap->key, block, block_address(region_sentinel(region))) &&
           block_is_free(block);
}

static const char *audit_one_list(const struct heap *heap, size_t *count)
{
    const struct fit *fit = &heap->fit;
    const char *broken = audit_list(heap, audit_is_free_block, fit, fit->head, count);
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
    const char *broken = fit_is_segregated(&heap->fit)
                             ? audit_bins(heap, audit_is_free_block, &heap->fit, &listed_count)
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
