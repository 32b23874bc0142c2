/*
 * large.h - blocks of 256 KiB and more, and smaller ones whose alignment asks for it:
 * runs of granules.
 *
 * A block begins where its run begins and ends at a page, so the rest of its last granule is never
 * touched. It grows in place where the granules behind it are free; else the pages of one above 512
 * KiB move, if that can be done without a trace, which costs system calls where copying would cost
 * a fault a page.
 */
#ifndef HMM_LARGE_H
#define HMM_LARGE_H

#include "arena.h"
#include "check.h"

/* A block of at least `bytes` at a multiple of `alignment`, a power of two. NULL: no memory. */
HMM_HIDDEN void *hmm_large_allocate(size_t alignment, size_t bytes);

/* Granules that are taken, of no kind yet: that behind the first `before_count` lies at a multiple
 * of `alignment`, which may be more than what the arena's base is aligned to. NULL: no memory. */
HMM_HIDDEN struct granule *hmm_large_take_aligned(size_t before_count, size_t count,
                                                  size_t alignment);

/* Makes a block that was just allocated zero. */
HMM_HIDDEN void hmm_large_clear(void *ptr, size_t bytes);

/* Of a pointer into a granule of kind GRANULE_LARGE. false: a crime, nothing has changed. */
HMM_HIDDEN HMM_MUST_USE bool hmm_large_free(void *ptr, struct crime *crime);
/* Nothing of the content is left. */
HMM_HIDDEN HMM_MUST_USE bool hmm_large_free_cleared(void *ptr, struct crime *crime);
HMM_HIDDEN HMM_MUST_USE bool hmm_large_usable(const void *ptr, size_t *usable_bytes,
                                              struct crime *crime);

/* The block with room for `bytes`, where it is or elsewhere, content kept. NULL: it is as it was
 * (*usable_bytes tells its size), or a crime. */
HMM_HIDDEN void *hmm_large_resize(void *ptr, size_t bytes, size_t *usable_bytes,
                                  struct crime *crime);

#endif
