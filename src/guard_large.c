/*
 * guard_large.c - large blocks: what a seal would say is in their descriptors, and fences lie around them. See
 * guard.h.
 */
#include "fence.h"
#include "guard_block.h"
#include "guard_rooms.h"
#include "large.h"

/* Writes down what a seal says of others. */
static void run_note(void *ptr, size_t alignment, size_t bytes, enum origin origin)
{
    struct run *run = &granule_of(ptr)->run;
    run->request_bytes = bytes;
    run->origin = (uint8_t)origin;
    run->alignment_shift = (uint8_t)seal_alignment_shift(alignment);
    run->site = hmm_settings.guard.has_sites ? hmm_sites_capture() : 0;
}

void *hmm_guard_fenced_allocate(size_t alignment, size_t bytes, enum origin origin)
{
    void *ptr = hmm_fence_allocate(alignment, bytes);
    if (ptr != NULL) {
        run_note(ptr, alignment, bytes, origin);
    }
    return ptr;
}

void *hmm_guard_large_allocate(size_t alignment, size_t bytes, enum origin origin)
{
    void *ptr = hmm_settings.guard.level >= GUARD_QUARANTINE
                    ? hmm_guard_fenced_allocate(alignment, bytes, origin)
                    : NULL;
    if (ptr != NULL) {
        return ptr;
    }
    ptr = hmm_large_allocate(alignment, bytes);
    if (ptr != NULL) {
        granule_of(ptr)->run.is_fenced = false;
        hmm_large_clear(ptr, granule_of(ptr)->run.bytes);
        run_note(ptr, alignment, bytes, origin);
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
    hmm_guard_judge(call, ptr, &crime);
}

/* The run of a large block whose surroundings are as they were. */
static struct run *large_open(const char *call, const void *ptr)
{
    struct granule *first = granule_of(ptr);
    struct run *run = &first->run;
    if (run->start != (uintptr_t)ptr) {
        accuse_run(call, ptr, "invalid pointer, inside a block", NULL);
    }
    const char *end = (const char *)run->start + run->request_bytes;
    if (!run->is_fenced) {
        const void *damage = first_nonzero(end, (const char *)run->start + run->bytes);
        if (damage != NULL) {
            accuse_run(call, ptr, "write past the end", damage);
        }
        return run;
    }
    const void *before = first_nonzero((const char *)run->start - hmm_fence_lead_bytes(first), ptr);
    const void *behind = first_nonzero(end, end + hmm_fence_tail_bytes(first));
    if (before != NULL || behind != NULL) {
        accuse_run(call, ptr, before != NULL ? "write before the start" : "write past the end",
                   before != NULL ? before : behind);
    }
    return run;
}

void hmm_guard_large_free(void *ptr, const struct claim *claim)
{
    struct run *run = large_open(claim->call, ptr);
    hmm_guard_check_claim(claim, ptr, run->request_bytes, (enum origin)run->origin,
                          run->alignment_shift, NULL);
    if (run->is_fenced) {
        hmm_fence_free(granule_of(ptr), hmm_settings.guard.level >= GUARD_FENCES
                                            ? FENCE_MEMORY_GOES
                                            : FENCE_MEMORY_STAYS);
        return;
    }
    struct crime crime;
    crime_clear(&crime);
    if (!hmm_large_free_cleared(ptr, &crime)) {
        hmm_guard_judge(claim->call, ptr, &crime);
    }
}

size_t hmm_guard_large_usable(const char *call, const void *ptr)
{
    return large_open(call, ptr)->request_bytes;
}
