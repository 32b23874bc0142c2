/*
 * region_reserve.c - a region on reserved address space.
 *
 * The range is mapped once without access. Growing makes pages accessible, shrinking gives memory
 * and commit charge back, so there are never more than two mappings, and the kernel can still say
 * no when memory is tight. The struct lies in the first page.
 */
#include "os.h"
#include "region.h"

enum {
    /* Accessible from the start: the struct, and all that a heap has in front of its blocks. With
     * more a page more is touched, for the last word before the break is the heap's. */
    OPEN_BYTES = 8 * 1024,
};

/* The limit need not be a page boundary; the mapping behind it ends at the next one. */
static uintptr_t reserve_mapping_end(const struct region *region)
{
    return align_up(region->limit, hmm_os_page_bytes());
}

static uintptr_t reserve_grow_by(struct region *region, size_t bytes)
{
    uintptr_t start = region->brk;
    if (bytes > region->limit - start) {
        return 0;
    }
    uintptr_t end = align_up(start + bytes, hmm_os_page_bytes());
    if (!hmm_os_commit((void *)start, end - start)) {
        return 0;
    }
    region->brk = size_min(end, region->limit);
    return start;
}

static uintptr_t reserve_grow(struct region *region, size_t least_bytes, size_t wanted_bytes)
{
    wanted_bytes = size_min(wanted_bytes, region->limit - region->brk);
    if (wanted_bytes > least_bytes) {
        uintptr_t start = reserve_grow_by(region, wanted_bytes);
        if (start != 0) {
            return start;
        }
    }
    return reserve_grow_by(region, least_bytes);
}

static void reserve_shrink(struct region *region, uintptr_t brk)
{
    uintptr_t end = align_up(brk, hmm_os_page_bytes());
    uintptr_t old_end = align_up(region->brk, hmm_os_page_bytes());
    if (end < old_end && hmm_os_decommit((void *)end, old_end - end)) {
        region->brk = end;
    }
}

static void reserve_release(struct region *region)
{
    hmm_os_release((void *)region->base, reserve_mapping_end(region) - region->base);
}

static const struct region_ops reserve_ops = {reserve_grow, reserve_shrink,
                                              hmm_region_recover_nothing, reserve_release};

struct region *hmm_region_reserve_create(size_t limit_bytes)
{
    size_t page_bytes = hmm_os_page_bytes();
    size_t bytes = align_up(limit_bytes, page_bytes);
    if (limit_bytes > OBJECT_BYTES_MAX || limit_bytes < sizeof(struct region)) {
        return NULL;
    }
    size_t open_bytes = size_min(align_up(OPEN_BYTES, page_bytes), bytes);
    void *start = hmm_os_reserve(bytes, open_bytes);
    if (start == NULL) {
        return NULL;
    }
    hmm_os_name(start, bytes, "hmm blocks");
    struct region *region = start;
    uintptr_t base = (uintptr_t)start;
    uintptr_t limit = align_down(base + limit_bytes, REGION_ALIGN_BYTES);
    *region = (struct region){
        .ops = &reserve_ops,
        .base = base,
        .limit = limit,
        .brk = size_min(base + open_bytes, limit),
        .gives_back = true,
        .grows_by_zero = true,
    };
    return region;
}

void hmm_region_reserve_shrink(struct region *region, size_t bytes)
{
    if (region->ops != &reserve_ops || bytes >= region->limit - region->base) {
        return;
    }
    uintptr_t end = align_up(size_max(region->base + bytes, region->brk), hmm_os_page_bytes());
    uintptr_t old_end = reserve_mapping_end(region);
    if (end < old_end) {
        hmm_os_release((void *)end, old_end - end);
        region->limit = end;
    }
}

struct region *hmm_region_reserve_largest(size_t least_bytes, size_t wanted_bytes)
{
    size_t bytes = size_max(wanted_bytes, least_bytes);
    struct region *region = hmm_region_reserve_create(bytes);
    if (region != NULL) {
        return region;
    }
    while (region == NULL && bytes / 2 >= least_bytes && bytes / 2 >= hmm_os_page_bytes()) {
        bytes /= 2;
        region = hmm_region_reserve_create(bytes);
    }
    if (region == NULL) {
        return hmm_region_reserve_create(least_bytes);
    }
    if (bytes / 2 >= least_bytes) {
        hmm_region_reserve_shrink(region, bytes / 2);
    }
    return region;
}
