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
#include "large.h"
#include "medium.h"

enum {
    SEARCH_PAUSE_MAX = (1 << 11) - 1,
    /* Smaller slots are zeroed without a look at whether they need it. */
    VIRGIN_BYTES_MIN = 512,
};

/* ---------------------------------------------------------------------------------- small words */

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

/* ----------------------------------------------------------------------------------- allocation */

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

static void *medium_allocate(const struct thread *thread, const struct request *request)
{
    struct crime crime;
    crime_clear(&crime);
    struct zero_span zero = {0, 0};
    void *ptr = hmm_medium_allocate(thread_shard(thread), request->alignment, request->bytes, &zero,
                                    &crime);
    if (UNLIKELY(crime.what != NULL)) {
        hmm_handle_accuse(NULL, request->call, NULL, &crime);
    }
    if (ptr != NULL && request->content == CONTENT_ZERO) {
        hmm_medium_clear(ptr, request->bytes, zero);
    }
    return ptr;
}

/* A block that is no slot. */
static void *tagged_allocate(const struct thread *thread, const struct request *request)
{
    if (request->bytes <= MEDIUM_BYTES_MAX && request->alignment <= MEDIUM_ALIGN_BYTES_MAX) {
        return medium_allocate(thread, request);
    }
    void *ptr = hmm_large_allocate(request->alignment, request->bytes);
    if (ptr != NULL && request->content == CONTENT_ZERO) {
        hmm_large_clear(ptr, request->bytes);
    }
    return ptr;
}

/* NULL: no memory, where the arena could have had it. */
static void *arena_allocate(const struct request *request)
{
    struct thread *thread = thread_need();
    unsigned size_class = class_for(thread, request->alignment, request->bytes);
    if (size_class == CLASS_NONE) {
        return tagged_allocate(thread, request);
    }
    struct slot *slot = small_allocate(thread, size_class);
    if (slot != NULL && request->content == CONTENT_ZERO) {
        small_clear(slot, request->bytes);
    }
    return slot;
}

/* Who frees the block of a hardened heap is asked for the counterpart of the call; only malloc's
 * family asks for zeros. */
static void *block_allocate(const struct request *request)
{
    HmmHeap *heap = hmm_process_heap();
    if (UNLIKELY(heap == NULL)) {
        errno = ENOMEM;
        return NULL;
    }
    return request->content == CONTENT_ZERO
               ? hmm_handle_zeroed(heap, request->call, 1, request->bytes)
               : hmm_handle_allocate_as(heap, request->call, request->alignment, request->bytes,
                                        request->origin);
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
static HMM_COLD void *arena_allocate_last(const struct request *request)
{
    hmm_thread_flush(hmm_thread.thread);
    hmm_medium_yield();
    void *ptr = arena_allocate(request);
    if (ptr == NULL && request->bytes <= SMALL_BYTES_MAX) {
        ptr = tagged_allocate(hmm_thread.thread, request);
    }
    return ptr;
}

static HMM_COLD void *search_last(const struct request *request)
{
    void *ptr = guard_is_on() ? hmm_guard_allocate_last(request) : arena_allocate_last(request);
    search_learn(ptr != NULL);
    return ptr;
}

/* What the arena had not at once is searched for in there, or is the block heap's. */
static HMM_COLD void *allocate_last(const struct request *request)
{
    const bool can_overflow = hmm_process_can_overflow();
    const int saved_errno = errno;
    void *ptr = NULL;
    if (can_overflow && is_search_paused()) {
        ptr = block_allocate(request);
        errno = saved_errno;
    }
    ptr = ptr != NULL ? ptr : search_last(request);
    if (ptr == NULL && can_overflow) {
        return block_allocate(request);
    }
    if (ptr == NULL) {
        errno = ENOMEM;
    }
    return ptr;
}

void *hmm_alloc_for(const struct request *request)
{
    if (hmm_process_engine() == ENGINE_BLOCK) {
        return block_allocate(request);
    }
    if (UNLIKELY(request->bytes > OBJECT_BYTES_MAX)) {
        errno = ENOMEM;
        return NULL;
    }
    void *ptr = guard_is_on() ? hmm_guard_allocate(request) : arena_allocate(request);
    thread_offset_growth(hmm_thread.thread);
    return LIKELY(ptr != NULL) ? ptr : allocate_last(request);
}

/* malloc and calloc, where nothing shorter serves. Apart, so that what does needs no frame. */
static HMM_NOINLINE void *allocate_plain(const char *call, size_t bytes, enum content content)
{
    return hmm_alloc_for(&(struct request){.call = call,
                                           .alignment = SLOT_UNIT_BYTES,
                                           .bytes = bytes,
                                           .content = content,
                                           .origin = ORIGIN_MALLOC});
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
        ptr = medium_allocate(
            thread,
            &(struct request){.call = "malloc", .alignment = SLOT_UNIT_BYTES, .bytes = bytes});
    }
    if (UNLIKELY(ptr == NULL)) {
        return allocate_plain("malloc", bytes, CONTENT_ANY);
    }
    thread_offset_growth(thread);
    return ptr;
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
        return LIKELY(ptr != NULL) ? ptr : allocate_plain("calloc", total_bytes, CONTENT_ZERO);
    }
    if (total_bytes <= SMALL_BYTES_MAX) {
        struct slot *slot = bin_pop(class_of(total_bytes));
        if (LIKELY(slot != NULL)) {
            small_clear(slot, total_bytes);
            return slot;
        }
    }
    return allocate_plain("calloc", total_bytes, CONTENT_ZERO);
}

void *hmm_alloc_aligned(size_t alignment, size_t bytes)
{
    return hmm_alloc_for(&(struct request){
        .call = "aligned_alloc", .alignment = alignment, .bytes = bytes, .origin = ORIGIN_MALLOC});
}

void *hmm_alloc_new(size_t alignment, size_t bytes, enum origin origin)
{
    return hmm_alloc_for(&(struct request){.call = "operator new",
                                           .alignment = size_max(alignment, SLOT_UNIT_BYTES),
                                           .bytes = bytes,
                                           .origin = origin});
}
