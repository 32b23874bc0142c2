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
};

const bool hmm_ground_is_system = true;

static HmmHeap *open_on(struct region *region, const struct options *options,
                        const HmmHeapOptions *heap)
{
    const struct heap_grant grant = {
        .quota_bytes = options->limit_bytes != 0 ? options->limit_bytes : SIZE_MAX,
        .reach_bytes = BLOCK_FREE_BYTES_MAX,
    };
    return region != NULL ? hmm_handle_open(region, heap, &grant, LOCK_RANK_PROCESS) : NULL;
}

static HmmHeap *open_on_reserve(const struct options *options, const HmmHeapOptions *heap)
{
    struct region *region = hmm_region_reserve_largest(RESERVE_BYTES_MIN, hmm_os_range_bytes());
    HmmHeap *handle = open_on(region, options, heap);
    if (handle == NULL && region != NULL) {
        region->ops->release(region);
    }
    return handle;
}

/* Each way is the other's fall-back. */
HmmHeap *hmm_ground_open(const struct options *options, const HmmHeapOptions *heap)
{
    bool is_sbrk_first = options->region == OPTION_REGION_SBRK;
    HmmHeap *handle =
        is_sbrk_first ? open_on(hmm_region_sbrk(), options, heap) : open_on_reserve(options, heap);
    if (handle == NULL) {
        handle = is_sbrk_first ? open_on_reserve(options, heap)
                               : open_on(hmm_region_sbrk(), options, heap);
    }
    return handle;
}

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
           (region == hmm_region_sbrk() || region->limit - region->brk < range_bytes)) {
        region = region->next;
    }
    return region == NULL;
}

bool hmm_ground_more(HmmHeap *heap, size_t bytes, void *context)
{
    (void)context;
    size_t range_bytes;
    if (!size_add(bytes, RESERVE_SLACK_BYTES, &range_bytes)) {
        return false;
    }
    hmm_handle_lock(heap);
    bool is_wanted = heap_wants_range(&heap->heap, range_bytes);
    hmm_handle_unlock(heap);
    if (!is_wanted) {
        return false;
    }
    struct region *region = hmm_region_reserve_largest(range_bytes, hmm_os_range_bytes());
    if (region == NULL) {
        return false;
    }
    region->goes_when_empty = true;
    /* The memory itself first: a range whose memory is refused would stay, and help nobody. */
    size_t commit_bytes = bytes + RESERVE_SLACK_BYTES / 2;
    bool is_done = region->ops->grow(region, commit_bytes, commit_bytes) != 0 &&
                   hmm_handle_add(heap, region, hmm_region_start(region));
    if (!is_done) {
        region->ops->release(region);
    }
    return is_done;
}

void hmm_ground_shrink(HmmHeap *heap, size_t bytes)
{
    hmm_handle_lock(heap);
    for (struct region *region = heap->heap.regions; region != NULL; region = region->next) {
        hmm_region_reserve_shrink(region, bytes);
    }
    hmm_handle_unlock(heap);
}

struct region *hmm_ground_create(size_t limit_bytes)
{
    return limit_bytes != 0 ? hmm_region_reserve_create(limit_bytes)
                            : hmm_region_reserve_largest(RESERVE_BYTES_MIN, hmm_os_range_bytes());
}
