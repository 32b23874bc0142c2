/*
 * alloc_free.c - from an untrusted pointer to the room that it belongs to: free, and how much of a
 * block may be used. See alloc.h.
 */
#include "alloc_room.h"
#include "large.h"
#include "medium.h"
#include "purge.h"

/* --------------------------------------------------------------------------------------- crimes */

void hmm_alloc_accuse(const char *call, const void *ptr, const char *what)
{
    hmm_handle_accuse(NULL, call, ptr, &(struct crime){.what = what});
}

/* Of a pointer into a slab, which is no slot in use. */
static struct crime slab_crime(const char *what_if_free, const struct granule *slab,
                               const void *ptr)
{
    size_t slot_bytes = class_bytes(slab_class(slab));
    size_t slot_index = ((uintptr_t)ptr - granule_start(slab)) / slot_bytes;
    return (struct crime){.what = slab_is_slot(slab, ptr) ? what_if_free
                                  : slot_index < slab_carved(slab)
                                      ? "invalid pointer, inside a block"
                                      : "invalid pointer, in no block",
                          .slab = granule_start(slab),
                          .slot_bytes = slot_bytes,
                          .slot_index = slot_index};
}

void hmm_alloc_freed_crime(const char *call, const struct granule *slab, const void *ptr)
{
    struct crime crime = slab_crime("freed block", slab, ptr);
    hmm_handle_accuse(NULL, call, ptr, &crime);
}

void hmm_free_crime(const char *call, const struct granule *slab, const struct slot *slot,
                    size_t claimed_bytes)
{
    struct crime crime = slab_crime("double free", slab, slot);
    if (is_used_slot(slab, slot)) {
        crime.what = "wrong size";
        crime.has_sizes = true;
        crime.claimed = claimed_bytes;
        crime.known = crime.slot_bytes;
    }
    hmm_handle_accuse(NULL, call, slot, &crime);
}

/* What was there before may still be written in its descriptor. */
void hmm_alloc_granule_crime(const char *call, const char *what_if_free, const void *ptr)
{
    const struct granule *granule = granule_of(ptr);
    bool was_slot = granule->index_factor != 0 && slab_is_slot(granule, ptr);
    bool was_run = granule->run.start == (uintptr_t)ptr;
    hmm_alloc_accuse(call, ptr,
                     was_slot || was_run ? what_if_free : "invalid pointer, in no block");
}

/* -------------------------------------------------------------------------------------- freeing */

static void free_remote(const char *call, struct granule *slab, struct slot *slot)
{
    if (HMM_FREE_CHECKS && UNLIKELY(!is_used_slot(slab, slot))) {
        hmm_free_crime(call, slab, slot, 0);
    }
    slot->mark = slot_free_mark(slab, slot);
    hmm_thread_free_remote(hmm_thread.thread, slab, slot);
}

void hmm_free_event(struct granule *slab)
{
    hmm_thread_slab_event(hmm_thread.thread, slab);
}

static void free_outside(void *ptr, const struct claim *claim)
{
    HmmHeap *heap = block_heap_of();
    if (heap == NULL) {
        hmm_alloc_accuse(claim->call, ptr, "not a heap pointer");
    }
    hmm_handle_free(heap, ptr, claim);
}

/* After a block that is no slot has gone: more may be too much than larger blocks had. */
static void purge_slabs_if_behind(void)
{
    if (UNLIKELY(atomic_load_explicit(&hmm_purge_is_behind, memory_order_relaxed))) {
        atomic_store_explicit(&hmm_purge_is_behind, false, memory_order_relaxed);
        hmm_thread_purge_excess(hmm_thread.thread);
    }
}

/* A pointer into the arena, which is not guarded. */
static void free_inside(const char *call, void *ptr)
{
    struct crime crime;
    crime_clear(&crime);
    bool is_done = true;
    switch (granule_kind(granule_of(ptr))) {
    case GRANULE_SLAB:
        free_remote(call, granule_of(ptr), ptr);
        break;
    case GRANULE_ZONE:
        is_done = hmm_medium_free(ptr, &crime);
        purge_slabs_if_behind();
        break;
    case GRANULE_LARGE:
        is_done = hmm_large_free(ptr, &crime);
        hmm_medium_purge_excess(ZONES_BYTES_WITH_LARGE);
        purge_slabs_if_behind();
        break;
    default:
        hmm_alloc_granule_crime(call, "double free", ptr);
    }
    if (UNLIKELY(!is_done)) {
        hmm_handle_accuse(NULL, call, ptr, &crime);
    }
}

void hmm_free_claimed(void *ptr, const struct claim *claim)
{
    if (ptr == NULL) {
        return;
    }
    if (!arena_covers(ptr)) {
        free_outside(ptr, claim);
    } else if (guard_is_on()) {
        hmm_guard_free(ptr, claim);
        purge_slabs_if_behind();
    } else {
        free_inside(claim->call, ptr);
    }
}

void hmm_free_slow(void *ptr)
{
    if (LIKELY(arena_covers(ptr) && !guard_is_on())) {
        free_inside("free", ptr);
        return;
    }
    static const struct claim claim = {.call = "free"};
    hmm_free_claimed(ptr, &claim);
}

/* ---------------------------------------------------------------------------------- usable size */

size_t hmm_alloc_usable_inside(const char *call, const void *ptr)
{
    struct crime crime;
    crime_clear(&crime);
    size_t usable_bytes = 0;
    bool is_done = true;
    switch (granule_kind(granule_of(ptr))) {
    case GRANULE_SLAB:
        return class_bytes(slab_class(slab_check(call, ptr)));
    case GRANULE_ZONE:
        is_done = hmm_medium_usable(ptr, &usable_bytes, &crime);
        break;
    case GRANULE_LARGE:
        is_done = hmm_large_usable(ptr, &usable_bytes, &crime);
        break;
    default:
        hmm_alloc_granule_crime(call, "freed block", ptr);
    }
    if (UNLIKELY(!is_done)) {
        hmm_handle_accuse(NULL, call, ptr, &crime);
    }
    return usable_bytes;
}

static HMM_NOINLINE size_t usable_outside(const void *ptr)
{
    HmmHeap *heap = block_heap_of();
    if (heap == NULL) {
        hmm_alloc_accuse("malloc_usable_size", ptr, "not a heap pointer");
    }
    return hmm_handle_usable(heap, "malloc_usable_size", ptr);
}

size_t hmm_alloc_usable(const void *ptr)
{
    if (UNLIKELY(!arena_covers(ptr))) {
        return usable_outside(ptr);
    }
    return guard_is_on() ? hmm_guard_usable("malloc_usable_size", ptr)
                         : hmm_alloc_usable_inside("malloc_usable_size", ptr);
}
