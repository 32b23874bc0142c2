/*
 * api_hmm.c - the door for programs that call HMM by name: the process heap, and created heaps. The
 * rest of the HmmHeap calls is in handle.c, because it also builds freestanding.
 *
 * malloc and its family come through here, so messages bear those names.
 */
#include "alloc.h"
#include "ground.h"
#include "registry.h"

void *HmmAlloc(size_t bytes)
{
    return alloc_fast(bytes);
}

void *HmmCalloc(size_t count, size_t bytes)
{
    return hmm_alloc_zeroed(count, bytes);
}

void *HmmRealloc(void *ptr, size_t bytes)
{
    return hmm_alloc_resize(ptr, bytes);
}

void HmmFree(void *ptr)
{
    free_fast(ptr);
}

void *HmmAlignedAlloc(size_t alignment, size_t bytes)
{
    if (!is_power_of_two(alignment)) {
        errno = EINVAL;
        return NULL;
    }
    return hmm_alloc_aligned(alignment, bytes);
}

size_t HmmUsableSize(const void *ptr)
{
    return ptr != NULL ? hmm_alloc_usable(ptr) : 0;
}

/* What hmm.h promises to be always enough for a heap. */
enum { HEAP_BYTES_ENOUGH = 1024 };

/* Of a limit with which there was no heap: whether there is one with enough. */
static HMM_COLD bool limit_is_too_small(size_t limit_bytes, const HmmHeapOptions *options)
{
    HmmHeap *heap = limit_bytes != 0 && limit_bytes < HEAP_BYTES_ENOUGH
                        ? hmm_ground_create(HEAP_BYTES_ENOUGH, hmm_registry_count(), options)
                        : NULL;
    HmmHeapDestroy(heap);
    return heap != NULL;
}

HmmHeap *HmmHeapCreate(size_t limit_bytes, const HmmHeapOptions *options)
{
    if (!hmm_handle_can_open(options)) {
        errno = EINVAL;
        return NULL;
    }
    HmmHeap *heap = hmm_ground_create(limit_bytes, hmm_registry_count(), options);
    if (heap == NULL) {
        errno = limit_is_too_small(limit_bytes, options) ? EINVAL : ENOMEM;
        return NULL;
    }
    heap->unregister = hmm_registry_remove;
    hmm_registry_add(heap);
    return heap;
}
