/*
 * alloc.c - the slow half of the front: which room serves a request, and from an untrusted pointer
 * to the room that it belongs to. See alloc.h.
 *
 *     request up to 8 KiB           a slot of the thread's      thread.c
 *             up to 256 KiB         a block in a zone           medium.c
 *             above                 a run of granules           large.c
 *             too large for those   a block of the block heap   process.c
 */
#include "alloc.h"
#include "fence.h"
#include "guard.h"
#include "large.h"
#include "medium.h"
#include "os.h"
#include "purge.h"

enum {
    /* Smaller slots are zeroed without a look at whether they need it. */
    VIRGIN_BYTES_MIN = 512,
    /* A block that shrinks below this share of itself moves to where smaller ones are. */
    SHRINK_SHARE = 2,
    /* A block that grows by less than this share of itself is given as much: docs/experiments.md. */
    GROWTH_SHARE = 8,
};

/* ------------------------------------------------------------------------------- small words */

static HMM_COLD HMM_NORETURN void judge(const char *call, const void *ptr, struct crime *crime)
{
    const HmmHeap *owner = crime->at == 0 ? hmm_handle_owner(ptr) : NULL;
    if (owner != NULL) {
        crime->what = "pointer of another heap";
        crime->owner = owner;
    }
    hmm_fatal(call, ptr, crime, NULL);
}

/* The calling thread, opened if need be; NULL: there is no memory for it. */
static struct thread *thread_need(void)
{
    struct thread *thread = hmm_thread.thread;
    return thread != NULL ? thread : hmm_thread_open();
}

static unsigned thread_shard(const struct thread *thread)
{
    return thread != NULL ? thread->shard : 0;
}

/* The class for a request of a thread that has bins; CLASS_NONE: not a slot's size. */
static unsigned class_for(const struct thread *thread, size_t alignment, size_t bytes)
{
    if (bytes > SMALL_BYTES_MAX || !thread_is_open(thread)) {
        return CLASS_NONE;
    }
    unsigned size_class = class_of(bytes);
    return alignment <= SLOT_UNIT_BYTES ? size_class : class_aligned(size_class, alignment);
}

/* ---------------------------------------------------------------------------------- allocation */

static struct slot *small_allocate(struct thread *thread, unsigned size_class)
{
    struct slot *slot = bin_pop(size_class);
    return slot != NULL ? slot : hmm_thread_refill(thread, size_class);
}

/* A slot that is virgin has been written to in its first word only. */
static void small_clear(struct slot *slot, size_t bytes)
{
    const struct granule *slab = granule_of(slot);
    size_t units = (arena_offset(slot) & (GRANULE_BYTES - 1)) >> SLOT_UNIT_SHIFT;
    if (bytes >= VIRGIN_BYTES_MIN && units >= slab->virgin_units) {
        slot->next = NULL;
    } else {
        memset(slot, 0, bytes);
    }
}

static void *medium_allocate(const struct thread *thread, const char *call, size_t alignment,
                             size_t bytes, enum content content)
{
    struct crime crime;
    crime_clear(&crime);
    struct zero_span zero = {0, 0};
    void *ptr = hmm_medium_allocate(thread_shard(thread), alignment, bytes, &zero, &crime);
    if (UNLIKELY(crime.what != NULL)) {
        judge(call, NULL, &crime);
    }
    if (ptr != NULL && content == CONTENT_ZERO) {
        hmm_medium_clear(ptr, bytes, zero);
    }
    return ptr;
}

/* A block that is no slot. */
static void *tagged_allocate(const struct thread *thread, const char *call, size_t alignment,
                             size_t bytes, enum content content)
{
    if (bytes <= MEDIUM_BYTES_MAX && alignment <= MEDIUM_ALIGN_BYTES_MAX) {
        return medium_allocate(thread, call, alignment, bytes, content);
    }
    void *ptr = hmm_large_allocate(alignment, bytes);
    if (ptr != NULL && content == CONTENT_ZERO) {
        hmm_large_clear(ptr, bytes);
    }
    return ptr;
}

/* NULL: no memory, where the arena could have had it. */
static void *arena_allocate(const char *call, size_t alignment, size_t bytes, enum content content)
{
    struct thread *thread = thread_need();
    unsigned size_class = class_for(thread, alignment, bytes);
    if (size_class == CLASS_NONE) {
        return tagged_allocate(thread, call, alignment, bytes, content);
    }
    struct slot *slot = small_allocate(thread, size_class);
    if (slot != NULL && content == CONTENT_ZERO) {
        small_clear(slot, bytes);
    }
    return slot;
}

static void *block_allocate(const char *call, size_t alignment, size_t bytes, enum content content)
{
    HmmHeap *heap = hmm_process_heap();
    if (UNLIKELY(heap == NULL)) {
        errno = ENOMEM;
        return NULL;
    }
    return content == CONTENT_ZERO ? hmm_handle_zeroed(heap, call, 1, bytes)
                                   : hmm_handle_allocate(heap, call, alignment, bytes);
}

/* The same, for any call: who frees the block is asked for its counterpart. */
static void *guarded_block_allocate(const char *call, size_t alignment, size_t bytes,
                                    enum content content, enum origin origin)
{
    HmmHeap *heap = origin != ORIGIN_MALLOC ? hmm_process_heap() : NULL;
    return heap != NULL ? hmm_handle_allocate_as(heap, call, alignment, bytes, origin)
                        : block_allocate(call, alignment, bytes, content);
}

/* What this thread and those that ended hold back may be just what is missing. Where no granule is
 * left for a slab, there may still be room between other blocks. */
static HMM_COLD void *allocate_last(const char *call, size_t alignment, size_t bytes,
                                    enum content content)
{
    hmm_thread_flush(hmm_thread.thread);
    (void)hmm_medium_yield();
    void *ptr = arena_allocate(call, alignment, bytes, content);
    if (ptr == NULL && bytes <= SMALL_BYTES_MAX) {
        ptr = tagged_allocate(hmm_thread.thread, call, alignment, bytes, content);
    }
    if (ptr != NULL) {
        return ptr;
    }
    if (hmm_process_can_overflow()) {
        return block_allocate(call, alignment, bytes, content);
    }
    errno = ENOMEM;
    return NULL;
}

static void *guarded_allocate(const char *call, size_t alignment, size_t bytes,
                              enum content content, enum origin origin)
{
    void *ptr = hmm_guard_allocate(call, alignment, bytes, content, origin);
    if (LIKELY(ptr != NULL)) {
        return ptr;
    }
    if (hmm_process_can_overflow()) {
        return guarded_block_allocate(call, alignment, bytes, content, origin);
    }
    errno = ENOMEM;
    return NULL;
}

static void *allocate(const char *call, size_t alignment, size_t bytes, enum content content,
                      enum origin origin)
{
    if (hmm_process_engine() == ENGINE_BLOCK) {
        return block_allocate(call, alignment, bytes, content);
    }
    if (UNLIKELY(bytes > OBJECT_BYTES_MAX)) {
        errno = ENOMEM;
        return NULL;
    }
    if (guard_is_on()) {
        return guarded_allocate(call, alignment, bytes, content, origin);
    }
    void *ptr = arena_allocate(call, alignment, bytes, content);
    return LIKELY(ptr != NULL) ? ptr : allocate_last(call, alignment, bytes, content);
}

void *hmm_alloc_slow(size_t bytes)
{
    struct thread *thread = hmm_thread.thread;
    void *ptr = NULL;
    bool has_bins = !HMM_SECURE && LIKELY(thread_is_open(thread));
    if (HMM_SECURE) {
        ptr = hmm_guard_malloc(bytes, ORIGIN_MALLOC);
    } else if (has_bins && bytes <= SMALL_BYTES_MAX) {
        ptr = guard_is_on() ? hmm_guard_malloc(bytes, ORIGIN_MALLOC)
                            : hmm_thread_refill(thread, class_of(bytes));
    } else if (has_bins && bytes <= MEDIUM_BYTES_MAX && !guard_is_on()) {
        ptr = medium_allocate(thread, "malloc", SLOT_UNIT_BYTES, bytes, CONTENT_ANY);
    }
    return LIKELY(ptr != NULL)
               ? ptr
               : allocate("malloc", SLOT_UNIT_BYTES, bytes, CONTENT_ANY, ORIGIN_MALLOC);
}

void *hmm_alloc_zeroed(size_t count, size_t bytes)
{
    size_t total_bytes;
    if (!size_multiply(count, bytes, &total_bytes)) {
        total_bytes = SIZE_MAX;
    }
    if (HMM_SECURE) {
        void *ptr = guard_malloc_short(total_bytes, ORIGIN_MALLOC);
        ptr = LIKELY(ptr != NULL) ? ptr : hmm_guard_malloc(total_bytes, ORIGIN_MALLOC);
        return LIKELY(ptr != NULL)
                   ? ptr
                   : allocate("calloc", SLOT_UNIT_BYTES, total_bytes, CONTENT_ZERO, ORIGIN_MALLOC);
    }
    if (total_bytes <= SMALL_BYTES_MAX) {
        struct slot *slot = bin_pop(class_of(total_bytes));
        if (LIKELY(slot != NULL)) {
            small_clear(slot, total_bytes);
            return slot;
        }
    }
    return allocate("calloc", SLOT_UNIT_BYTES, total_bytes, CONTENT_ZERO, ORIGIN_MALLOC);
}

void *hmm_alloc_aligned(size_t alignment, size_t bytes)
{
    return allocate("aligned_alloc", alignment, bytes, CONTENT_ANY, ORIGIN_MALLOC);
}

void *hmm_alloc_new(size_t alignment, size_t bytes, enum origin origin)
{
    alignment = size_max(alignment, SLOT_UNIT_BYTES);
    if (hmm_process_engine() == ENGINE_BLOCK) {
        return guarded_block_allocate("operator new", alignment, bytes, CONTENT_ANY, origin);
    }
    return allocate("operator new", alignment, bytes, CONTENT_ANY, origin);
}

/* ------------------------------------------------------------------------- untrusted pointers */

/* A pointer that the arena does not cover: the block heap's, or nobody's. */
static HmmHeap *block_heap_of(void)
{
    return hmm_process_engine() == ENGINE_BLOCK ? hmm_process_heap() : hmm_process_heap_if_open();
}

static HMM_COLD HMM_NORETURN void accuse(const char *call, const void *ptr, const char *what)
{
    judge(call, ptr, &(struct crime){.what = what});
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

/* Whether a pointer into a slab is a slot in use, as far as the slot can show it. */
static bool is_used_slot(const struct granule *slab, const void *ptr)
{
    const struct slot *slot = ptr;
    return slab_is_slot(slab, ptr) && slot->mark != slot_free_mark(slab, slot);
}

/* The slab of a pointer to one of its slots, which is in use. */
static struct granule *slab_check(const char *call, const void *ptr)
{
    struct granule *slab = granule_of(ptr);
    if (UNLIKELY(!is_used_slot(slab, ptr))) {
        struct crime crime = slab_crime("freed block", slab, ptr);
        judge(call, ptr, &crime);
    }
    return slab;
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
    judge(call, slot, &crime);
}

static void free_remote(const char *call, struct granule *slab, struct slot *slot)
{
    if (HMM_FREE_CHECKS && UNLIKELY(!is_used_slot(slab, slot))) {
        hmm_free_crime(call, slab, slot, 0);
    }
    slot->mark = slot_free_mark(slab, slot);
    hmm_thread_free_remote(hmm_thread.thread, slab, slot);
}

/* A granule that nobody has: what was there before may still be written in its descriptor. */
static HMM_COLD HMM_NORETURN void free_granule_crime(const char *call, const char *what_if_free,
                                                     const void *ptr)
{
    const struct granule *granule = granule_of(ptr);
    bool was_slot = granule->index_factor != 0 && slab_is_slot(granule, ptr);
    bool was_run = granule->run.start == (uintptr_t)ptr;
    accuse(call, ptr, was_slot || was_run ? what_if_free : "invalid pointer, in no block");
}

void hmm_free_event(struct granule *slab)
{
    hmm_thread_slab_event(hmm_thread.thread, slab);
}

static void free_outside(void *ptr, const struct claim *claim)
{
    HmmHeap *heap = block_heap_of();
    if (heap == NULL) {
        accuse(claim->call, ptr, "not a heap pointer");
    }
    hmm_handle_free(heap, ptr, claim);
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
        break;
    case GRANULE_LARGE:
        is_done = hmm_large_free(ptr, &crime);
        break;
    default:
        free_granule_crime(call, "double free", ptr);
    }
    if (UNLIKELY(!is_done)) {
        judge(call, ptr, &crime);
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

/* How much of a block in the arena may be used. */
static size_t usable(const char *call, const void *ptr)
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
        free_granule_crime(call, "freed block", ptr);
    }
    if (UNLIKELY(!is_done)) {
        judge(call, ptr, &crime);
    }
    return usable_bytes;
}

static __attribute__((noinline)) size_t usable_outside(const void *ptr)
{
    HmmHeap *heap = block_heap_of();
    if (heap == NULL) {
        accuse("malloc_usable_size", ptr, "not a heap pointer");
    }
    return hmm_handle_usable(heap, "malloc_usable_size", ptr);
}

size_t hmm_alloc_usable(const void *ptr)
{
    if (UNLIKELY(!arena_covers(ptr))) {
        return usable_outside(ptr);
    }
    return guard_is_on() ? hmm_guard_usable("malloc_usable_size", ptr)
                         : usable("malloc_usable_size", ptr);
}

/* A slot that need not move; NULL: it must, and *old_bytes is its size. */
static void *small_resize(void *ptr, size_t bytes, size_t *old_bytes)
{
    const struct granule *slab = slab_check("realloc", ptr);
    *old_bytes = slab->slot_bytes;
    bool is_fit = bytes <= *old_bytes &&
                  (bytes > *old_bytes / SHRINK_SHARE || class_of(bytes) == slab_class(slab));
    return is_fit ? ptr : NULL;
}

/* The block with another size without a copy, NULL: that cannot be. *old_bytes is its size, or 0 where nobody
 * has looked. */
static void *resize_in_place(void *ptr, size_t bytes, size_t *old_bytes)
{
    struct crime crime;
    crime_clear(&crime);
    void *resized = NULL;
    *old_bytes = 0;
    switch (granule_kind(granule_of(ptr))) {
    case GRANULE_SLAB:
        return small_resize(ptr, bytes, old_bytes);
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
        free_granule_crime("realloc", "freed block", ptr);
    }
    if (UNLIKELY(crime.what != NULL)) {
        judge("realloc", ptr, &crime);
    }
    return resized;
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
    void *moved = guarded_allocate(claim.call, SLOT_UNIT_BYTES, bytes, CONTENT_ANY, ORIGIN_MALLOC);
    if (moved != NULL) {
        memcpy(moved, ptr, size_min(old_bytes, bytes));
        hmm_guard_free(ptr, &claim);
    }
    return moved;
}

static void *allocate_moved(size_t bytes)
{
    return bytes <= MEDIUM_BYTES_MAX
               ? alloc_fast(bytes)
               : allocate("realloc", SLOT_UNIT_BYTES, bytes, CONTENT_ANY, ORIGIN_MALLOC);
}

/* What a block that has to move asks for: one that grows by little will grow again. Above, pages move and not
 * their content. */
static size_t moved_bytes(size_t bytes, size_t old_bytes)
{
    size_t roomy_bytes = old_bytes + old_bytes / GROWTH_SHARE;
    bool is_growing = bytes > old_bytes && bytes < roomy_bytes;
    return is_growing && roomy_bytes <= MEDIUM_BYTES_MAX ? roomy_bytes : bytes;
}

/* A block in the arena. */
static void *resize_inside(void *ptr, size_t bytes)
{
    size_t old_bytes;
    void *resized = resize_in_place(ptr, bytes, &old_bytes);
    if (resized != NULL) {
        return resized;
    }
    old_bytes = old_bytes != 0 ? old_bytes : usable("realloc", ptr);
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

static void *resize_elsewhere(void *ptr, size_t bytes)
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
        (void)usable("realloc", ptr);
        errno = ENOMEM; /* no object is as large */
        return NULL;
    }
    HmmHeap *heap = block_heap_of();
    if (heap == NULL) {
        accuse("realloc", ptr, "not a heap pointer");
    }
    return hmm_handle_resize(heap, "realloc", ptr, bytes);
}

void *hmm_alloc_resize(void *ptr, size_t bytes)
{
    return LIKELY(arena_covers(ptr) && bytes - 1 < OBJECT_BYTES_MAX && !guard_is_on())
               ? resize_inside(ptr, bytes)
               : resize_elsewhere(ptr, bytes);
}

/* --------------------------------------------------------------------------- the whole process */

/* What lies free and is touched, as far as anybody has counted: small blocks between others as a whole, slabs
 * only where something is loose. */
static size_t free_bytes_known(void)
{
    struct medium_stats medium;
    hmm_medium_get_stats(&medium);
    size_t counted_bytes = hmm_purge_dirty_bytes();
    return counted_bytes + medium.free_bytes + hmm_purge_loose_bytes();
}

/* Slabs and blocks of threads first: what they leave empty becomes the arena's. */
static bool trim_fast(size_t keep_bytes)
{
    struct thread *thread = hmm_thread.thread;
    if (guard_is_on()) {
        hmm_guard_flush(thread);
    }
    hmm_thread_flush(thread);
    (void)hmm_medium_yield();
    size_t budget_bytes = SIZE_MAX;
    if (keep_bytes != 0) {
        size_t free_bytes = free_bytes_known();
        budget_bytes = free_bytes - size_min(free_bytes, keep_bytes);
    }
    size_t purged_bytes = hmm_thread_trim(thread, budget_bytes);
    purged_bytes += hmm_remote_trim(budget_bytes - size_min(budget_bytes, purged_bytes));
    purged_bytes += hmm_medium_trim(budget_bytes - size_min(budget_bytes, purged_bytes));
    purged_bytes += hmm_arena_purge(keep_bytes, SIZE_MAX);
    return purged_bytes != 0;
}

bool hmm_alloc_trim(const char *call, size_t keep_bytes)
{
    HmmHeap *heap = hmm_process_heap_if_open();
    bool is_done = heap != NULL && hmm_handle_trim(heap, call, keep_bytes);
    if (hmm_process_engine_if_started() == ENGINE_FAST) {
        is_done |= trim_fast(keep_bytes);
    }
    return is_done;
}

const char *hmm_alloc_audit(void)
{
    if (hmm_process_engine_if_started() != ENGINE_FAST) {
        return NULL;
    }
    const char *broken = hmm_thread_audit();
    broken = broken != NULL ? broken : hmm_remote_audit();
    broken = broken != NULL ? broken : hmm_medium_audit();
    broken = broken != NULL ? broken : hmm_arena_audit();
    return broken != NULL || !guard_is_on() ? broken : hmm_guard_audit();
}
