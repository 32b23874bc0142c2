/*
 * peer_hmm.c - HMM's own plug-in for the array bench (see array.c): fit=good in the array, without
 * a lock, because the peers have none. PEER_INTEGRITY may be defined to check less than by default.
 */
#include "hmm.h"

#ifndef PEER_INTEGRITY
#define PEER_INTEGRITY HMM_INTEGRITY_TAG
#endif

size_t peer_init(void *memory, size_t bytes);
void *peer_alloc(size_t bytes);
void peer_free(void *ptr);

static HmmHeap *heap;

size_t peer_init(void *memory, size_t bytes)
{
    const HmmHeapOptions options = {
        .fit = HMM_FIT_GOOD,
        .unlocked = true,
        .integrity = PEER_INTEGRITY,
    };
    heap = HmmHeapInit(memory, bytes, &options);
    return heap != NULL ? bytes : 0;
}

void *peer_alloc(size_t bytes)
{
    return HmmHeapAlloc(heap, bytes);
}

void peer_free(void *ptr)
{
    HmmHeapFree(heap, ptr);
}
