/*
 * ground_array.c - memory from one static array, and nothing from the system. See ground.h.
 *
 * The array costs nothing until it is touched. A created heap is a block of it.
 */
#include "ground.h"

#ifndef HMM_ARRAY_BYTES
#define HMM_ARRAY_BYTES ((size_t)1 << 30)
#endif

/* As large as the largest page, so that any alignment up to that finds its place early. */
enum { ARRAY_ALIGN_BYTES = 64 * 1024 };

static _Alignas(ARRAY_ALIGN_BYTES) unsigned char array[HMM_ARRAY_BYTES];

const bool hmm_ground_is_system = false;

HmmHeap *hmm_ground_open(const struct options *options, const HmmHeapOptions *heap)
{
    const struct heap_grant grant = {
        .quota_bytes = options->limit_bytes != 0 ? options->limit_bytes : SIZE_MAX,
    };
    struct region *region = hmm_region_array_init(array, sizeof array);
    return region != NULL ? hmm_handle_open(region, heap, &grant, LOCK_RANK_PROCESS) : NULL;
}

/* Nothing is reserved. */
void hmm_ground_shrink(HmmHeap *heap, size_t bytes)
{
    (void)heap;
    (void)bytes;
}

static void carved_release(struct region *region)
{
    HmmFree(region);
}

static const struct region_ops carved_ops = {hmm_region_array_grow, hmm_region_array_shrink,
                                             hmm_region_recover_nothing, carved_release};

HmmHeap *hmm_ground_create(size_t limit_bytes, size_t others_count, const HmmHeapOptions *options)
{
    (void)others_count;
    void *memory = limit_bytes != 0 ? HmmAlloc(limit_bytes) : NULL;
    struct region *region = hmm_region_array_init(memory, limit_bytes);
    HmmHeap *handle = NULL;
    if (region != NULL) {
        region->ops = &carved_ops;
        handle = hmm_handle_open(region, options, NULL, LOCK_RANK_HEAP);
    }
    if (handle == NULL) {
        HmmFree(memory);
    }
    return handle;
}
