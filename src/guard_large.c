/*
 * guard_large.c - large blocks: what a seal would say is in their descriptors, and fences lie
 * around them. See guard.h.
 */
#include "fence.h"
#include "guard_block.h"
#include "guard_rooms.h"
#include "handle.h"
#include "large.h"
#include "medium.h"
#include "os.h"

/* Behind a block that no fence follows lies so much at least before its last page ends, and is 0: a
 * write past the end begins there. */
enum { TAIL_BYTES = 8 };

/* Writes down what a seal says of others. */
static void run_note(void *ptr, const struct request *request)
{
    struct run *run = &granule_of(ptr)->run;
    run->request_bytes = request->bytes;
    run->origin = (uint8_t)request->origin;
    run->alignment_shift = (uint8_t)seal_alignment_shift(request->alignment);
    run->site = hmm_settings.guard.has_sites ? hmm_sites_capture() : 0;
}

void *hmm_guard_fenced_allocate(const struct request *request)
{
    void *ptr = hmm_fence_allocate(request->alignment, request->bytes);
    if (ptr != NULL) {
        run_note(ptr, request);
    }
    return ptr;
}

void *hmm_guard_large_allocate(const struct request *request)
{
    void *ptr =
        hmm_settings.guard.level >= GUARD_QUARANTINE ? hmm_guard_fenced_allocate(request) : NULL;
    if (ptr != NULL) {
        return ptr;
    }
    ptr = hmm_large_allocate(request->alignment, request->bytes + TAIL_BYTES);
    if (ptr != NULL) {
        granule_of(ptr)->run.is_fenced = false;
        hmm_large_clear(ptr, granule_of(ptr)->run.bytes);
        run_note(ptr, request);
    }
    return ptr;
}

static HMM_COLD HMM_NORETURN void accuse_run(const char *call, const void *ptr, const char *what,
                                             const void *byte)
{
    const struct run *run = &granule_of(ptr)->run;
    struct crime crime = {.what = what, .at = run->start, .block_bytes = run->request_bytes};
    crime.site_allocated = run->site;
    if (byte != NULL) {
        crime.has_byte = true;
        crime.byte_offset = (const char *)byte - (const char *)ptr;
    }
    hmm_handle_accuse(NULL, call, ptr, &crime);
}

/* The run of a large block whose surroundings are as they were. Between the block and a fence
 * so many bytes are looked at; without a fence less than a page is to be looked at, and all
 * of it is. */
static struct run *large_open(const char *call, const void *ptr, size_t look_bytes)
{
    struct granule *first = granule_of(ptr);
    struct run *run = &first->run;
    if (run->start != (uintptr_t)ptr) {
        accuse_run(call, ptr, "invalid pointer, inside a block", NULL);
    }
    const uintptr_t end = run->start + run->request_bytes;
    const uintptr_t room_end =
        run->start + run->bytes + (run->is_fenced ? hmm_fence_tail_bytes(first) : 0);
    const uintptr_t look_end = run->is_fenced && look_bytes < room_end - end
                                   ? size_min(align_up(end + look_bytes, LINE_BYTES), room_end)
                                   : room_end;
    const void *before =
        run->is_fenced ? first_nonzero((const char *)run->start - hmm_fence_lead_bytes(first), ptr)
                       : NULL;
    const void *behind = first_nonzero((const void *)end, (const void *)look_end);
    if (before != NULL || behind != NULL) {
        accuse_run(call, ptr, before != NULL ? "write before the start" : "write past the end",
                   before != NULL ? before : behind);
    }
    return run;
}

void hmm_guard_large_free(void *ptr, const struct claim *claim)
{
    struct run *run = large_open(claim->call, ptr, SIZE_MAX);
    hmm_guard_check_claim(claim, ptr, run->request_bytes, (enum origin)run->origin,
                          run->alignment_shift, NULL);
    if (run->is_fenced) {
        hmm_fence_free(granule_of(ptr), hmm_settings.guard.level >= GUARD_FENCES
                                            ? FENCE_MEMORY_GOES
                                            : FENCE_MEMORY_STAYS);
    } else {
        struct crime crime;
        crime_clear(&crime);
        if (!hmm_large_free_cleared(ptr, &crime)) {
            hmm_handle_accuse(NULL, claim->call, ptr, &crime);
        }
    }
    hmm_medium_purge_excess(ZONES_BYTES_WITH_LARGE);
}

size_t hmm_guard_large_usable(const char *call, const void *ptr)
{
    return large_open(call, ptr, SIZE_MAX)->request_bytes;
}

/* ------------------------------------------------------------------------------------- resizing */

enum {
    /* So much of what a block before a fence had may lie between its end and the fence
     * after a realloc. */
    ROOM_SHARE = 8,
    /* What a realloc looks at behind the old end, besides what it hands out. */
    LOOK_BYTES = 256,
};

void *hmm_guard_large_allocate_roomy(size_t bytes, size_t old_bytes, enum origin origin)
{
    size_t roomy_bytes = old_bytes + old_bytes / ROOM_SHARE;
    bool is_growing = bytes > old_bytes && bytes < roomy_bytes;
    if (!is_growing || old_bytes <= MEDIUM_BYTES_MAX ||
        hmm_settings.guard.level != GUARD_QUARANTINE) {
        return NULL;
    }
    const struct request roomy = {
        .call = "realloc", .alignment = SLOT_UNIT_BYTES, .bytes = roomy_bytes, .origin = origin};
    void *ptr = hmm_guard_fenced_allocate(&roomy);
    if (ptr != NULL) {
        granule_of(ptr)->run.request_bytes = bytes;
    }
    return ptr;
}

/* [start, end), which ends with a page, is no part of the block any more. */
static void tail_clear(uintptr_t start, uintptr_t end)
{
    const uintptr_t pages = align_up(start, hmm_os_page_bytes());
    if (pages < end && hmm_os_purge((void *)pages, end - pages)) {
        end = pages;
    }
    memset((void *)start, 0, end - start);
}

/* What has been added behind so many bytes of a block: the rest of the granule that they end
 * in may be anything, and those that follow are as the arena gave them, or were cleared when
 * the block shrank. */
static void grown_clear(char *ptr, size_t old_bytes, size_t bytes)
{
    const uintptr_t start = (uintptr_t)ptr + old_bytes;
    const uintptr_t end = (uintptr_t)ptr + bytes;
    const uintptr_t granule_end = size_min(align_up(start, GRANULE_BYTES), end);
    memset((void *)start, 0, granule_end - start);
    if (granule_end < end) {
        hmm_large_clear((void *)granule_end, end - granule_end);
    }
}

/* Up to the fence, or a part of it: the fence stays where it is. */
static void *fenced_resize(void *ptr, struct run *run, size_t bytes)
{
    if (hmm_settings.guard.level >= GUARD_FENCES || bytes > run->bytes ||
        bytes < run->bytes - run->bytes / ROOM_SHARE) {
        return NULL;
    }
    if (bytes < run->request_bytes) {
        memset((char *)ptr + bytes, 0, run->request_bytes - bytes);
    }
    return ptr;
}

static void *open_resize(const char *call, void *ptr, const struct run *run, size_t bytes)
{
    const size_t old_bytes = run->bytes;
    size_t usable_bytes;
    struct crime crime;
    crime_clear(&crime);
    if (bytes < run->request_bytes) {
        tail_clear((uintptr_t)ptr + bytes, (uintptr_t)ptr + run->bytes);
    }
    void *resized = hmm_large_resize(ptr, bytes + TAIL_BYTES, &usable_bytes, &crime);
    if (UNLIKELY(crime.what != NULL)) {
        hmm_handle_accuse(NULL, call, ptr, &crime);
    }
    if (resized != NULL && granule_of(resized)->run.bytes > old_bytes) {
        grown_clear(resized, old_bytes, granule_of(resized)->run.bytes);
    }
    return resized;
}

void *hmm_guard_large_resize(void *ptr, size_t bytes, const struct claim *claim, size_t *old_bytes)
{
    const size_t known_bytes = granule_of(ptr)->run.request_bytes;
    struct run *run =
        large_open(claim->call, ptr, LOOK_BYTES + (bytes > known_bytes ? bytes - known_bytes : 0));
    const struct run old = *run;
    hmm_guard_check_claim(claim, ptr, old.request_bytes, (enum origin)old.origin,
                          old.alignment_shift, NULL);
    *old_bytes = old.request_bytes;
    if (bytes <= MEDIUM_BYTES_MAX) {
        return NULL;
    }
    void *resized =
        old.is_fenced ? fenced_resize(ptr, run, bytes) : open_resize(claim->call, ptr, run, bytes);
    if (resized != NULL) {
        granule_of(resized)->run.is_fenced = old.is_fenced;
        run_note(resized, &(struct request){.call = claim->call,
                                            .alignment = (size_t)1 << old.alignment_shift,
                                            .bytes = bytes,
                                            .origin = (enum origin)old.origin});
    }
    return resized;
}
