/*
 * handle_guarded.h - the calls of handle.h where the heap is hardened. For handle.c only, which
 * comes here with every handle that is not a plain heap's: also with none at all. And where the
 * guard lies, for stats.c and for readers.
 */
#ifndef HMM_HANDLE_GUARDED_H
#define HMM_HANDLE_GUARDED_H

#include "handle.h"
#include "heap_guard.h"

static inline bool handle_is_guarded(const HmmHeap *handle)
{
    return handle != NULL && handle->magic == HANDLE_MAGIC_GUARDED;
}

/* The guard lies behind the handle. */
static inline struct heap_guard *handle_guard(const HmmHeap *handle)
{
    return (struct heap_guard *)((uintptr_t)handle + align_up(sizeof *handle, REGION_ALIGN_BYTES));
}

static inline size_t handle_header_bytes(HmmHardening level, size_t capacity_bytes)
{
    size_t bytes = align_up(sizeof(HmmHeap), REGION_ALIGN_BYTES);
    return level == HMM_HARDENING_NONE
               ? bytes
               : bytes + align_up(hmm_heap_guard_bytes(level, capacity_bytes), REGION_ALIGN_BYTES);
}

HMM_HIDDEN void *hmm_guarded_allocate(HmmHeap *handle, const char *call, size_t alignment,
                                      size_t bytes, enum origin origin);
/* Neither is NULL or 0. */
HMM_HIDDEN void *hmm_guarded_resize(HmmHeap *handle, const char *call, void *ptr, size_t bytes);
HMM_HIDDEN void hmm_guarded_free(HmmHeap *handle, void *ptr, const struct claim *claim);
HMM_HIDDEN size_t hmm_guarded_usable(const HmmHeap *handle, const char *call, const void *ptr);
HMM_HIDDEN void hmm_guarded_get_stats(HmmHeap *handle, HmmHeapStats *stats);

#endif
