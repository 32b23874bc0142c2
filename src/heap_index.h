/*
 * heap_index.h - free blocks: written, counted, and in the index. For heap.c and heap_region.c.
 *
 * Who calls has verified what is read here, and writes the tag of the block behind himself.
 */
#ifndef HMM_HEAP_INDEX_H
#define HMM_HEAP_INDEX_H

#include "heap.h"

static inline void heap_write_free(struct heap *heap, struct block *block, size_t bytes)
{
    block_write(&heap->key, block, bytes, BLOCK_IS_FREE);
    *block_footer(block, bytes) = bytes;
    heap->free_bytes += bytes - BLOCK_TAG_BYTES;
}

/* Makes [block, block + bytes) a free block and indexes it. The one before must not be free. */
static inline void heap_make_free(struct heap *heap, struct block *block, size_t bytes)
{
    heap_write_free(heap, block, bytes);
    fit_insert(&heap->fit, block);
}

/* Takes a free block out of the index. Its tag goes on saying "free" (B7). */
static inline void heap_unfree(struct heap *heap, struct block *block)
{
    heap->free_bytes -= block_usable_bytes(block);
    fit_remove(&heap->fit, block, block_bytes(block));
}

/* The free block `old` shrinks, grows or moves a little: [block, block + bytes) is free now. */
static inline void heap_refree(struct heap *heap, struct block *old, struct block *block,
                               size_t bytes)
{
    size_t old_bytes = block_bytes(old);
    heap->free_bytes -= old_bytes - BLOCK_TAG_BYTES;
    heap_write_free(heap, block, bytes);
    fit_replace(&heap->fit, old, old_bytes, block);
}

/* heap_region.c: grows the first region that can hold a block of `bytes` at its break. false: none
 * can, or a crime. */
HMM_HIDDEN HMM_MUST_USE bool hmm_heap_grow(struct heap *heap, size_t alignment, size_t bytes,
                                           struct crime *crime);

#endif
