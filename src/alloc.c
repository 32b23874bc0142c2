/*
 * alloc.c - the slow half of the front: which room serves a request. See alloc.h; alloc_free.c has
 * the way back, and alloc_resize.c realloc.
 *
 *     request up to 8 KiB           a slot of the thread's      thread.c
 *             below 256 KiB         a block in a zone           medium.c
 *             above                 a run of granules           large.c
 *             too large for those   a block of the block heap   process.c
 */
#include "alloc_room.h"
#include "fence.h"
#include "ground.h"
#include "large.h"
#include "medium.h"
#include "purge.h"

enum {
    SEARCH_PAUSE_MAX = (1 << 11) - 1,
    /* Smaller slots are zeroed without a look at whether they need it. */
    VIRGIN_BYTES_MIN = 512,
};

/* ------------------------------------------------------------------------------- small words */

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
        hmm_handle_accuse(NULL, call, NULL, &crime);
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

/* Who frees the block of a hardened heap is asked for the counterpart of the call; only malloc's
 * family asks for zeros. */
static void *block_allocate(const char *call, size_t alignment, size_t bytes, enum content content,
                            enum origin origin)
{
    HmmHeap *heap = hmm_process_heap();
    if (UNLIKELY(heap == NULL)) {
        errno = ENOMEM;
        return NULL;
    }
    return content == CONTENT_ZERO ? hmm_handle_zeroed(heap, call, 1, bytes)
                                   : hmm_handle_allocate_as(heap, call, alignment, bytes, origin);
}

/* A search for what is left that found nothing will soon find nothing again: the next 1, 3, 7 ...
 * SEARCH_PAUSE_MAX requests go to the block heap at once. Opinions: racing threads do no harm. */
static _Atomic unsigned search_pause;
static _Atomic unsigned search_pause_left;

static bool is_search_paused(void)
{
    unsigned left = atomic_load_explicit(&search_pause_left, memory_order_relaxed);
    if (left != 0) {
        atomic_store_explicit(&search_pause_left, left - 1, memory_order_relaxed);
    }
    return left != 0;
}

static void search_learn(bool has_found)
{
    unsigned pause = atomic_load_explicit(&search_pause, memory_order_relaxed);
    pause = has_found ? 0 : pause < SEARCH_PAUSE_MAX ? 2 * pause + 1 : pause;
    atomic_store_explicit(&search_pause, pause, memory_order_relaxed);
    atomic_store_explicit(&search_pause_left, pause, memory_order_relaxed);
}

/* What this thread and those that ended hold back may be just what is missing. Where no granule is
 * left for a slab, there may still be room between other blocks. */
static HMM_COLD void *arena_allocate_last(const char *call, size_t alignment, size_t bytes,
                                          enum content content)
{
    hmm_thread_flush(hmm_thread.thread);
    hmm_medium_yield();
    void *ptr = arena_allocate(call, alignment, bytes, content);
    if (ptr == NULL && bytes <= SMALL_BYTES_MAX) {
        ptr = tagged_allocate(hmm_thread.thread, call, alignment, bytes, content);
    }
    return ptr;
}

static HMM_COLD void *search_last(const char *call, size_t alignment, size_t bytes,
                                  enum content content, enum origin origin)
{
    void *ptr = guard_is_on() ? hmm_guard_allocate_last(call, alignment, bytes, content, origin)
                              : arena_allocate_last(call, alignment, bytes, content);
    search_learn(ptr != NULL);
    return ptr;
}

/* What the arena had not at once is searched for in there, or is the block heap's. */
static HMM_COLD void *allocate_last(const char *call, size_t alignment, size_t bytes,
                                    enum content content, enum origin origin)
{
    const bool can_overflow = hmm_process_can_overflow();
    const int saved_errno = errno;
    void *ptr = NULL;
    if (can_overflow && is_search_paused()) {
        ptr = block_allocate(call, alignment, bytes, content, origin);
        errno = saved_errno;
    }
    ptr = ptr != NULL ? ptr : search_last(call, alignment, bytes, content, origin);
    if (ptr == NULL && can_overflow) {
        return block_allocate(call, alignment, bytes, content, origin);
    }
    if (ptr == NULL) {
        errno = ENOMEM;
    }
    return ptr;
}

void *hmm_alloc_for(const char *call, size_t alignment, size_t bytes, enum content content,
                    enum origin origin)
{
    if (hmm_process_engine() == ENGINE_BLOCK) {
        return block_allocate(call, alignment, bytes, content, origin);
    }
    if (UNLIKELY(bytes > OBJECT_BYTES_MAX)) {
        errno = ENOMEM;
        return NULL;
    }
    void *ptr = guard_is_on() ? hmm_guard_allocate(call, alignment, bytes, content, origin)
                              : arena_allocate(call, alignment, bytes, content);
    return LIKELY(ptr != NULL) ? ptr : allocate_last(call, alignment, bytes, content, origin);
}

void *hmm_alloc_slow(size_t bytes)
{
    struct thread *thread = hmm_thread.thread;
    void *ptr = NULL;
    bool has_bins = LIKELY(thread_is_open(thread));
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
               : hmm_alloc_for("malloc", SLOT_UNIT_BYTES, bytes, CONTENT_ANY, ORIGIN_MALLOC);
}

/* Whether this is what pthread_create allocates for the first thread that it makes: that takes
 * calloc, after it has said that the process has threads. */
static inline bool is_first_of_threads(void)
{
    return UNLIKELY(!process_has_one_thread()) &&
           UNLIKELY(!atomic_load_explicit(&hmm_thread_has_shared, memory_order_relaxed));
}

void *hmm_alloc_zeroed(size_t count, size_t bytes)
{
    if (is_first_of_threads()) {
        hmm_thread_share();
    }
    size_t total_bytes;
    if (!size_multiply(count, bytes, &total_bytes)) {
        total_bytes = SIZE_MAX;
    }
    if (HMM_SECURE) {
        void *ptr = guard_malloc_short(total_bytes, ORIGIN_MALLOC);
        ptr = LIKELY(ptr != NULL) ? ptr : hmm_guard_malloc(total_bytes, ORIGIN_MALLOC);
        return LIKELY(ptr != NULL) ? ptr
                                   : hmm_alloc_for("calloc", SLOT_UNIT_BYTES, total_bytes,
                                                   CONTENT_ZERO, ORIGIN_MALLOC);
    }
    if (total_bytes <= SMALL_BYTES_MAX) {
        struct slot *slot = bin_pop(class_of(total_bytes));
        if (LIKELY(slot != NULL)) {
            small_clear(slot, total_bytes);
            return slot;
        }
    }
    return hmm_alloc_for("calloc", SLOT_UNIT_BYTES, total_bytes, CONTENT_ZERO, ORIGIN_MALLOC);
}

void *hmm_alloc_aligned(size_t alignment, size_t bytes)
{
    return hmm_alloc_for("aligned_alloc", alignment, bytes, CONTENT_ANY, ORIGIN_MALLOC);
}

void *hmm_alloc_new(size_t alignment, size_t bytes, enum origin origin)
{
    return hmm_alloc_for("operator new", size_max(alignment, SLOT_UNIT_BYTES), bytes, CONTENT_ANY,
                         origin);
}

/* --------------------------------------------------------------------------- the whole process */

/* What lies free and is touched, as far as anybody has counted: small blocks between others as a
 * whole, slabs only where something is loose. */
static size_t free_bytes_known(void)
{
    struct medium_stats medium;
    hmm_medium_get_stats(&medium);
    return hmm_purge_dirty_bytes() + medium.free_bytes + hmm_purge_loose_bytes();
}

/* Slabs and blocks of threads first: what they leave empty becomes the arena's. */
static bool trim_fast(size_t keep_bytes)
{
    struct thread *thread = hmm_thread.thread;
    hmm_purge_try_again();
    if (guard_is_on()) {
        hmm_guard_flush("malloc_trim", thread);
    }
    hmm_thread_flush(thread);
    hmm_medium_yield();
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

bool hmm_alloc_scavenge(void)
{
    if (hmm_process_engine_if_started() != ENGINE_FAST) {
        return false;
    }
    hmm_fence_settle();
    (void)hmm_arena_purge_excess(SIZE_MAX);
    hmm_medium_purge_excess(SIZE_MAX);
    hmm_thread_purge_excess(hmm_thread.thread);
    return hmm_purge_has_regret();
}

bool hmm_alloc_keep(size_t bytes)
{
    bool is_fast = hmm_process_engine() == ENGINE_FAST;
    if (is_fast) {
        hmm_purge_keep(bytes);
    }
    return is_fast;
}

void hmm_alloc_shrink_range(size_t bytes)
{
    HmmHeap *heap = hmm_process_heap_if_open();
    bool is_fast = hmm_process_engine_if_started() == ENGINE_FAST;
    if (is_fast) {
        hmm_arena_shrink(bytes);
    }
    if (heap != NULL) {
        hmm_ground_shrink(heap, is_fast ? 0 : bytes);
    }
}

bool hmm_alloc_trim(size_t keep_bytes)
{
    HmmHeap *heap = hmm_process_heap_if_open();
    bool is_done = heap != NULL && hmm_handle_trim(heap, "malloc_trim", keep_bytes);
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
