/*
 * ground_system.c - memory from the system: reserved ranges and the program break. See ground.h.
 */
#include "ground.h"
#include "os.h"

enum {
    /* A first reservation below this is not worth its two mappings: then the program break. */
    RESERVE_BYTES_MIN = 1 << 20,
    /* The header of a region, tags, and rounding to pages of 64 KiB. */
    RESERVE_SLACK_BYTES = 2 * 64 * 1024,
    /* So many created heaps without a limit begin with as much as the process heap, but with 256
     * GiB at most, and each doubling of their number with half of it: all heaps of a doubling
     * take 2 TiB of the 128 that a process has. From a 64th or 1 GiB on no less: then mappings
     * run out before addresses. */
    CREATED_COUNT = 8,
    CREATED_SHIFT_MAX = 38,
    CREATED_SHARE_SHIFT = 6,
    CREATED_BYTES_MIN = 1 << 30,
    /* A range that is added is so many times as large as all that the heap has: few, for a check of
     * a pointer walks them. */
    RANGE_GROWTH = 8,
};

const bool hmm_ground_is_system = true;

/* Whether the lack is one of address space. Where a reserved range still has room, the system
 * refused the memory itself, and another range would be refused it too. */
static bool heap_wants_range(const struct heap *heap, size_t range_bytes)
{
    size_t used_bytes = hmm_heap_used_bytes(heap);
    if (used_bytes > heap->grant.quota_bytes ||
        range_bytes > heap->grant.quota_bytes - used_bytes) {
        return false;
    }
    const struct region *region = heap->regions;
    while (region != NULL &&
           (region_is_shared(region) || region->limit - region->brk < range_bytes)) {
        region = region->next;
    }
    return region == NULL;
}

/* How large the next range should be. */
static size_t heap_next_range_bytes(const struct heap *heap)
{
    const size_t bytes_max = hmm_os_range_bytes();
    size_t bytes = 0;
    for (const struct region *region = heap->regions; region != NULL; region = region->next) {
        bytes += size_min(region->limit - region->base, bytes_max - bytes);
    }
    return bytes < bytes_max / RANGE_GROWTH ? bytes * RANGE_GROWTH : bytes_max;
}

/* The memory itself first: a range whose memory is refused would stay, and help nobody. */
static bool heap_add_region(struct heap *heap, struct region *region, size_t commit_bytes)
{
    region->goes_when_empty = true;
    if (region->ops->grow(region, commit_bytes, commit_bytes) != 0 &&
        hmm_heap_add(heap, region, hmm_region_start(region), BLOCK_BYTES_MIN)) {
        return true;
    }
    region->ops->release(region);
    return false;
}

static bool heap_add_range(HmmHeap *heap, size_t bytes)
{
    size_t range_bytes;
    if (!size_add(bytes, RESERVE_SLACK_BYTES, &range_bytes)) {
        return false;
    }
    struct region *region =
        heap_wants_range(&heap->heap, range_bytes)
            ? hmm_region_reserve_largest(range_bytes, heap_next_range_bytes(&heap->heap))
            : NULL;
    return region != NULL && heap_add_region(&heap->heap, region, bytes + RESERVE_SLACK_BYTES / 2);
}

static HmmHeap *open_on(struct region *region, const HmmHeapOptions *options,
                        const struct heap_grant *grant, enum lock_rank rank)
{
    HmmHeap *handle = region != NULL ? hmm_handle_open(region, options, grant, rank) : NULL;
    if (handle == NULL && region != NULL) {
        region->ops->release(region);
    }
    return handle;
}

/* A heap whose regions may become more. Those have no bins of their own, because they go when
 * they are empty. */
static HmmHeap *open_growing(struct region *region, const HmmHeapOptions *options,
                             size_t quota_bytes, enum lock_rank rank)
{
    const struct heap_grant grant = {
        .quota_bytes = quota_bytes,
        .reach_bytes = BLOCK_FREE_BYTES_MAX,
    };
    HmmHeap *handle = open_on(region, options, &grant, rank);
    if (handle != NULL) {
        handle->add_range = heap_add_range;
    }
    return handle;
}

static HmmHeap *open_on_sbrk(const HmmHeapOptions *options, size_t quota_bytes)
{
    return open_growing(hmm_region_sbrk(), options, quota_bytes, LOCK_RANK_PROCESS);
}

static HmmHeap *open_on_reserve(const HmmHeapOptions *options, size_t quota_bytes)
{
    return open_growing(hmm_region_reserve_largest(RESERVE_BYTES_MIN, hmm_os_range_bytes()),
                        options, quota_bytes, LOCK_RANK_PROCESS);
}

/* Each way is the other's fall-back. */
HmmHeap *hmm_ground_open(const struct options *options, const HmmHeapOptions *heap)
{
    bool is_sbrk_first = options->region == OPTION_REGION_SBRK;
    size_t quota_bytes = options->limit_bytes != 0 ? options->limit_bytes : SIZE_MAX;
    HmmHeap *handle =
        is_sbrk_first ? open_on_sbrk(heap, quota_bytes) : open_on_reserve(heap, quota_bytes);
    if (handle == NULL) {
        handle =
            is_sbrk_first ? open_on_reserve(heap, quota_bytes) : open_on_sbrk(heap, quota_bytes);
    }
    return handle;
}

void hmm_ground_shrink(HmmHeap *heap, size_t bytes)
{
    hmm_handle_lock(heap);
    for (struct region *region = heap->heap.regions; region != NULL; region = region->next) {
        hmm_region_reserve_shrink(region, bytes);
    }
    hmm_handle_unlock(heap);
}

static HmmHeap *create_unlimited(size_t others_count, const HmmHeapOptions *options)
{
    const uint64_t bytes_max = (uint64_t)1 << CREATED_SHIFT_MAX;
    const size_t machine_bytes = hmm_os_range_bytes();
    const size_t bytes_min = size_min(machine_bytes >> CREATED_SHARE_SHIFT, CREATED_BYTES_MIN);
    const unsigned halvings = bit_highest(2 * (others_count / CREATED_COUNT) + 1);
    const size_t bytes =
        (machine_bytes < bytes_max ? machine_bytes : (size_t)bytes_max) >> halvings;
    return open_growing(hmm_region_reserve_largest(RESERVE_BYTES_MIN, size_max(bytes, bytes_min)),
                        options, SIZE_MAX, LOCK_RANK_HEAP);
}

HmmHeap *hmm_ground_create(size_t limit_bytes, size_t others_count, const HmmHeapOptions *options)
{
    return limit_bytes != 0
               ? open_on(hmm_region_reserve_create(limit_bytes), options, NULL, LOCK_RANK_HEAP)
               : create_unlimited(others_count, options);
}
