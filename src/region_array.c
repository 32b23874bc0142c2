/*
 * region_array.c - a region in plain memory: a static array, or whatever a caller gives.
 *
 * The break is a number. Nothing here needs an operating system, so this is the region of the
 * freestanding build.
 */
#include "region.h"

uintptr_t hmm_region_array_grow(struct region *region, size_t least_bytes, size_t wanted_bytes)
{
    size_t room_bytes = region->limit - region->brk;
    if (least_bytes > room_bytes) {
        return 0;
    }
    uintptr_t start = region->brk;
    size_t bytes = size_min(size_max(least_bytes, wanted_bytes), room_bytes);
    region->brk = align_up(start + bytes, REGION_ALIGN_BYTES);
    return start;
}

void hmm_region_array_shrink(struct region *region, uintptr_t brk)
{
    region->brk = align_up(brk, REGION_ALIGN_BYTES);
}

uintptr_t hmm_region_recover_nothing(struct region *region)
{
    (void)region;
    return 0;
}

static void array_release(struct region *region)
{
    region->limit = region->brk = region->base;
    region->first = 0;
}

static const struct region_ops array_ops = {hmm_region_array_grow, hmm_region_array_shrink,
                                            hmm_region_recover_nothing, array_release};

struct region *hmm_region_array_init(void *memory, size_t memory_bytes)
{
    uintptr_t start = (uintptr_t)memory;
    size_t header_bytes = align_up(sizeof(struct region), REGION_ALIGN_BYTES);
    if (memory == NULL || !is_aligned(start, REGION_ALIGN_BYTES) ||
        memory_bytes > UINTPTR_MAX - start || memory_bytes < header_bytes) {
        return NULL;
    }
    struct region *region = memory;
    *region = (struct region){
        .ops = &array_ops,
        .base = start,
        .limit = align_down(start + memory_bytes, REGION_ALIGN_BYTES),
        .brk = start + header_bytes,
    };
    return region;
}
