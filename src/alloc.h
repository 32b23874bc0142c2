/*
 * alloc.h - the front: malloc and free as every thread sees them.
 *
 * The fast paths are here, to be compiled into each door. They hold no test for options, statistics
 * or hardening: whatever must see every call leaves the bins empty, so that every call arrives in
 * the slow path by itself. That is also how the block engine runs behind the same doors: its bins
 * are never filled, and no pointer lies in an arena that was never opened. In libhmm-secure.so they
 * are those of guard_fast.h.
 *
 * What free looks at before it believes a pointer costs ten instructions and, in programs, no
 * time that can be measured (docs/security.md). HMM_FREE_CHECKS=0 leaves it out, for those who
 * want to measure.
 */
#ifndef HMM_ALLOC_H
#define HMM_ALLOC_H

#include "guard_fast.h"
#include "process.h"
#include "thread.h"

/* Everything that the fast paths do not do. Failing, they set errno as hmm.h says. */
HMM_HIDDEN void *hmm_alloc_slow(size_t bytes);
HMM_HIDDEN void *hmm_alloc_zeroed(size_t count, size_t bytes);
HMM_HIDDEN void *hmm_alloc_aligned(size_t alignment, size_t bytes);
HMM_HIDDEN void *hmm_alloc_resize(void *ptr, size_t bytes);
HMM_HIDDEN void *hmm_alloc_new(size_t alignment, size_t bytes, enum origin origin);
HMM_HIDDEN size_t hmm_alloc_usable(const void *ptr);
HMM_HIDDEN void hmm_free_slow(void *ptr);
HMM_HIDDEN void hmm_free_claimed(void *ptr, const struct claim *claim);
HMM_HIDDEN void hmm_free_event(struct granule *slab);

/* A pointer that is no slot of the slab, or one that is free or smaller than was claimed. Ends the
 * program. */
HMM_HIDDEN HMM_NORETURN void hmm_free_crime(const char *call, const struct granule *slab,
                                            const struct slot *slot, size_t claimed_bytes);

/* From now on so much may lie free, even if it is above the bound of purge.h. false: the engine has
 * no such bound. */
HMM_HIDDEN HMM_COLD bool hmm_alloc_keep(size_t bytes);

/* Gives back what exceeds the bound. Whether there is more that will when regret has
 * faded. Any thread. */
HMM_HIDDEN HMM_COLD bool hmm_alloc_scavenge(void);

/* Leaves of what address space is reserved no more than so much, and what is in use. Any thread. */
HMM_HIDDEN HMM_COLD void hmm_alloc_shrink_range(size_t bytes);

/* Gives back what lies free, but for `keep_bytes`. Whether there was something. */
HMM_HIDDEN HMM_COLD bool hmm_alloc_trim(size_t keep_bytes);

/* The first invariant of the fast engine that does not hold; NULL: all do, or it does not run. No
 * other thread may run. */
HMM_HIDDEN const char *hmm_alloc_audit(void);

/* A slot from the bin, NULL: it is empty. Requests up to SMALL_BYTES_MAX. */
static inline struct slot *bin_pop(unsigned size_class)
{
    struct slot *slot = hmm_thread.bins[size_class];
    if (LIKELY(slot != NULL)) {
        hmm_thread.bins[size_class] = slot->next;
        __builtin_prefetch(slot->next, 1); /* the next call would wait for it */
        if (HMM_FREE_CHECKS) {
            slot->mark = 0;
        }
    }
    return slot;
}

static inline void *alloc_fast(size_t bytes)
{
    if (HMM_SECURE) {
        void *ptr = guard_malloc_short(bytes, ORIGIN_MALLOC);
        return LIKELY(ptr != NULL) ? ptr : hmm_alloc_slow(bytes);
    }
    if (LIKELY(bytes <= SMALL_BYTES_MAX)) {
        struct slot *slot = bin_pop(class_of(bytes));
        if (LIKELY(slot != NULL)) {
            return slot;
        }
    }
    return hmm_alloc_slow(bytes);
}

/* false: nothing has happened, and it is a matter for the slow path. */
static HMM_INLINE bool free_try(void *ptr, const struct claim *claim)
{
    if (HMM_SECURE) {
        return guard_free_short(ptr, claim);
    }
    if (UNLIKELY(!arena_covers(ptr))) {
        return false;
    }
    struct granule *slab = granule_of(ptr);
    if (UNLIKELY(granule_owner(slab) != thread_pointer())) {
        return false;
    }
    struct slot *slot = ptr;
    if (HMM_FREE_CHECKS) {
        uintptr_t mark = slot_free_mark(slab, slot);
        if (UNLIKELY(!slab_is_slot(slab, slot) || slot->mark == mark ||
                     claim->bytes > slab->slot_bytes)) {
            hmm_free_crime(claim->call, slab, slot, claim->bytes);
        }
        slot->mark = mark;
    }
    slot->next = slab->free;
    slab->free = slot;
    if (UNLIKELY(--slab->need == 0)) {
        hmm_free_event(slab);
    }
    return true;
}

static inline void free_fast(void *ptr)
{
    static const struct claim claim = {.call = "free"};
    if (UNLIKELY(!free_try(ptr, &claim))) {
        hmm_free_slow(ptr);
    }
}

#endif
