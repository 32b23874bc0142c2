/*
 * guard.c - which room guards a block, and how guarding starts. See guard.h.
 */
#include "guard_block.h"
#include "fence.h"
#include "guard_fast.h"
#include "guard_quarantine.h"
#include "guard_rooms.h"
#include "medium.h"
#include "random.h"

/* ------------------------------------------------------------------------------------ the calls */

static void *guard_allocate(struct thread *thread, const struct request *request)
{
    const size_t bytes = request->bytes;
    const size_t alignment = request->alignment;
    /* A slot has room for its link beside the sites. */
    size_t room_bytes = size_max(bytes, 1) + hmm_settings.guard.trailer_bytes;
    if (hmm_settings.guard.level >= GUARD_FENCES && bytes != 0) {
        void *ptr = hmm_guard_fenced_allocate(request);
        if (ptr != NULL) {
            return ptr;
        }
    }
    if (bytes == 0 && hmm_settings.guard.level >= GUARD_QUARANTINE) {
        return hmm_fence_allocate_empty(alignment);
    }
    if (room_bytes <= SMALL_BYTES_MAX && thread_is_open(thread)) {
        unsigned size_class = class_of(room_bytes);
        if (alignment > SLOT_UNIT_BYTES) {
            size_class = class_aligned(size_class, alignment);
        }
        void *ptr =
            size_class != CLASS_NONE ? hmm_guard_slot_allocate(thread, size_class, request) : NULL;
        if (LIKELY(ptr != NULL)) {
            return ptr;
        }
    }
    if (room_bytes <= MEDIUM_BYTES_MAX && alignment <= MEDIUM_ALIGN_BYTES_MAX) {
        return hmm_guard_medium_allocate(thread, request);
    }
    return hmm_guard_large_allocate(request);
}

void hmm_guard_flush(const char *call, struct thread *thread)
{
    if (thread_is_open(thread)) {
        hmm_guard_slots_check(call, thread);
        hmm_guard_quarantine_flush(thread);
    }
    hmm_fence_flush();
}

void *hmm_guard_allocate(const struct request *request)
{
    void *ptr = request->alignment <= SLOT_UNIT_BYTES
                    ? hmm_guard_malloc(request->bytes, request->origin)
                    : NULL;
    if (LIKELY(ptr != NULL)) {
        return ptr;
    }
    struct thread *thread = hmm_thread.thread;
    thread = thread != NULL ? thread : hmm_thread_open();
    return guard_allocate(thread, request);
}

HMM_COLD void *hmm_guard_allocate_last(const struct request *request)
{
    struct thread *thread = hmm_thread.thread;
    hmm_guard_flush(request->call, thread);
    hmm_thread_flush(thread);
    hmm_medium_yield();
    hmm_fence_yield(); /* of what has become free only now, too */
    return guard_allocate(thread, request);
}

/* What is left of a pointer into the arena that is in no slab, zone or run. */
static HMM_COLD HMM_NORETURN void accuse_stray(const char *call, const char *what_if_free,
                                               const void *ptr)
{
    const struct granule *granule = granule_of(ptr);
    bool was_run = granule->run.start == (uintptr_t)ptr;
    hmm_guard_accuse(call, ptr, was_run ? what_if_free : "invalid pointer, in no block", NULL);
}

/* Blocks of 0 bytes are a line apart. */
static void empty_check(const char *call, const void *ptr)
{
    if (!is_aligned((uintptr_t)ptr, LINE_BYTES)) {
        hmm_guard_accuse(call, ptr, "invalid pointer, inside a block", NULL);
    }
}

/* Of such a block nobody knows more than its size. */
static void empty_free(void *ptr, const struct claim *claim)
{
    empty_check(claim->call, ptr);
    if (claim->has_bytes && claim->bytes != 0 && hmm_fence_is_empty_block(ptr)) {
        hmm_guard_check_claim(claim, ptr, 0, claim->origin, 0, NULL);
    }
    if (!hmm_fence_free_empty(ptr)) {
        hmm_guard_accuse(claim->call, ptr, "double free", NULL);
    }
}

void hmm_guard_free_other(void *ptr, const struct claim *claim)
{
    switch (granule_kind(granule_of(ptr))) {
    case GRANULE_ZONE:
        hmm_guard_medium_free(ptr, claim);
        break;
    case GRANULE_LARGE:
        hmm_guard_large_free(ptr, claim);
        break;
    case GRANULE_EMPTY:
        empty_free(ptr, claim);
        break;
    default:
        accuse_stray(claim->call, "double free", ptr);
    }
}

/* Of a block that is no slot. */
static HMM_NOINLINE size_t usable_other(const char *call, const void *ptr)
{
    switch (granule_kind(granule_of(ptr))) {
    case GRANULE_ZONE:
        return hmm_guard_medium_usable(call, ptr);
    case GRANULE_LARGE:
        return hmm_guard_large_usable(call, ptr);
    case GRANULE_EMPTY:
        empty_check(call, ptr);
        if (!hmm_fence_is_empty_block(ptr)) {
            hmm_guard_accuse(call, ptr, "freed block", NULL);
        }
        return 0;
    default:
        accuse_stray(call, "freed block", ptr);
    }
}

size_t hmm_guard_usable(const char *call, const void *ptr)
{
    return LIKELY(granule_kind(granule_of(ptr)) == GRANULE_SLAB) ? hmm_guard_slot_usable(call, ptr)
                                                                 : usable_other(call, ptr);
}

void *hmm_guard_resize(void *ptr, size_t bytes, const struct claim *claim, size_t *old_bytes)
{
    switch (granule_kind(granule_of(ptr))) {
    case GRANULE_SLAB:
        return hmm_guard_slot_resize(ptr, bytes, claim, old_bytes);
    case GRANULE_ZONE:
        return hmm_guard_medium_resize(ptr, bytes, claim, old_bytes);
    case GRANULE_LARGE:
        return hmm_guard_large_resize(ptr, bytes, claim, old_bytes);
    default:
        *old_bytes = hmm_guard_usable(claim->call, ptr);
        return NULL;
    }
}

/* -------------------------------------------------------------------------------------- opening */

/* A thread's end: what it holds back may be used by others, and so may what is in its bins. */
static void thread_ends(struct thread *thread)
{
    hmm_guard_slots_check("pthread_exit", thread);
    hmm_guard_quarantine_flush(thread);
}

void hmm_guard_renew(void)
{
    hmm_random_renew();
    if (thread_is_open(hmm_thread.thread)) {
        hmm_thread.thread->guarded->quarantine.random_state = hmm_random_secret();
    }
}

void hmm_guard_inherit(void)
{
    hmm_thread_visit_unused(hmm_guard_quarantine_inherit);
}

void hmm_guard_start(enum guard_level level, bool has_sites)
{
    bool is_fast = level < GUARD_FENCES && !has_sites;
    hmm_settings.guard = (struct guard){
        .level = level,
        .has_sites = has_sites,
        .trailer_bytes = SEAL_BYTES + (has_sites ? SITES_BYTES : 0),
        .bin_bytes_max = is_fast ? SMALL_BYTES_MAX - SEAL_BYTES : 0,
        .short_request_span_bytes = is_fast ? SHORT_REQUEST_SPAN_BYTES : 0,
        .quarantine_block_bytes =
            level >= GUARD_QUARANTINE ? QUARANTINE_BYTES / QUARANTINE_BLOCK_SHARE : 0,
        .key = {.add = hmm_random_secret(), .multiply = hmm_random_secret() | 1},
    };
    hmm_settings.slabs = (struct slab_guard){
        .link_key = (uintptr_t)hmm_random_secret() | 1,
        .first_slot = GUARD_FIRST_SLOT,
        .is_shuffled = level >= GUARD_QUARANTINE,
    };
    hmm_thread_set_guard(thread_ends, is_fast ? SHORT_ROOM_SPAN_BYTES : 0);
    hmm_medium_set_exact(); /* a seal tells only so much slack */
}
