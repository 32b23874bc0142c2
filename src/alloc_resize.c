/*
 * alloc_resize.c - realloc: in place where the room can, else into another block. See alloc.h.
 */
#include "alloc_room.h"
#include "large.h"
#include "medium.h"

enum {
    /* A block that shrinks below this share of itself moves to where smaller ones are. */
    SHRINK_SHARE = 2,
    /* A block that grows by less than this share of itself is given as much:
     * docs/experiments.md. */
    GROWTH_SHARE = 8,
};

/* Whether a block of so many bytes need not leave the slot. */
static inline bool slot_suffices(const struct granule *slab, size_t bytes)
{
    size_t slot_bytes = slab->slot_bytes;
    return bytes <= slot_bytes &&
           (bytes > slot_bytes / SHRINK_SHARE || class_of(bytes) == slab_class(slab));
}

/* The block with another size without a copy, NULL: that cannot be. *old_bytes is its size, or 0
 * where nobody has looked. It is no slot. */
static void *resize_in_place(void *ptr, size_t bytes, size_t *old_bytes)
{
    struct crime crime;
    crime_clear(&crime);
    void *resized = NULL;
    *old_bytes = 0;
    switch (granule_kind(granule_of(ptr))) {
    case GRANULE_ZONE:
        if (bytes > SMALL_BYTES_MAX / SHRINK_SHARE && bytes <= MEDIUM_BYTES_MAX &&
            hmm_medium_resize(ptr, bytes, old_bytes, &crime)) {
            resized = ptr;
        }
        break;
    case GRANULE_LARGE:
        if (bytes > MEDIUM_BYTES_MAX / SHRINK_SHARE) {
            resized = hmm_large_resize(ptr, bytes, old_bytes, &crime);
        }
        break;
    default:
        hmm_alloc_granule_crime("realloc", "freed block", ptr);
    }
    if (UNLIKELY(crime.what != NULL)) {
        hmm_handle_accuse(NULL, "realloc", ptr, &crime);
    }
    return resized;
}

/* Another block for one that has to move. */
static void *allocate_away(size_t bytes)
{
    return hmm_alloc_for(&(struct request){
        .call = "realloc", .alignment = SLOT_UNIT_BYTES, .bytes = bytes, .origin = ORIGIN_MALLOC});
}

static void *guarded_resize(void *ptr, size_t bytes)
{
    static const struct claim claim = {.call = "realloc"};
    size_t old_bytes;
    if (bytes > OBJECT_BYTES_MAX) {
        (void)hmm_guard_usable(claim.call, ptr);
        errno = ENOMEM;
        return NULL;
    }
    void *resized = hmm_guard_resize(ptr, bytes, &claim, &old_bytes);
    if (resized != NULL) {
        return resized;
    }
    void *moved = hmm_guard_large_allocate_roomy(bytes, old_bytes, ORIGIN_MALLOC);
    if (moved == NULL) {
        moved = allocate_away(bytes);
    }
    if (moved != NULL) {
        memcpy(moved, ptr, size_min(old_bytes, bytes));
        hmm_guard_free(ptr, &claim);
    }
    return moved;
}

static void *allocate_moved(size_t bytes)
{
    return bytes <= MEDIUM_BYTES_MAX ? alloc_fast(bytes) : allocate_away(bytes);
}

/* What a block that has to move asks for: one that grows by little will grow again. Above, pages
 * move and not their content. */
static size_t moved_bytes(size_t bytes, size_t old_bytes)
{
    size_t roomy_bytes = old_bytes + old_bytes / GROWTH_SHARE;
    bool is_growing = bytes > old_bytes && bytes < roomy_bytes;
    return is_growing && roomy_bytes <= MEDIUM_BYTES_MAX ? roomy_bytes : bytes;
}

/* Not inlined, like the other ways out of hmm_alloc_resize: a slot that suffices needs no frame. */
static HMM_NOINLINE void *resize_by_moving(void *ptr, size_t bytes, size_t old_bytes)
{
    size_t roomy_bytes = moved_bytes(bytes, old_bytes);
    int saved_errno = errno;
    void *moved = allocate_moved(roomy_bytes);
    if (moved == NULL && roomy_bytes > bytes) {
        errno = saved_errno;
        moved = allocate_moved(bytes);
    }
    if (moved != NULL) {
        memcpy(moved, ptr, size_min(old_bytes, bytes));
        free_fast(ptr);
    }
    return moved;
}

/* A block in the arena that is no slot. */
static HMM_NOINLINE void *resize_run(void *ptr, size_t bytes)
{
    size_t old_bytes;
    void *resized = resize_in_place(ptr, bytes, &old_bytes);
    if (resized != NULL) {
        return resized;
    }
    old_bytes = old_bytes != 0 ? old_bytes : hmm_alloc_usable_inside("realloc", ptr);
    return resize_by_moving(ptr, bytes, old_bytes);
}

/* A block in the arena. */
static inline void *resize_inside(void *ptr, size_t bytes)
{
    const struct granule *slab = granule_of(ptr);
    if (granule_kind(slab) != GRANULE_SLAB) {
        return resize_run(ptr, bytes);
    }
    (void)slab_check("realloc", ptr);
    return slot_suffices(slab, bytes) ? ptr : resize_by_moving(ptr, bytes, slab->slot_bytes);
}

static HMM_NOINLINE void *resize_elsewhere(void *ptr, size_t bytes)
{
    if (ptr == NULL) {
        return alloc_fast(bytes);
    }
    if (bytes == 0) {
        free_fast(ptr);
        return NULL;
    }
    if (arena_covers(ptr)) {
        if (guard_is_on()) {
            return guarded_resize(ptr, bytes);
        }
        (void)hmm_alloc_usable_inside("realloc", ptr);
        errno = ENOMEM; /* no object is as large */
        return NULL;
    }
    HmmHeap *heap = block_heap_of();
    if (heap == NULL) {
        hmm_alloc_accuse("realloc", ptr, "not a heap pointer");
    }
    return hmm_handle_resize(heap, "realloc", ptr, bytes);
}

void *hmm_alloc_resize(void *ptr, size_t bytes)
{
    return LIKELY(arena_covers(ptr) && bytes - 1 < OBJECT_BYTES_MAX && !guard_is_on())
               ? resize_inside(ptr, bytes)
               : resize_elsewhere(ptr, bytes);
}
