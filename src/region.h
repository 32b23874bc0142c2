/*
 * region.h - a range of addresses with a movable break.
 *
 *     base        first                  brk                       limit
 *      |  headers  |  blocks, tiled         |  not ours yet            |
 *
 * The three kinds, one file each, differ in what stands behind the break: the program break of the
 * process (region_sbrk.c), a reserved range of address space (region_reserve.c), or plain memory
 * that somebody gave (region_array.c: no operating system needed). All that a heap asks of them is
 * to grow, to shrink, and where the break is.
 *
 * E1  base <= first < brk <= limit; all but first are multiples of REGION_ALIGN_BYTES.
 * E2  [base, brk) is readable and writable, and the heap's own, but for gaps that region_sbrk
 *     reports when it grows.
 * E3  Growing and shrinking either happen whole or change nothing.
 *
 * A region's fields are guarded by the lock of the heap that it belongs to.
 */
#ifndef HMM_REGION_H
#define HMM_REGION_H

#include "base.h"

/* The unit of a block heap: payloads lie at its multiples. */
#define REGION_ALIGN_BYTES (2 * sizeof(uintptr_t))

struct region;

struct region_ops {
    /* Moves the break up by `wanted_bytes` if that can be, by at least `least_bytes` else. Returns
     * where the new memory starts: at the old break, or above it where others took memory in
     * between; it ends at the new break. 0: the break did not move. */
    uintptr_t (*grow)(struct region *region, size_t least_bytes, size_t wanted_bytes);
    /* Moves the break down to `brk` or, where that cannot be, less far or not at all. */
    void (*shrink)(struct region *region, uintptr_t brk);
    /* Before the memory at the break is looked at. Returns the address from which on content was
     * lost and is zero now, because somebody had moved the break down; 0: nothing was lost. */
    uintptr_t (*recover)(struct region *region);
    /* Ends the region. The struct may lie inside it. */
    void (*release)(struct region *region);
};

struct region {
    const struct region_ops *ops; /* immutable after init, like base */
    uintptr_t base;
    /* UINTPTR_MAX aligned down: as far as the system lets it; may come down to brk */
    uintptr_t limit;
    uintptr_t brk;
    struct region *next;  /* the heap's next region, NULL: the last */
    uintptr_t first;      /* the heap's first tag in it, 0: no blocks yet */
    size_t gap_bytes;     /* memory of others below the break */
    bool gives_back;      /* shrinking is worth while: it returns memory to the system */
    bool goes_when_empty; /* the heap ends it once all of it is free */
    bool grows_by_zero;   /* what it grows by is 0 */
    uintptr_t fresh;      /* nobody has ever had what lies from here on; kept by guarded heaps */
};

/* The first address that is not the struct's. */
static inline uintptr_t hmm_region_start(const struct region *region)
{
    bool is_inside = (uintptr_t)region == region->base;
    return region->base + (is_inside ? align_up(sizeof *region, REGION_ALIGN_BYTES) : 0);
}

/* Sees to it that `bytes` from *start on lie below the break. *start, at or below the break, moves
 * up where others took memory first. */
static inline HMM_MUST_USE bool hmm_region_ensure(struct region *region, uintptr_t *start,
                                                  size_t bytes)
{
    uintptr_t brk = region->brk;
    if (brk - *start >= bytes) {
        return true;
    }
    size_t missing_bytes = bytes - (brk - *start);
    uintptr_t got = region->ops->grow(region, missing_bytes, missing_bytes);
    if (got != 0 && got != brk) {
        *start = got;
    }
    return got != 0 && region->brk - *start >= bytes;
}

/* For regions whose break is nobody else's. */
HMM_HIDDEN uintptr_t hmm_region_recover_nothing(struct region *region);

/* Whether it is the program break, which others move too, and whose limit is nobody's promise. */
static inline bool region_is_shared(const struct region *region)
{
    return region->ops->recover != hmm_region_recover_nothing;
}

/* How an array's break moves; ground_array.c builds on it. */
HMM_HIDDEN uintptr_t hmm_region_array_grow(struct region *region, size_t least_bytes,
                                           size_t wanted_bytes);
HMM_HIDDEN void hmm_region_array_shrink(struct region *region, uintptr_t brk);

/* A region inside `memory`, the struct at its start. NULL iff the memory is NULL, misaligned, wraps
 * or has no room for the struct. The memory must outlive the region. */
HMM_HIDDEN struct region *hmm_region_array_init(void *memory, size_t memory_bytes);

/* A region on `limit_bytes` of reserved address space, the struct at its start. NULL iff the system
 * has not that much to give. */
HMM_HIDDEN struct region *hmm_region_reserve_create(size_t limit_bytes);

/* Leaves no more than `bytes` of it reserved, and what is below the break. A region of another kind
 * stays as it is. */
HMM_HIDDEN HMM_COLD void hmm_region_reserve_shrink(struct region *region, size_t bytes);

/* As much as the system agrees to: halved from `wanted_bytes` on until it does, and once more then,
 * so that a tight limit leaves room for others. At least `least_bytes`, else NULL. */
HMM_HIDDEN struct region *hmm_region_reserve_largest(size_t least_bytes, size_t wanted_bytes);

/* The region of the program break. There is one; it is never released. */
HMM_HIDDEN struct region *hmm_region_sbrk(void);

#endif
