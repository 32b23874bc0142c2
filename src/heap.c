/*
 * heap.c - the block heap. See heap.h for what it promises and block.h for what a block is.
 *
 * Each call has two halves. The first looks: it finds the region and the block, verifies every tag
 * and link that the second half will read, and can still say no. The second acts, and cannot fail.
 */
#include "heap.h"
#include "heap_verify.h"
#include "heap_zero.h"

/* Growing by an eighth of what there is keeps the number of growths logarithmic; 64 KiB keeps the
 * first ones few. */
enum {
    STEP_BYTES_MIN = 64 * 1024,
    STEP_SHARE = 8,
    /* A foreign gap can come between what was measured and what was got: then once more. */
    GROWTH_ATTEMPTS = 3,
};

/* Free memory at the break is given back when it is twice what is kept, so that a small block that
 * comes and goes at the break does not move it each time. What is kept follows what is live, not
 * what was: after a peak the memory is gone. */
enum {
    TRIM_KEEP_BYTES_MIN = 128 * 1024,
    TRIM_KEEP_SHARE = 8,
};

/* ----------------------------------------------------------------------------- small words */

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

static void heap_count_used(struct heap *heap, size_t usable_bytes)
{
    heap->live_bytes += usable_bytes;
    heap->peak_live_bytes = size_max(heap->peak_live_bytes, heap->live_bytes);
}

static void heap_write_free(struct heap *heap, struct block *block, size_t bytes)
{
    block_write(&heap->key, block, bytes, BLOCK_IS_FREE);
    *block_footer(block, bytes) = bytes;
    heap->free_bytes += bytes - BLOCK_TAG_BYTES;
}

/* Makes [block, block + bytes) a free block and indexes it. The one before must not be free. */
static void heap_make_free(struct heap *heap, struct block *block, size_t bytes)
{
    heap_write_free(heap, block, bytes);
    fit_insert(&heap->fit, block);
}

/* Takes a free block out of the index. Its tag goes on saying "free" (B7). */
static void heap_unfree(struct heap *heap, struct block *block)
{
    heap->free_bytes -= block_usable_bytes(block);
    fit_remove(&heap->fit, block, block_bytes(block));
}

/* The free block `old` shrinks, grows or moves a little: [block, block + bytes) is free now. */
static void heap_refree(struct heap *heap, struct block *old, struct block *block, size_t bytes)
{
    size_t old_bytes = block_bytes(old);
    heap->free_bytes -= old_bytes - BLOCK_TAG_BYTES;
    heap_write_free(heap, block, bytes);
    fit_replace(&heap->fit, old, old_bytes, block);
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

/* --------------------------------------------------------------------------------- the break */

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

/* Memory that a region has just grown by. Most of what is 0 has never been touched, and stays so. */
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

/* Before any block is looked at: what others cut off below a break that we share is ours again. */
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

/* Lengthens what is free at the region's break. */
static bool heap_grow_by(struct heap *heap, struct region *region, size_t least_bytes,
                         struct crime *crime)
{
    return heap_verify_top(heap, region, crime) &&
           heap_grow_region(heap, region, size_max(least_bytes, BLOCK_BYTES_MIN));
}

/* Grows the first region that can hold a block of `bytes` at its break. */
static bool heap_grow(struct heap *heap, size_t alignment, size_t bytes, struct crime *crime)
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

bool hmm_heap_trim(struct heap *heap, size_t keep_bytes, struct crime *crime)
{
    bool has_moved = false;
    struct region *region = hmm_heap_recover(heap, crime) ? heap->regions : NULL;
    while (region != NULL && heap_verify_top(heap, region, crime)) {
        has_moved |= heap_trim_region(heap, region, keep_bytes);
        region = region->next;
    }
    return has_moved;
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

/* After a block was freed that ends at the break. */
static void heap_trim_after_free(struct heap *heap, struct region *region)
{
    size_t top_bytes = region_top_free_bytes(region);
    if (region->goes_when_empty && block_address(region_top(region)) == region->first) {
        heap_drop_region(heap, region);
        return;
    }
    if (!region->gives_back || top_bytes < 2 * TRIM_KEEP_BYTES_MIN) {
        return;
    }
    size_t keep_bytes = size_max(TRIM_KEEP_BYTES_MIN, heap->live_bytes / TRIM_KEEP_SHARE);
    if (top_bytes >= 2 * keep_bytes) {
        (void)heap_trim_region(heap, region, keep_bytes);
    }
}

/* -------------------------------------------------------------------------- allocate and free */

/* A used block of `bytes` at `block`. The next one's tag is told by the caller. */
static void heap_write_used(struct heap *heap, struct block *block, size_t bytes, unsigned flags)
{
    block_write(&heap->key, block, bytes, flags);
    heap_count_used(heap, bytes - BLOCK_TAG_BYTES);
}

/* Cuts a used block of `bytes` out of [block, block + total_bytes), which is in nobody's hands. The
 * rest, if it can be a block, becomes a free one. */
static void heap_use(struct heap *heap, struct block *block, size_t total_bytes, size_t bytes,
                     unsigned flags)
{
    struct block *next = block_after(block, total_bytes);
    if (total_bytes - bytes >= BLOCK_BYTES_MIN) {
        block_set_flags(&heap->key, next, BLOCK_IS_PREV_FREE, 0);
        heap_make_free(heap, block_after(block, bytes), total_bytes - bytes);
    } else {
        block_set_flags(&heap->key, next, 0, BLOCK_IS_PREV_FREE);
        bytes = total_bytes;
    }
    heap_write_used(heap, block, bytes, flags);
}

/* Turns a free block that was verified into a used one and, mostly, a smaller free one. */
static void *heap_take(struct heap *heap, struct block *block, size_t bytes)
{
    size_t total_bytes = block_bytes(block);
    if (total_bytes - bytes >= BLOCK_BYTES_MIN) {
        heap_refree(heap, block, block_after(block, bytes), total_bytes - bytes);
    } else {
        bytes = total_bytes;
        heap_unfree(heap, block);
        block_set_flags(&heap->key, block_after(block, bytes), 0, BLOCK_IS_PREV_FREE);
    }
    heap_write_used(heap, block, bytes, 0);
    heap->live_count++;
    return block_payload(block);
}

/* As heap_take, but the payload must be aligned: what lies before it stays a free block. */
static void *heap_take_aligned(struct heap *heap, struct block *block, size_t alignment,
                               size_t bytes)
{
    size_t total_bytes = block_bytes(block);
    size_t lead_bytes = fit_lead_bytes(block, alignment);
    ASSERT(lead_bytes + bytes <= total_bytes);
    if (lead_bytes == 0) {
        return heap_take(heap, block, bytes);
    }
    struct block *placed = block_after(block, lead_bytes);
    heap_refree(heap, block, block, lead_bytes);
    heap_use(heap, placed, total_bytes - lead_bytes, bytes, BLOCK_IS_PREV_FREE);
    heap->live_count++;
    return block_payload(placed);
}

/* The first half of an allocation: a free block with room for one of `bytes`, verified. */
static inline __attribute__((always_inline)) struct block *
heap_find_room(struct heap *heap, size_t alignment, size_t bytes, struct crime *crime)
{
    if (bytes == 0 || !hmm_heap_recover(heap, crime) || !heap_verify_all(heap, crime)) {
        return NULL;
    }
    struct block *block = fit_search(&heap->fit, bytes, alignment);
    for (int attempts = 0; block == NULL && attempts < GROWTH_ATTEMPTS; attempts++) {
        if (!heap_grow(heap, alignment, bytes, crime)) {
            return NULL;
        }
        block = fit_search(&heap->fit, bytes, alignment);
    }
    if (block == NULL) {
        return NULL;
    }
    if (heap_is_verifying(heap) &&
        !(heap_verify_tag(heap, block, crime) && heap_verify_free(heap, block, crime) &&
          heap_verify_next(heap, block, crime) && heap_verify_beyond(heap, block, crime))) {
        return NULL;
    }
    return block;
}

/* The second half. */
static inline __attribute__((always_inline)) void *
heap_take_room(struct heap *heap, struct block *block, size_t alignment, size_t bytes)
{
    return alignment <= BLOCK_UNIT_BYTES ? heap_take(heap, block, bytes)
                                         : heap_take_aligned(heap, block, alignment, bytes);
}

void *hmm_heap_allocate(struct heap *heap, size_t alignment, size_t request_bytes,
                        struct crime *crime)
{
    size_t bytes = block_bytes_for(request_bytes);
    alignment = size_max(alignment, BLOCK_UNIT_BYTES);
    struct block *block = heap_find_room(heap, alignment, bytes, crime);
    return LIKELY(block != NULL) ? heap_take_room(heap, block, alignment, bytes) : NULL;
}

void hmm_heap_count_failure(struct heap *heap, size_t bytes)
{
    heap->failed_count++;
    heap->failed_bytes_max = size_max(heap->failed_bytes_max, bytes);
}

/* A free block and what follows it. */
struct merged {
    struct block *block;
    struct block *next;
};

/* The second half of freeing: a used block, whose neighbours were verified, becomes part of a free one. */
static inline __attribute__((always_inline)) struct merged heap_put(struct heap *heap,
                                                                    struct block *block)
{
    size_t bytes = block_bytes(block);
    struct block *next = block_after(block, bytes);
    struct block *replaced = NULL;
    heap->live_bytes -= bytes - BLOCK_TAG_BYTES;
    heap->live_count--;
    if (block_is_free(next)) {
        bytes += block_bytes(next);
        replaced = next;
        next = block_after(block, bytes);
    } else {
        block_set_flags(&heap->key, next, BLOCK_IS_PREV_FREE, 0);
    }
    if (block_is_prev_free(block)) {
        if (replaced != NULL) {
            heap_unfree(heap, replaced);
        }
        size_t prev_bytes = block_prev_bytes(block);
        block_set_flags(&heap->key, block, BLOCK_IS_FREE, 0);
        replaced = block = block_before(block, prev_bytes);
        bytes += prev_bytes;
    }
    if (replaced != NULL) {
        heap_refree(heap, replaced, block, bytes);
    } else {
        heap_make_free(heap, block, bytes);
    }
    return (struct merged){block, next};
}

bool hmm_heap_free(struct heap *heap, void *ptr, struct crime *crime)
{
    struct region *region =
        hmm_heap_recover(heap, crime) ? heap_find_to_change(heap, ptr, crime) : NULL;
    if (region == NULL) {
        crime_of_free(crime);
        return false;
    }
    struct merged merged = heap_put(heap, block_of(ptr));
    if (merged.next == region_sentinel(region)) {
        heap_trim_after_free(heap, region);
    }
    return true;
}

bool hmm_heap_usable(const struct heap *heap, const void *ptr, size_t *usable_bytes,
                     struct crime *crime)
{
    struct region *region = heap->integrity >= HMM_INTEGRITY_NEIGHBOURS
                                ? heap_find_to_change(heap, ptr, crime)
                                : heap_find(heap, ptr, crime);
    if (region == NULL) {
        return false;
    }
    *usable_bytes = block_usable_bytes(block_of(ptr));
    return true;
}

/* ----------------------------------------------------------------------------------- resize */

/* Moves bytes to a lower address. Pieces as long as the distance do not overlap, so memcpy will do:
 * it is all that a freestanding target gives. The distance is a block at least. */
static void move_down(char *to, const char *from, size_t bytes)
{
    size_t distance_bytes = (size_t)(from - to);
    while (bytes > distance_bytes) {
        memcpy(to, from, distance_bytes);
        to += distance_bytes;
        from += distance_bytes;
        bytes -= distance_bytes;
    }
    memcpy(to, from, bytes);
}

/* The block and the free one after it, if there is one, become a block of `bytes` and a rest. */
static void heap_refit(struct heap *heap, struct block *block, size_t bytes)
{
    const unsigned flags = block_is_prev_free(block) ? BLOCK_IS_PREV_FREE : 0;
    size_t total_bytes = block_bytes(block);
    struct block *next = block_after(block, total_bytes);
    heap->live_bytes -= total_bytes - BLOCK_TAG_BYTES;
    if (block_is_free(next)) {
        total_bytes += block_bytes(next);
        heap_unfree(heap, next);
    }
    heap_use(heap, block, total_bytes, bytes, flags);
}

/* The block slides down into the free one before it, and takes what it needs of the one after. */
static void *heap_slide(struct heap *heap, struct block *block, size_t bytes)
{
    size_t old_bytes = block_bytes(block);
    size_t total_bytes = block_prev_bytes(block) + old_bytes;
    struct block *prev = block_before(block, block_prev_bytes(block));
    struct block *next = block_after(block, old_bytes);
    heap->live_bytes -= old_bytes - BLOCK_TAG_BYTES;
    heap_unfree(heap, prev);
    if (block_is_free(next)) {
        total_bytes += block_bytes(next);
        heap_unfree(heap, next);
    }
    block_set_flags(&heap->key, block, BLOCK_IS_FREE, 0);
    move_down(block_payload(prev), block_payload(block), old_bytes - BLOCK_TAG_BYTES);
    heap_use(heap, prev, total_bytes, bytes, 0);
    return block_payload(prev);
}

void *hmm_heap_resize(struct heap *heap, void *ptr, size_t request_bytes, size_t *usable_bytes,
                      struct crime *crime)
{
    struct region *region =
        hmm_heap_recover(heap, crime) ? heap_find_to_change(heap, ptr, crime) : NULL;
    if (region == NULL) {
        return NULL;
    }
    struct block *block = block_of(ptr);
    size_t own_bytes = block_bytes(block);
    size_t bytes = block_bytes_for(request_bytes);
    *usable_bytes = own_bytes - BLOCK_TAG_BYTES;
    if (bytes == 0) {
        return NULL;
    }
    const struct block *next = block_after(block, own_bytes);
    size_t next_bytes = block_is_free(next) ? block_bytes(next) : 0;
    size_t prev_bytes = block_is_prev_free(block) ? block_prev_bytes(block) : 0;
    /* The tag behind a free block is written anew when that block changes. */
    if (heap_is_verifying(heap) && next_bytes != 0 && !heap_verify_next(heap, next, crime)) {
        return NULL;
    }
    if (bytes > own_bytes + next_bytes && bytes <= prev_bytes + own_bytes + next_bytes) {
        return heap_slide(heap, block, bytes);
    }
    bool is_last = block_after(next, next_bytes) == region_sentinel(region);
    if (bytes > own_bytes + next_bytes && is_last) {
        if (!heap_grow_by(heap, region, bytes - own_bytes - next_bytes, crime)) {
            return NULL;
        }
        next_bytes = block_is_free(next) ? block_bytes(next) : 0;
    }
    if (bytes > own_bytes + next_bytes) {
        return NULL;
    }
    heap_refit(heap, block, bytes);
    if (is_last) {
        heap_trim_after_free(heap, region);
    }
    return ptr;
}

/* ------------------------------------------------------------------------ halves of the calls */

struct block *hmm_heap_find_room(struct heap *heap, size_t alignment, size_t bytes,
                                 struct crime *crime)
{
    return heap_find_room(heap, alignment, bytes, crime);
}

void *hmm_heap_take_room(struct heap *heap, struct block *block, size_t alignment, size_t bytes)
{
    return heap_take_room(heap, block, alignment, bytes);
}

void hmm_heap_put(struct heap *heap, struct block *block)
{
    (void)heap_put(heap, block);
}

void hmm_heap_settle(struct heap *heap, struct region *region)
{
    if (block_is_prev_free(region_sentinel(region))) {
        heap_trim_after_free(heap, region);
    }
}

bool hmm_heap_grow_by(struct heap *heap, struct region *region, size_t least_bytes,
                      struct crime *crime)
{
    return heap_grow_by(heap, region, least_bytes, crime);
}

void hmm_heap_refit(struct heap *heap, struct block *block, size_t bytes)
{
    heap_refit(heap, block, bytes);
}

/* ---------------------------------------------------------------------------------- regions */

void hmm_heap_init(struct heap *heap, HmmFit policy, HmmIntegrity integrity,
                   struct heap_grant grant, uint64_t secret)
{
    *heap = (struct heap){
        .key = {.add = secret, .multiply = rotate_left(secret, 32) | 1},
        .integrity = integrity,
        .grant = grant,
        .fit = {.policy = policy},
    };
}

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

bool hmm_heap_add(struct heap *heap, struct region *region, uintptr_t start)
{
    start = align_up(start, BLOCK_UNIT_BYTES);
    if (start > region->brk) {
        return false;
    }
    unsigned row_count = heap_new_row_count(heap, region, start);
    size_t rows_bytes = fit_rows_bytes(row_count);
    if (!hmm_region_ensure(region, &start, rows_bytes + BLOCK_UNIT_BYTES + BLOCK_BYTES_MIN)) {
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
    heap->has_shared_break |= region->ops->recover != hmm_region_recover_nothing;
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
