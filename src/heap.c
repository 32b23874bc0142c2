/*
 * heap.c - the block heap. See heap.h for what it promises and block.h for what a block is.
 *
 * Each call has two halves. The first looks: it finds the region and the block, verifies every tag
 * and link that the second half will read, and can still say no. The second acts, and cannot fail.
 */
#include "heap_index.h"
#include "heap_verify.h"

enum {
    /* A foreign gap can come between what was measured and what was got: then once more. */
    GROWTH_ATTEMPTS = 3,
};

const char hmm_crime_freed_block[] = "freed block";
const char hmm_crime_damaged_free[] = "damaged free block";
const char hmm_crime_damaged_free_before[] = "damaged free block before";
const char hmm_crime_damaged_tag_before[] = "damaged tag";

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

static void heap_count_used(struct heap *heap, size_t usable_bytes)
{
    heap->live_bytes += usable_bytes;
    heap->peak_live_bytes = size_max(heap->peak_live_bytes, heap->live_bytes);
}

/* ---------------------------------------------------------------------------- allocate and free */

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
static HMM_INLINE struct block *heap_find_room(struct heap *heap, size_t alignment, size_t bytes,
                                               struct crime *crime)
{
    if (bytes == 0 || !heap_recover(heap, crime) || !heap_verify_all(heap, crime)) {
        return NULL;
    }
    struct block *block = fit_search(&heap->fit, bytes, alignment);
    for (int attempts = 0; block == NULL && attempts < GROWTH_ATTEMPTS; attempts++) {
        if (!hmm_heap_grow(heap, alignment, bytes, crime)) {
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
static HMM_INLINE void *heap_take_room(struct heap *heap, struct block *block, size_t alignment,
                                       size_t bytes)
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

/* The second half of freeing: a used block, whose neighbours were verified, becomes part of a free
 * one. Returns what follows that. */
static HMM_INLINE struct block *heap_put(struct heap *heap, struct block *block)
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
    return next;
}

bool hmm_heap_free(struct heap *heap, void *ptr, struct crime *crime)
{
    struct region *region =
        heap_recover(heap, crime) ? heap_find_to_change(heap, ptr, crime) : NULL;
    if (region == NULL) {
        crime_of_free(crime);
        return false;
    }
    if (heap_put(heap, block_of(ptr)) == region_sentinel(region)) {
        hmm_heap_settle(heap, region);
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

/* --------------------------------------------------------------------------------------- resize */

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

/* The block and the free one behind it, if there is one, become a block of `bytes` and a rest.
 * Returns what follows that. */
static struct block *heap_refit(struct heap *heap, struct block *block, size_t bytes)
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
    return block_after(block, total_bytes);
}

/* What a block has room for that slides: the free block before it is added. */
static size_t slide_room_bytes(const struct block *block)
{
    size_t prev_bytes = block_is_prev_free(block) ? block_prev_bytes(block) : 0;
    return prev_bytes + block_room_bytes(block);
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

bool hmm_heap_grow_in_place(struct heap *heap, struct region *region, const struct block *block,
                            size_t bytes, struct crime *crime)
{
    size_t room_bytes = block_room_bytes(block);
    bool is_last = block_after(block, room_bytes) == region_sentinel(region);
    return is_last && hmm_heap_grow_by(heap, region, bytes - room_bytes, crime) &&
           bytes <= block_room_bytes(block);
}

void *hmm_heap_resize(struct heap *heap, void *ptr, size_t request_bytes, size_t *usable_bytes,
                      struct crime *crime)
{
    struct region *region =
        heap_recover(heap, crime) ? heap_find_to_change(heap, ptr, crime) : NULL;
    if (region == NULL) {
        return NULL;
    }
    struct block *block = block_of(ptr);
    size_t bytes = block_bytes_for(request_bytes);
    *usable_bytes = block_usable_bytes(block);
    if (bytes == 0 || (heap_is_verifying(heap) && !heap_verify_behind(heap, block, crime))) {
        return NULL;
    }
    if (bytes > block_room_bytes(block)) {
        if (bytes <= slide_room_bytes(block)) {
            return heap_slide(heap, block, bytes);
        }
        if (!hmm_heap_grow_in_place(heap, region, block, bytes, crime)) {
            return NULL;
        }
    }
    if (heap_refit(heap, block, bytes) == region_sentinel(region)) {
        hmm_heap_settle(heap, region);
    }
    return ptr;
}

/* -------------------------------------------------------------------------- halves of the calls */

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

void hmm_heap_refit(struct heap *heap, struct block *block, size_t bytes)
{
    (void)heap_refit(heap, block, bytes);
}
