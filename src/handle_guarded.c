/*
 * handle_guarded.c - lock, look at crimes, errno: for hardened heaps. See handle_guarded.h.
 */
#include "handle_guarded.h"

static inline void handle_check(const HmmHeap *handle, const char *call, const void *ptr)
{
    if (UNLIKELY(!handle_is_guarded(handle))) {
        hmm_handle_check(handle, call, ptr);
    }
}

static bool handle_has_records(const HmmHeap *handle)
{
    return guard_has_records(handle_guard(handle));
}

/* From here on each call is there twice: where sites are kept, and where the site is 0. It is asked
 * for before the lock is taken: that may allocate, the first time. */

/* What there is, what is held back, and what the system adds to it. NULL: the owner may make
 * room. */
static HMM_INLINE void *guarded_allocate_now(uint32_t site, HmmHeap *handle, const char *call,
                                             size_t alignment, size_t bytes, enum origin origin)
{
    bool has_grown;
    void *ptr;
    do {
        struct crime crime;
        crime_clear(&crime);
        hmm_handle_lock(handle);
        ptr = hmm_heap_guard_allocate(&handle->heap, handle_guard(handle), alignment, bytes, origin,
                                      &crime);
        if (site != 0 && ptr != NULL) {
            hmm_heap_guard_note_site(handle_guard(handle), ptr, site);
        }
        has_grown = UNLIKELY(ptr == NULL) && crime.what == NULL &&
                    hmm_handle_grow(handle, alignment, bytes);
        hmm_handle_unlock(handle);
        hmm_handle_judge(handle, call, NULL, &crime);
    } while (has_grown);
    return ptr;
}

static HMM_INLINE void *allocate_from(uint32_t site, HmmHeap *handle, const char *call,
                                      size_t alignment, size_t bytes, enum origin origin)
{
    do {
        void *ptr = guarded_allocate_now(site, handle, call, alignment, bytes, origin);
        if (LIKELY(ptr != NULL)) {
            return ptr;
        }
    } while (hmm_handle_make_room(handle, alignment, bytes));
    return hmm_handle_fail(handle, bytes);
}

static HMM_COLD void *allocate_recorded(HmmHeap *handle, const char *call, size_t alignment,
                                        size_t bytes, enum origin origin)
{
    return allocate_from(hmm_handle_site(), handle, call, alignment, bytes, origin);
}

void *hmm_guarded_allocate(HmmHeap *handle, const char *call, size_t alignment, size_t bytes,
                           enum origin origin)
{
    handle_check(handle, call, NULL);
    return handle_has_records(handle) ? allocate_recorded(handle, call, alignment, bytes, origin)
                                      : allocate_from(0, handle, call, alignment, bytes, origin);
}

static HMM_INLINE void *guarded_resize_in_place(uint32_t site, HmmHeap *handle, const char *call,
                                                void *ptr, size_t bytes, size_t *old_bytes)
{
    struct crime crime;
    crime_clear(&crime);
    hmm_handle_lock(handle);
    void *resized =
        hmm_heap_guard_resize(&handle->heap, handle_guard(handle), ptr, bytes, old_bytes, &crime);
    if (site != 0 && resized != NULL) {
        hmm_heap_guard_note_site(handle_guard(handle), resized, site);
    }
    hmm_handle_unlock(handle);
    hmm_handle_judge(handle, call, ptr, &crime);
    return resized;
}

static HMM_INLINE void *guarded_resize_now(uint32_t site, HmmHeap *handle, const char *call,
                                           void *ptr, size_t bytes)
{
    size_t old_bytes = 0;
    void *resized = guarded_resize_in_place(site, handle, call, ptr, bytes, &old_bytes);
    if (LIKELY(resized != NULL)) {
        return resized;
    }
    void *moved = guarded_allocate_now(site, handle, call, BLOCK_UNIT_BYTES, bytes, ORIGIN_MALLOC);
    if (LIKELY(moved != NULL)) {
        memcpy(moved, ptr, size_min(old_bytes, bytes));
        hmm_guarded_free(handle, ptr, &(struct claim){.call = call});
    }
    return moved;
}

/* A look for a new block that finds no room puts to use what is held back, perhaps around the old
 * one: hence the second look. */
static HMM_INLINE void *resize_from(uint32_t site, HmmHeap *handle, const char *call, void *ptr,
                                    size_t bytes)
{
    do {
        for (int looks = 0; looks < 2; looks++) {
            void *resized = guarded_resize_now(site, handle, call, ptr, bytes);
            if (LIKELY(resized != NULL)) {
                return resized;
            }
        }
    } while (hmm_handle_make_room(handle, BLOCK_UNIT_BYTES, bytes));
    return hmm_handle_fail(handle, bytes);
}

static HMM_COLD void *resize_recorded(HmmHeap *handle, const char *call, void *ptr, size_t bytes)
{
    return resize_from(hmm_handle_site(), handle, call, ptr, bytes);
}

void *hmm_guarded_resize(HmmHeap *handle, const char *call, void *ptr, size_t bytes)
{
    handle_check(handle, call, ptr);
    return handle_has_records(handle) ? resize_recorded(handle, call, ptr, bytes)
                                      : resize_from(0, handle, call, ptr, bytes);
}

static bool free_try(HmmHeap *handle, void *ptr, const struct claim *claim, struct crime *crime)
{
    crime_clear(crime);
    hmm_handle_lock(handle);
    bool is_done = hmm_heap_guard_free(&handle->heap, handle_guard(handle), ptr, claim, crime);
    hmm_handle_unlock(handle);
    return is_done;
}

/* Of a claim that is not right: whether it need not be, and the block is free. */
static HMM_COLD bool free_excused(HmmHeap *handle, void *ptr, struct claim claim,
                                  struct crime *crime)
{
    const bool is_other_maker = crime->maker != NULL;
    claim.is_waived = (is_other_maker || crime->has_sizes) && hmm_handle_ignores_claims();
    claim.is_excused = is_other_maker && hmm_handle_has_mixed_operators();
    return (claim.is_waived || claim.is_excused) && free_try(handle, ptr, &claim, crime);
}

static inline void free_claimed(HmmHeap *handle, void *ptr, const struct claim *claim)
{
    struct crime crime;
    if (UNLIKELY(!free_try(handle, ptr, claim, &crime) &&
                 !free_excused(handle, ptr, *claim, &crime))) {
        hmm_handle_judge(handle, claim->call, ptr, &crime);
    }
}

static HMM_COLD void free_recorded(HmmHeap *handle, void *ptr, struct claim claim)
{
    claim.site = hmm_handle_site();
    free_claimed(handle, ptr, &claim);
}

void hmm_guarded_free(HmmHeap *handle, void *ptr, const struct claim *claim)
{
    handle_check(handle, claim->call, ptr);
    if (ptr == NULL) {
        return;
    }
    if (handle_has_records(handle)) {
        free_recorded(handle, ptr, *claim);
    } else {
        free_claimed(handle, ptr, claim);
    }
}

size_t hmm_guarded_usable(const HmmHeap *handle, const char *call, const void *ptr)
{
    handle_check(handle, call, ptr);
    if (ptr == NULL) {
        return 0;
    }
    struct crime crime;
    crime_clear(&crime);
    size_t usable_bytes = 0;
    hmm_handle_lock_to_read(handle);
    bool is_done = hmm_heap_guard_usable((struct heap *)&handle->heap, handle_guard(handle), ptr,
                                         &usable_bytes, &crime);
    hmm_handle_unlock_read(handle);
    if (UNLIKELY(!is_done)) {
        hmm_handle_judge(handle, call, ptr, &crime);
    }
    return usable_bytes;
}

/* What is held back goes on its way first; or what was done to it is said. */
void hmm_guarded_get_stats(HmmHeap *handle, HmmHeapStats *stats)
{
    struct crime crime;
    crime_clear(&crime);
    hmm_handle_lock(handle);
    bool is_done = hmm_heap_recover(&handle->heap, &crime) &&
                   hmm_heap_guard_flush(&handle->heap, handle_guard(handle), &crime);
    hmm_heap_guard_get_stats(&handle->heap, handle_guard(handle), stats);
    hmm_handle_unlock(handle);
    if (!is_done) {
        hmm_handle_judge(handle, "HmmHeapGetStats", NULL, &crime);
    }
}
