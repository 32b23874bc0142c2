/*
 * heap_region.c - the memory of a block heap: its regions, how they come and go, and their breaks.
 * See region.h, and heap.h for what is promised.
 */
#include "heap_index.h"
#include "heap_verify.h"
#include "heap_zero.h"

/* Growing by an eighth of what there is keeps the number of growths logarithmic; 64 KiB keeps the
 * first ones few. */
enum {
    STEP_BYTES_MIN = 64 * 1024,
    STEP_SHARE = 8,
};

/* Free memory at the break is given back when it is twice what is kept, so that a small block that
 * comes and goes at the break does not move it each time. What is kept follows what is live, not
 * what was: after a peak the memory is gone. */
enum {
    TRIM_KEEP_BYTES_MIN = 128 * 1024,
    TRIM_KEEP_SHARE = 8,
};

/* ---------------------------------------------------------------------------------- small words */

static size_t region_used_bytes(const struct region *region)
{
    return region->brk - region->base - region->gap_bytes;
}

size_t hmm_heap_used_bytes(const struct heap *heap)
{
    size_t bytes = 0;
    for (const struct region *region = heap->regions; region != NULL; region = region->next) {
        bytes += region_used_bytes(region);
    }
    return bytes;
}

/* Links of free blocks lead into the regions, and not to their last words. */
static void heap_bound_links(struct heap *heap)
{
    if (!heap_is_verifying(heap)) {
        return;
    }
    heap->fit.low = UINTPTR_MAX;
    heap->fit.high = 0;
    for (const struct region *region = heap->regions; region != NULL; region = region->next) {
        heap->fit.low = size_min(heap->fit.low, region->first);
        heap->fit.high = size_max(heap->fit.high, region->brk - BLOCK_BYTES_MIN);
    }
    heap->fit.regions = heap->regions->next != NULL ? heap->regions : NULL;
}

/* ------------------------------------------------------------------------------------ the break */

/* What lies free at the break; 0: a used block is the last one. */
static size_t region_top_free_bytes(const struct region *region)
{
    const struct block *sentinel = region_sentinel(region);
    return block_is_prev_free(sentinel) ? block_prev_bytes(sentinel) : 0;
}

/* Where the next block at the break would begin. */
static struct block *region_top(const struct region *region)
{
    return block_before(region_sentinel(region), region_top_free_bytes(region));
}

static void region_write_sentinel(const struct heap *heap, const struct region *region,
                                  unsigned flags)
{
    block_write(&heap->key, region_sentinel(region), 0, flags);
}

/* Memory that a region has just grown by. Most of what is 0 has never been touched,
 * and stays so. */
static void heap_clear_new(const struct heap *heap, const struct region *region, uintptr_t start)
{
    enum { PIECE_BYTES = 4096 };
    if (!heap->keeps_zero || region->grows_by_zero) {
        return;
    }
    while (start < region->brk) {
        size_t bytes = size_min(PIECE_BYTES - start % PIECE_BYTES, region->brk - start);
        if (words_find_nonzero(start, start + bytes) != 0) {
            memset((void *)start, 0, bytes);
        }
        start += bytes;
    }
}

/* The new memory [start, brk) becomes a free block, merged with what was free below it. Memory of
 * others between the old break and it becomes a gap. The block goes to the front of its bin, where
 * the search that wanted it looks first. */
static void heap_attach(struct heap *heap, struct region *region, uintptr_t old_brk,
                        uintptr_t start)
{
    struct block *block = block_at(old_brk - BLOCK_TAG_BYTES);
    heap_clear_new(heap, region, start);
    size_t free_before_bytes = block_is_prev_free(block) ? block_prev_bytes(block) : 0;
    struct block *free_before = block_before(block, free_before_bytes);
    if (start != old_brk) {
        struct block *first = block_at(start + BLOCK_UNIT_BYTES - BLOCK_TAG_BYTES);
        bool has_room = block_after(first, BLOCK_BYTES_MIN) <= region_sentinel(region);
        first = has_room ? first : region_sentinel(region);
        block_write(&heap->key, block, block_address(first) - block_address(block),
                    BLOCK_IS_GAP | (free_before_bytes != 0 ? BLOCK_IS_PREV_FREE : 0));
        if (!has_room) {
            region_write_sentinel(heap, region, 0);
            return;
        }
        block = free_before = first;
    }
    region_write_sentinel(heap, region, BLOCK_IS_PREV_FREE);
    if (free_before != block) {
        block_write(&heap->key, block, 0, BLOCK_IS_FREE);
        heap_unfree(heap, free_before);
        if (heap->keeps_zero) {
            *block_footer(free_before, free_before_bytes) = 0;
            block->tag = 0;
        }
    }
    heap_make_free(heap, free_before,
                   block_address(region_sentinel(region)) - block_address(free_before));
}

/* Somebody moved the program break below ours, and from `lost` on content is gone. If that hit
 * nothing but the inside of the free block at the break, its end is written again. */
static bool heap_mend(struct heap *heap, const struct region *region, uintptr_t lost,
                      struct crime *crime)
{
    struct block *block = block_at(region->first);
    const struct block *sentinel = region_sentinel(region);
    while (block_address(block) + sizeof *block <= lost && block < sentinel) {
        if (!heap_verify_tag(heap, block, crime)) {
            return false;
        }
        size_t bytes = block_bytes(block);
        if (bytes < BLOCK_BYTES_MIN) {
            break;
        }
        if (block_is_free(block) && block_after(block, bytes) == sentinel) {
            *block_footer(block, bytes) = bytes;
            region_write_sentinel(heap, region, BLOCK_IS_PREV_FREE);
            return true;
        }
        block = block_after(block, bytes);
    }
    return crime_set(crime, "program break moved below the heap", block, 0);
}

bool hmm_heap_recover(struct heap *heap, struct crime *crime)
{
    struct region *region = heap->has_shared_break ? heap->regions : NULL;
    while (region != NULL) {
        uintptr_t lost = region->ops->recover(region);
        if (lost != 0 && !heap_mend(heap, region, lost, crime)) {
            return false;
        }
        region = region->next;
    }
    return true;
}

/* Before the end of a region is believed. */
static bool heap_verify_top(const struct heap *heap, const struct region *region,
                            struct crime *crime)
{
    const struct block *sentinel = region_sentinel(region);
    return !heap_is_verifying(heap) ||
           (heap_verify_tag(heap, sentinel, crime) &&
            (!block_is_prev_free(sentinel) || heap_verify_prev(heap, region, sentinel, crime)));
}

/* Moves the break of one region, whose top was verified, so that `least_bytes` are new. */
static bool heap_grow_region(struct heap *heap, struct region *region, size_t least_bytes)
{
    size_t used_bytes = hmm_heap_used_bytes(heap);
    if (used_bytes > heap->grant.quota_bytes ||
        least_bytes > heap->grant.quota_bytes - used_bytes) {
        return false;
    }
    size_t step_bytes = size_max(STEP_BYTES_MIN, used_bytes / STEP_SHARE);
    size_t wanted_bytes =
        size_min(size_max(least_bytes, step_bytes), heap->grant.quota_bytes - used_bytes);
    uintptr_t old_brk = region->brk;
    uintptr_t start = region->ops->grow(region, least_bytes, wanted_bytes);
    if (start == 0) {
        return false;
    }
    heap_attach(heap, region, old_brk, start);
    heap_bound_links(heap);
    return true;
}

bool hmm_heap_grow_by(struct heap *heap, struct region *region, size_t least_bytes,
                      struct crime *crime)
{
    return heap_verify_top(heap, region, crime) &&
           heap_grow_region(heap, region, size_max(least_bytes, BLOCK_BYTES_MIN));
}

bool hmm_heap_grow(struct heap *heap, size_t alignment, size_t bytes, struct crime *crime)
{
    for (struct region *region = heap->regions; region != NULL; region = region->next) {
        if (!heap_verify_top(heap, region, crime)) {
            return false;
        }
        const struct block *top = region_top(region);
        size_t top_bytes = region_top_free_bytes(region);
        size_t lead_bytes;
        if (!fit_can_place(top, BLOCK_BYTES_MAX, bytes, alignment, &lead_bytes)) {
            continue;
        }
        size_t needed_bytes = lead_bytes + bytes;
        size_t least_bytes = needed_bytes > top_bytes ? needed_bytes - top_bytes : 0;
        least_bytes = size_max(least_bytes, BLOCK_BYTES_MIN);
        if (heap_grow_region(heap, region, least_bytes)) {
            return true;
        }
    }
    return false;
}

/* Moves the break down to `keep_bytes` above the start of the free block that ends there. */
static bool heap_trim_region(struct heap *heap, struct region *region, size_t keep_bytes)
{
    size_t top_bytes = region_top_free_bytes(region);
    if (top_bytes <= keep_bytes) {
        return false;
    }
    keep_bytes = align_up(size_max(keep_bytes, BLOCK_BYTES_MIN), BLOCK_UNIT_BYTES);
    struct block *top = region_top(region);
    uintptr_t old_brk = region->brk;
    region->ops->shrink(region, block_address(top) + keep_bytes + BLOCK_TAG_BYTES);
    if (region->brk == old_brk) {
        return false;
    }
    region_write_sentinel(heap, region, BLOCK_IS_PREV_FREE);
    heap_refree(heap, top, top, block_address(region_sentinel(region)) - block_address(top));
    heap_bound_links(heap);
    region->fresh = size_min(region->fresh, region->brk);
    return true;
}

/* Whether all of a region that may go is free. */
static bool region_is_idle(const struct region *region)
{
    return region->goes_when_empty && region_top_free_bytes(region) != 0 &&
           block_address(region_top(region)) == region->first;
}

/* Takes a region out of the heap, all of which is one free block, and ends it. */
static void heap_drop_region(struct heap *heap, struct region *region)
{
    heap_unfree(heap, region_top(region));
    struct region **link = &heap->regions;
    while (*link != region) {
        link = &(*link)->next;
    }
    *link = region->next;
    region->ops->release(region);
    heap_bound_links(heap);
}

bool hmm_heap_trim(struct heap *heap, size_t keep_bytes, struct crime *crime)
{
    bool has_moved = false;
    struct region *region = hmm_heap_recover(heap, crime) ? heap->regions : NULL;
    while (region != NULL && heap_verify_top(heap, region, crime)) {
        struct region *next = region->next;
        if (region_is_idle(region)) {
            heap_drop_region(heap, region);
            has_moved = true;
        } else {
            has_moved |= heap_trim_region(heap, region, keep_bytes);
        }
        region = next;
    }
    return has_moved;
}

/* Whether the break has moved. */
static bool heap_lower_break(struct heap *heap, struct region *region)
{
    size_t top_bytes = region->gives_back ? region_top_free_bytes(region) : 0;
    if (top_bytes < 2 * TRIM_KEEP_BYTES_MIN) {
        return false;
    }
    size_t keep_bytes = size_max(TRIM_KEEP_BYTES_MIN, heap->live_bytes / TRIM_KEEP_SHARE);
    return top_bytes >= 2 * keep_bytes && heap_trim_region(heap, region, keep_bytes);
}

/* Whether what a region may have held lately would find room in the others. */
static bool heap_has_room_beside(const struct heap *heap, const struct region *region)
{
    size_t room_bytes = 0;
    for (const struct region *other = heap->regions; other != NULL; other = other->next) {
        size_t bytes = other->limit - other->brk + region_top_free_bytes(other);
        room_bytes += other != region ? size_min(bytes, SIZE_MAX - room_bytes) : 0;
    }
    return room_bytes >= region->brk - region->base;
}

/* Ends the region, or lowers its break. Whether one of them happened. */
static bool heap_settle_region(struct heap *heap, struct region *region)
{
    if (region_is_idle(region) && heap_has_room_beside(heap, region)) {
        heap_drop_region(heap, region);
        return true;
    }
    return heap_lower_break(heap, region);
}

/* What the others have kept was in proportion to what the whole heap had then. Damage is left to
 * whoever needs the block. */
void hmm_heap_settle(struct heap *heap, struct region *region)
{
    if (LIKELY(!heap_settle_region(heap, region))) {
        return;
    }
    struct region *next;
    for (region = heap->regions; region != NULL; region = next) {
        struct crime crime;
        crime_clear(&crime);
        next = region->next;
        if (region->gives_back && heap_verify_top(heap, region, &crime)) {
            (void)heap_settle_region(heap, region);
        }
    }
}

/* ---------------------------------------------------------------------------------- new regions */

/* How many rows of bins the region needs laid into itself, 0: those that there are will do. They
 * must reach as far as the largest block that the region can ever hold, which they make smaller. */
static unsigned heap_new_row_count(const struct heap *heap, const struct region *region,
                                   uintptr_t start)
{
    size_t room_bytes = region->limit - start;
    unsigned row_count = heap->fit.row_count;
    if (!fit_is_segregated(&heap->fit) ||
        fit_row_count(size_min(room_bytes, BLOCK_FREE_BYTES_MAX)) <= row_count) {
        return 0;
    }
    if (heap->grant.reach_bytes != 0) {
        return fit_row_count(heap->grant.reach_bytes);
    }
    do {
        row_count++;
    } while (fit_rows_bytes(row_count) < room_bytes &&
             fit_row_count(size_min(room_bytes - fit_rows_bytes(row_count), BLOCK_FREE_BYTES_MAX)) >
                 row_count);
    return row_count;
}

bool hmm_heap_add(struct heap *heap, struct region *region, uintptr_t start, size_t block_bytes_min)
{
    start = align_up(start, BLOCK_UNIT_BYTES);
    if (start > region->brk) {
        return false;
    }
    unsigned row_count = heap_new_row_count(heap, region, start);
    size_t rows_bytes = fit_rows_bytes(row_count);
    if (!hmm_region_ensure(region, &start, rows_bytes + BLOCK_UNIT_BYTES + block_bytes_min)) {
        return false;
    }
    if (row_count != 0) {
        fit_set_rows(&heap->fit, (void *)start, row_count);
        start += rows_bytes;
    }
    struct block *first = block_at(start + BLOCK_UNIT_BYTES - BLOCK_TAG_BYTES);
    region->first = block_address(first);
    region->fresh = region->first;
    heap_clear_new(heap, region, start);
    region_write_sentinel(heap, region, BLOCK_IS_PREV_FREE);
    heap_make_free(heap, first, block_address(region_sentinel(region)) - block_address(first));

    struct region **last = &heap->regions;
    while (*last != NULL) {
        last = &(*last)->next;
    }
    region->next = NULL;
    heap->has_shared_break |= region_is_shared(region);
    *last = region;
    heap_bound_links(heap);
    return true;
}

bool hmm_heap_overlaps(const struct heap *heap, uintptr_t start, size_t bytes)
{
    const struct region *region = heap->regions;
    while (region != NULL && !(start < region->limit && region->base < start + bytes)) {
        region = region->next;
    }
    return region != NULL;
}

/* -------------------------------------------------------------------------------------- numbers */

/* The largest block at the break that growing could make, as far as the region knows. */
static size_t heap_growable_bytes(const struct heap *heap, const struct region *region,
                                  size_t used_bytes)
{
    size_t room_bytes = region->limit - region->brk;
    size_t quota_bytes =
        heap->grant.quota_bytes > used_bytes ? heap->grant.quota_bytes - used_bytes : 0;
    room_bytes = size_min(align_down(room_bytes, BLOCK_UNIT_BYTES), quota_bytes);
    return room_bytes < BLOCK_BYTES_MIN ? 0 : room_bytes + region_top_free_bytes(region);
}

void hmm_heap_get_stats(const struct heap *heap, HmmHeapStats *stats)
{
    size_t used_bytes = hmm_heap_used_bytes(heap);
    size_t largest_bytes = fit_largest(&heap->fit);
    size_t capacity_bytes = 0;
    for (const struct region *region = heap->regions; region != NULL; region = region->next) {
        size_t reach_bytes = region->limit - region->base - region->gap_bytes;
        capacity_bytes = size_min(capacity_bytes, SIZE_MAX - reach_bytes) + reach_bytes;
        largest_bytes = size_max(largest_bytes, heap_growable_bytes(heap, region, used_bytes));
    }
    largest_bytes = size_min(largest_bytes, BLOCK_BYTES_MAX);
    *stats = (HmmHeapStats){
        .capacity_bytes = size_max(size_min(capacity_bytes, heap->grant.quota_bytes), used_bytes),
        .break_bytes = used_bytes,
        .live_bytes = heap->live_bytes,
        .live_count = heap->live_count,
        .free_bytes = heap->free_bytes,
        .free_count = heap->fit.count,
        .largest_free_bytes = largest_bytes != 0 ? largest_bytes - BLOCK_TAG_BYTES : 0,
        .peak_live_bytes = heap->peak_live_bytes,
        .overhead_bytes = used_bytes - heap->live_bytes - heap->free_bytes,
        .failed_count = heap->failed_count,
        .failed_bytes_max = heap->failed_bytes_max,
    };
}
