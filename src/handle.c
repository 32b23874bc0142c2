/*
 * handle.c - what stands between the doors and a block heap. See handle.h.
 */
#include "handle.h"
#include "handle_guarded.h"

#if UINTPTR_MAX > UINT32_MAX
static_assert(offsetof(HmmHeapOptions, lock) == 16, "hardening lies where there was padding");
#endif

/* A handle that is none: never made, or destroyed. */
void hmm_handle_check(const HmmHeap *handle, const char *call, const void *ptr)
{
    if (UNLIKELY(!handle_is_plain(handle) && !handle_is_guarded(handle))) {
        bool is_dead = handle != NULL && handle->magic == HANDLE_MAGIC_DEAD;
        hmm_fatal(call, ptr, &(struct crime){.what = is_dead ? "heap was destroyed" : "not a heap"},
                  handle);
    }
}

void hmm_handle_accuse(const HmmHeap *handle, const char *call, const void *ptr,
                       struct crime *crime)
{
    if (crime->at == 0 && ptr != NULL) {
        const HmmHeap *owner = hmm_handle_owner(ptr);
        if (owner != NULL && owner != handle) {
            crime->what = "pointer of another heap";
            crime->owner = owner;
        }
    }
    hmm_fatal(call, crime->accused != NULL ? crime->accused : ptr, crime, handle);
}

/* Reading takes the lock too, and may have to take the end of the heap back first. */
static void handle_begin_reading(const HmmHeap *handle, const char *call)
{
    struct crime crime;
    crime_clear(&crime);
    hmm_handle_lock_to_read(handle);
    if (UNLIKELY(!hmm_heap_recover((struct heap *)&handle->heap, &crime))) {
        hmm_handle_unlock_read(handle);
        hmm_handle_judge(handle, call, NULL, &crime);
    }
}

bool hmm_handle_can_open(const HmmHeapOptions *options)
{
    return options == NULL || ((unsigned)options->fit <= HMM_FIT_BEST &&
                               (unsigned)options->integrity <= HMM_INTEGRITY_FULL &&
                               (unsigned)options->hardening <= HMM_HARDENING_QUARANTINE &&
                               (options->lock == NULL) == (options->unlock == NULL));
}

static enum handle_locking options_locking(const HmmHeapOptions *options)
{
    if (options->unlocked) {
        return HANDLE_UNLOCKED;
    }
    return options->lock != NULL ? HANDLE_LOCK_CALLER : HANDLE_LOCK_OWN;
}

static HmmHardening heap_hardening(const HmmHeapOptions *options)
{
    return options->hardening != HMM_HARDENING_PROCESS ? options->hardening
                                                       : hmm_handle_hardening();
}

/* What a block of one byte takes. */
static size_t smallest_block_bytes(const HmmHeap *handle, bool is_guarded)
{
    return is_guarded ? hmm_heap_guard_block_bytes(handle_guard(handle), 1) : block_bytes_for(1);
}

HmmHeap *hmm_handle_open(struct region *region, const HmmHeapOptions *options,
                         const struct heap_grant *grant, enum lock_rank rank)
{
    const struct heap_grant no_bounds = {.quota_bytes = SIZE_MAX};
    const HmmHeapOptions defaults = {0};
    options = options != NULL ? options : &defaults;
    uintptr_t start = hmm_region_start(region);
    grant = grant != NULL ? grant : &no_bounds;
    if (!hmm_handle_can_open(options)) {
        return NULL;
    }
    const HmmHardening level = heap_hardening(options);
    size_t capacity_bytes = size_min(region->limit - region->base, grant->quota_bytes);
    size_t header_bytes = handle_header_bytes(level, capacity_bytes);
    if (!hmm_region_ensure(region, &start, header_bytes)) {
        return NULL;
    }
    HmmHeap *handle = (HmmHeap *)start;
    *handle = (HmmHeap){
        .locking = options_locking(options),
        .lock_take = options->lock,
        .lock_give = options->unlock,
        .on_full = options->on_full,
        .context = options->context,
    };
    hmm_lock_init(&handle->lock, rank);
    hmm_heap_init(&handle->heap, options->fit, options->integrity, *grant,
                  hmm_handle_secret(handle));
    if (level != HMM_HARDENING_NONE) {
        const uint64_t secrets[] = {hmm_handle_secret(handle), hmm_handle_secret(handle)};
        hmm_heap_guard_init(&handle->heap, handle_guard(handle), level, capacity_bytes, secrets,
                            RECORDS_CAN_BE && hmm_handle_has_sites() ? HEAP_RECORDS_KEPT
                                                                     : HEAP_RECORDS_NONE);
    }
    if (!hmm_heap_add(&handle->heap, region, start + header_bytes,
                      smallest_block_bytes(handle, level != HMM_HARDENING_NONE))) {
        return NULL;
    }
    handle->magic = level == HMM_HARDENING_NONE ? HANDLE_MAGIC : HANDLE_MAGIC_GUARDED;
    return handle;
}

/* How much room such a block may need, 0: it can never be had. One of 0 bytes needs some, too. */
static size_t needed_bytes_for(size_t alignment, size_t bytes)
{
    size_t needed_bytes;
    bytes = size_max(bytes, 1);
    return block_bytes_for(bytes) != 0 &&
                   size_add(bytes, alignment > BLOCK_UNIT_BYTES ? alignment : 0, &needed_bytes)
               ? needed_bytes
               : 0;
}

bool hmm_handle_grow(HmmHeap *handle, size_t alignment, size_t bytes)
{
    size_t needed_bytes = needed_bytes_for(alignment, bytes);
    return needed_bytes != 0 && handle->add_range != NULL &&
           handle->add_range(handle, needed_bytes);
}

bool hmm_handle_make_room(HmmHeap *handle, size_t alignment, size_t bytes)
{
    size_t needed_bytes = needed_bytes_for(alignment, bytes);
    return needed_bytes != 0 && handle->on_full != NULL &&
           handle->on_full(handle, needed_bytes, handle->context);
}

void *hmm_handle_fail(HmmHeap *handle, size_t bytes)
{
    hmm_handle_lock(handle);
    hmm_heap_count_failure(&handle->heap, bytes);
    hmm_handle_unlock(handle);
    hmm_set_errno(ENOMEM);
    return NULL;
}

/* What there is, and what the system adds to it. NULL: the owner may make room. */
static HMM_INLINE void *handle_allocate_now(HmmHeap *handle, const char *call, size_t alignment,
                                            size_t bytes)
{
    bool has_grown;
    void *ptr;
    do {
        struct crime crime;
        crime_clear(&crime);
        hmm_handle_lock(handle);
        ptr = hmm_heap_allocate(&handle->heap, alignment, bytes, &crime);
        has_grown = UNLIKELY(ptr == NULL) && crime.what == NULL &&
                    hmm_handle_grow(handle, alignment, bytes);
        hmm_handle_unlock(handle);
        hmm_handle_judge(handle, call, NULL, &crime);
    } while (has_grown);
    return ptr;
}

void *hmm_handle_allocate(HmmHeap *handle, const char *call, size_t alignment, size_t bytes)
{
    if (UNLIKELY(!handle_is_plain(handle))) {
        return hmm_guarded_allocate(handle, call, alignment, bytes, ORIGIN_MALLOC);
    }
    do {
        void *ptr = handle_allocate_now(handle, call, alignment, bytes);
        if (LIKELY(ptr != NULL)) {
            return ptr;
        }
    } while (hmm_handle_make_room(handle, alignment, bytes));
    return hmm_handle_fail(handle, bytes);
}

void *hmm_handle_allocate_as(HmmHeap *handle, const char *call, size_t alignment, size_t bytes,
                             enum origin origin)
{
    return handle_is_plain(handle) ? hmm_handle_allocate(handle, call, alignment, bytes)
                                   : hmm_guarded_allocate(handle, call, alignment, bytes, origin);
}

void *hmm_handle_zeroed(HmmHeap *handle, const char *call, size_t count, size_t bytes)
{
    size_t total_bytes;
    if (!size_multiply(count, bytes, &total_bytes)) {
        total_bytes = SIZE_MAX;
    }
    void *ptr = hmm_handle_allocate(handle, call, BLOCK_UNIT_BYTES, total_bytes);
    return ptr != NULL && handle_is_plain(handle) ? memset(ptr, 0, total_bytes) : ptr;
}

static void *handle_resize_in_place(HmmHeap *handle, const char *call, void *ptr, size_t bytes,
                                    size_t *old_bytes)
{
    struct crime crime;
    crime_clear(&crime);
    hmm_handle_lock(handle);
    void *resized = hmm_heap_resize(&handle->heap, ptr, bytes, old_bytes, &crime);
    hmm_handle_unlock(handle);
    hmm_handle_judge(handle, call, ptr, &crime);
    return resized;
}

void *hmm_handle_resize(HmmHeap *handle, const char *call, void *ptr, size_t bytes)
{
    if (ptr == NULL) {
        return hmm_handle_allocate(handle, call, BLOCK_UNIT_BYTES, bytes);
    }
    if (bytes == 0) {
        hmm_handle_free(handle, ptr, &(struct claim){.call = call});
        return NULL;
    }
    if (UNLIKELY(!handle_is_plain(handle))) {
        return hmm_guarded_resize(handle, call, ptr, bytes);
    }
    do { /* room may have been made around the block, too */
        size_t old_bytes = 0;
        void *resized = handle_resize_in_place(handle, call, ptr, bytes, &old_bytes);
        if (resized != NULL) {
            return resized;
        }
        void *moved = handle_allocate_now(handle, call, BLOCK_UNIT_BYTES, bytes);
        if (moved != NULL) {
            memcpy(moved, ptr, size_min(old_bytes, bytes));
            hmm_handle_free(handle, ptr, &(struct claim){.call = call});
            return moved;
        }
    } while (hmm_handle_make_room(handle, BLOCK_UNIT_BYTES, bytes));
    return hmm_handle_fail(handle, bytes);
}

void hmm_handle_free(HmmHeap *handle, void *ptr, const struct claim *claim)
{
    if (UNLIKELY(!handle_is_plain(handle))) {
        hmm_guarded_free(handle, ptr, claim);
        return;
    }
    if (ptr == NULL) {
        return;
    }
    struct crime crime;
    crime_clear(&crime);
    hmm_handle_lock(handle);
    bool is_done = hmm_heap_free(&handle->heap, ptr, &crime);
    hmm_handle_unlock(handle);
    if (UNLIKELY(!is_done)) {
        hmm_handle_judge(handle, claim->call, ptr, &crime);
    }
}

size_t hmm_handle_usable(const HmmHeap *handle, const char *call, const void *ptr)
{
    if (UNLIKELY(!handle_is_plain(handle))) {
        return hmm_guarded_usable(handle, call, ptr);
    }
    if (ptr == NULL) {
        return 0;
    }
    struct crime crime;
    crime_clear(&crime);
    size_t usable_bytes = 0;
    handle_begin_reading(handle, call);
    bool is_done = hmm_heap_usable(&handle->heap, ptr, &usable_bytes, &crime);
    hmm_handle_unlock_read(handle);
    if (UNLIKELY(!is_done)) {
        hmm_handle_judge(handle, call, ptr, &crime);
    }
    return usable_bytes;
}

bool hmm_handle_trim(HmmHeap *handle, const char *call, size_t keep_bytes)
{
    struct crime crime;
    crime_clear(&crime);
    hmm_handle_lock(handle);
    bool has_moved =
        handle_is_guarded(handle)
            ? hmm_heap_guard_trim(&handle->heap, handle_guard(handle), keep_bytes, &crime)
            : hmm_heap_trim(&handle->heap, keep_bytes, &crime);
    hmm_handle_unlock(handle);
    hmm_handle_judge(handle, call, NULL, &crime);
    return has_moved;
}

bool hmm_handle_covers(HmmHeap *handle, const void *ptr)
{
    if (handle->locking == HANDLE_LOCK_CALLER ||
        (handle->locking == HANDLE_LOCK_OWN && !hmm_lock_try(&handle->lock))) {
        return false;
    }
    bool is_covered = heap_region_of(&handle->heap, (uintptr_t)ptr) != NULL;
    if (handle->locking == HANDLE_LOCK_OWN) {
        hmm_lock_release(&handle->lock);
    }
    return is_covered;
}

/* --------------------------------------------------------------- the calls that hmm.h documents */

HmmHeap *HmmHeapInit(void *memory, size_t memory_bytes, const HmmHeapOptions *options)
{
    struct region *region =
        hmm_handle_can_open(options) ? hmm_region_array_init(memory, memory_bytes) : NULL;
    HmmHeap *handle =
        region != NULL ? hmm_handle_open(region, options, NULL, LOCK_RANK_HEAP) : NULL;
    if (handle == NULL) {
        hmm_set_errno(EINVAL);
    }
    return handle;
}

bool HmmHeapAdd(HmmHeap *heap, void *memory, size_t memory_bytes)
{
    hmm_handle_check(heap, "HmmHeapAdd", memory);
    bool is_done = false;
    hmm_handle_lock(heap);
    if (memory_bytes <= UINTPTR_MAX - (uintptr_t)memory &&
        !hmm_heap_overlaps(&heap->heap, (uintptr_t)memory, memory_bytes)) {
        struct region *region = hmm_region_array_init(memory, memory_bytes);
        is_done =
            region != NULL && hmm_heap_add(&heap->heap, region, hmm_region_start(region),
                                           smallest_block_bytes(heap, handle_is_guarded(heap)));
    }
    hmm_handle_unlock(heap);
    if (!is_done) {
        hmm_set_errno(EINVAL);
    }
    return is_done;
}

/* The handle lies in the first region, so that one goes last. */
void HmmHeapDestroy(HmmHeap *heap)
{
    if (heap == NULL) {
        return;
    }
    hmm_handle_check(heap, "HmmHeapDestroy", NULL);
    if (heap->unregister != NULL) {
        heap->unregister(heap);
    }
    heap->magic = HANDLE_MAGIC_DEAD;
    struct region *first = heap->heap.regions;
    struct region *region = first->next;
    while (region != NULL) {
        struct region *next = region->next;
        region->ops->release(region);
        region = next;
    }
    first->ops->release(first);
}

void *HmmHeapAlloc(HmmHeap *heap, size_t bytes)
{
    return hmm_handle_allocate(heap, "HmmHeapAlloc", BLOCK_UNIT_BYTES, bytes);
}

void *HmmHeapCalloc(HmmHeap *heap, size_t count, size_t bytes)
{
    return hmm_handle_zeroed(heap, "HmmHeapCalloc", count, bytes);
}

void *HmmHeapRealloc(HmmHeap *heap, void *ptr, size_t bytes)
{
    return hmm_handle_resize(heap, "HmmHeapRealloc", ptr, bytes);
}

void *HmmHeapAlignedAlloc(HmmHeap *heap, size_t alignment, size_t bytes)
{
    if (!is_power_of_two(alignment)) {
        hmm_set_errno(EINVAL);
        return NULL;
    }
    return hmm_handle_allocate(heap, "HmmHeapAlignedAlloc", alignment, bytes);
}

void HmmHeapFree(HmmHeap *heap, void *ptr)
{
    static const struct claim claim = {.call = "HmmHeapFree"};
    hmm_handle_free(heap, ptr, &claim);
}

size_t HmmHeapUsableSize(const HmmHeap *heap, const void *ptr)
{
    return hmm_handle_usable(heap, "HmmHeapUsableSize", ptr);
}

void HmmHeapGetStats(const HmmHeap *heap, HmmHeapStats *stats)
{
    hmm_handle_check(heap, "HmmHeapGetStats", NULL);
    if (handle_is_guarded(heap)) {
        hmm_guarded_get_stats((HmmHeap *)heap, stats);
        return;
    }
    handle_begin_reading(heap, "HmmHeapGetStats");
    hmm_heap_get_stats(&heap->heap, stats);
    hmm_handle_unlock_read(heap);
}

bool HmmHeapWalk(const HmmHeap *heap, HmmVisitor visit, void *context)
{
    hmm_handle_check(heap, "HmmHeapWalk", NULL);
    handle_begin_reading(heap, "HmmHeapWalk");
    bool is_whole = handle_is_guarded(heap)
                        ? hmm_heap_guard_walk(&heap->heap, handle_guard(heap), visit, context)
                        : hmm_heap_walk(&heap->heap, visit, context);
    hmm_handle_unlock_read(heap);
    return is_whole;
}

bool HmmHeapCheck(const HmmHeap *heap)
{
    hmm_handle_check(heap, "HmmHeapCheck", NULL);
    handle_begin_reading(heap, "HmmHeapCheck");
    const char *broken = handle_is_guarded(heap)
                             ? hmm_heap_guard_audit(&heap->heap, handle_guard(heap))
                             : hmm_heap_audit(&heap->heap);
    hmm_handle_unlock_read(heap);
    return broken == NULL;
}
