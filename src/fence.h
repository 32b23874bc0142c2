/*
 * fence.h - blocks between inaccessible granules, and blocks without memory.
 *
 *      +---------+- - - - - - -+------------------------+---------+
 *      | fence   |  no access  |              | block   | fence   |
 *      +---------+- - - - - - -+------------------------+---------+
 *                              a page         ptr       a granule's end
 *
 * The block ends where the fence begins, as far as its alignment lets it. When it is freed all of
 * it becomes inaccessible and waits until some dozen others have been freed, or all that wait
 * together are more than an eighth of what is live, and 4 MiB, and more than purge.h regrets. Then
 * the next block takes it with its fences, if it has as many granules and the arena would have kept
 * its memory; else its fences are taken down. Where the system refuses that, the granules are free
 * and hidden (arena.h).
 *
 * Each costs a mapping or two, of which a process may have 65,530: beyond FENCED_MAX there are
 * none, and from when the system refuses one on, nearly as few as there are then.
 */
#ifndef HMM_FENCE_H
#define HMM_FENCE_H

#include "arena.h"

/* NULL: no memory, or no room for another fence. The block's content is undefined; what lies before
 * it in its page, and behind it, is 0. */
HMM_HIDDEN void *hmm_fence_allocate(size_t alignment, size_t bytes);

/* The number of bytes from the start of the block's first page, and from its end to the fence. */
HMM_HIDDEN size_t hmm_fence_lead_bytes(const struct granule *first);
HMM_HIDDEN size_t hmm_fence_tail_bytes(const struct granule *first);

/* What a freed block holds while it waits: it goes to the system at once, or it stays as far as the
 * bound of purge.h lets it, so that the next block needs no fresh pages. */
enum fence_memory { FENCE_MEMORY_GOES, FENCE_MEMORY_STAYS };
HMM_HIDDEN void hmm_fence_free(struct granule *first, enum fence_memory memory);

/* A block of 0 bytes: its address is its own, and any access faults. NULL: no memory. */
HMM_HIDDEN void *hmm_fence_allocate_empty(size_t alignment);

/* Of a pointer into a granule of kind GRANULE_EMPTY. false: it is no such block, or free. */
HMM_HIDDEN bool hmm_fence_is_empty_block(const void *ptr);
HMM_HIDDEN HMM_MUST_USE bool hmm_fence_free_empty(void *ptr);

/* A granule that nobody can access, if that is to be had and there are fewer than so many: slabs
 * come and go, their fences stay until memory runs out. */
HMM_HIDDEN void hmm_fence_build(size_t count_max);

/* No more waits than may, as time passes. */
HMM_HIDDEN HMM_COLD void hmm_fence_settle(void);

/* What waits goes back at once. The second: and mappings are left for others, as far as there are
 * some to spare, and fences between what is free are taken down. */
HMM_HIDDEN void hmm_fence_flush(void);
HMM_HIDDEN void hmm_fence_yield(void);

/* fork(): the lock of those that wait. */
HMM_HIDDEN void hmm_fence_lock(void);
HMM_HIDDEN void hmm_fence_unlock(void);

#endif
