/*
 * sites.c - call stacks, each kept once. See sites.h.
 *
 *     table    [ stack | 0 | stack | ... ]      the last stack of each hash, 0: none
 *                  |
 *                  v
 *     stacks   next, hash, count, frames ...    one behind the other, never moved
 *
 * The number of a stack is its place in units of 8 bytes, so 0 is free to mean "none".
 */
#include "sites.h"
#include "os.h"

#include <link.h>
#include <unistd.h>

enum {
    /* Address space; memory only as far as stacks fill it. Half a million stacks of usual depth. */
    STORE_BYTES = 64 << 20,
    TABLE_COUNT = 1 << 15,
    /* capture, the rooms and the door: what is dropped in front of the caller's own frames. */
    OWN_FRAMES_MAX = 12,
};

struct site_store {
    /* release by whoever links a stack pairs with acquire by whoever looks for one */
    _Atomic uint32_t table[TABLE_COUNT];
    _Atomic uint32_t used_units; /* the next stack begins here; may pass the end */
    uint32_t padding;
};

static_assert(sizeof(struct site_store) % SITE_UNIT_BYTES == 0, "stacks begin at whole units");
static_assert(sizeof(struct site_stack) % SITE_UNIT_BYTES == 0, "stacks are whole units");

_Atomic(struct site_store *) hmm_sites_store;
static _Thread_local bool is_capturing;
static _Atomic bool has_unwound; /* relaxed: once it is true it stays so */

/* The library's own text, 0: it lies in the program itself, where no range tells whose
 * a frame is. */
static uintptr_t own_start;
static uintptr_t own_end;

#ifdef __GLIBC__

#include <execinfo.h>

/* The loader's. Weak, so that the library needs libc only. */
#pragma weak _r_debug

/* The first time backtrace() loads a library, which initialises libc first where nobody has
 * done so yet, without telling it the environment; and the loader must not be in the middle
 * of loading another. */
static bool can_unwind(void)
{
    return atomic_load_explicit(&has_unwound, memory_order_relaxed) ||
           (environ != NULL && (&_r_debug == NULL || _r_debug.r_state == RT_CONSISTENT));
}

#else

/* An unwinder asks musl's loader for modules, and would wait for ever while that one loads. */
static bool can_unwind(void)
{
    return false;
}

static int backtrace(void **frames, int frame_count)
{
    (void)frames;
    (void)frame_count;
    return 0;
}

#endif

/* The linker's. */
extern HMM_HIDDEN const ElfW(Ehdr) __ehdr_start;
extern HMM_HIDDEN const char etext[];

/* ------------------------------------------------------------------------------------ capturing */

static bool is_own(uintptr_t frame)
{
    return frame >= own_start && frame < own_end;
}

/* Frames are return addresses: one less lies inside the call. */
size_t hmm_sites_here(uintptr_t frames[SITE_FRAMES_MAX])
{
    void *found[SITE_FRAMES_MAX + OWN_FRAMES_MAX];
    if (is_capturing || !can_unwind()) {
        return 0;
    }
    int saved = errno;
    is_capturing = true;
    int found_count = backtrace(found, SITE_FRAMES_MAX + OWN_FRAMES_MAX);
    is_capturing = false;
    errno = saved;
    atomic_store_explicit(&has_unwound, true, memory_order_relaxed);
    int first = 0;
    while (first < found_count && is_own((uintptr_t)found[first])) {
        first++;
    }
    size_t count = size_min((size_t)(found_count - first), SITE_FRAMES_MAX);
    for (size_t i = 0; i < count; i++) {
        frames[i] = (uintptr_t)found[(size_t)first + i] - 1;
    }
    return count;
}

/* -------------------------------------------------------------------------------------- keeping */

static struct site_stack *stack_at(struct site_store *in, uint32_t site)
{
    return (struct site_stack *)(void *)((char *)in + (size_t)site * SITE_UNIT_BYTES);
}

static bool is_stack(const struct site_stack *stack, uint32_t hash, const uintptr_t *frames,
                     size_t frame_count)
{
    return stack->hash == hash && stack->frame_count == frame_count &&
           memcmp(stack->frames, frames, frame_count * sizeof frames[0]) == 0;
}

/* Looks in the list from `site` up to `end`. 0: not there. */
static uint32_t stack_find(struct site_store *in, uint32_t site, uint32_t end, uint32_t hash,
                           const uintptr_t *frames, size_t frame_count)
{
    while (site != end && !is_stack(stack_at(in, site), hash, frames, frame_count)) {
        site = atomic_load_explicit(&stack_at(in, site)->next, memory_order_relaxed);
    }
    return site != end ? site : 0;
}

/* A stack that nobody sees yet. 0: no room. */
static uint32_t stack_create(struct site_store *in, uint32_t hash, const uintptr_t *frames,
                             size_t frame_count)
{
    const uint32_t units_max = STORE_BYTES / SITE_UNIT_BYTES;
    uint32_t units = (uint32_t)(align_up(sizeof(struct site_stack) + frame_count * sizeof frames[0],
                                         SITE_UNIT_BYTES) /
                                SITE_UNIT_BYTES);
    if (atomic_load_explicit(&in->used_units, memory_order_relaxed) > units_max - units) {
        return 0;
    }
    uint32_t site = atomic_fetch_add_explicit(&in->used_units, units, memory_order_relaxed);
    if (site > units_max - units) {
        return 0;
    }
    struct site_stack *stack = stack_at(in, site);
    stack->hash = hash;
    stack->frame_count = (uint32_t)frame_count;
    memcpy(stack->frames, frames, frame_count * sizeof frames[0]);
    return site;
}

/* Who comes second with the same stack finds the first one's, and its own room is lost. */
static uint32_t stack_keep(struct site_store *in, const uintptr_t *frames, size_t frame_count)
{
    uint32_t hash = site_stack_hash(frames, frame_count);
    _Atomic uint32_t *bucket = &in->table[hash % TABLE_COUNT];
    uint32_t head = atomic_load_explicit(bucket, memory_order_acquire);
    uint32_t seen = 0;
    uint32_t created = 0;
    for (;;) {
        uint32_t found = stack_find(in, head, seen, hash, frames, frame_count);
        if (found != 0) {
            return found;
        }
        seen = head;
        created = created != 0 ? created : stack_create(in, hash, frames, frame_count);
        if (created == 0) {
            return 0;
        }
        atomic_store_explicit(&stack_at(in, created)->next, head, memory_order_relaxed);
        if (atomic_compare_exchange_strong_explicit(bucket, &head, created, memory_order_release,
                                                    memory_order_acquire)) {
            return created;
        }
    }
}

uint32_t hmm_sites_capture(void)
{
    uintptr_t frames[SITE_FRAMES_MAX];
    struct site_store *in = atomic_load_explicit(&hmm_sites_store, memory_order_acquire);
    if (in == NULL) {
        return 0;
    }
    size_t frame_count = hmm_sites_here(frames);
    return frame_count != 0 ? stack_keep(in, frames, frame_count) : 0;
}

/* The number may come out of damaged memory, so what it leads to has to prove itself. */
size_t hmm_sites_frames(uint32_t site, uintptr_t *frames, size_t frame_count_max)
{
    struct site_store *in = atomic_load_explicit(&hmm_sites_store, memory_order_acquire);
    const uint32_t first = sizeof(struct site_store) / SITE_UNIT_BYTES;
    const uint32_t last =
        (STORE_BYTES - sizeof(struct site_stack) - SITE_FRAMES_MAX * sizeof(uintptr_t)) /
        SITE_UNIT_BYTES;
    if (in == NULL || site < first || site > last) {
        return 0;
    }
    const struct site_stack *stack = stack_at(in, site);
    if (stack->frame_count == 0 || stack->frame_count > SITE_FRAMES_MAX ||
        stack->hash != site_stack_hash(stack->frames, stack->frame_count)) {
        return 0;
    }
    size_t count = size_min(stack->frame_count, frame_count_max);
    memcpy(frames, stack->frames, count * sizeof frames[0]);
    return count;
}

void hmm_sites_memory(uintptr_t *start, uintptr_t *end)
{
    *start = (uintptr_t)atomic_load_explicit(&hmm_sites_store, memory_order_acquire);
    *end = *start != 0 ? *start + STORE_BYTES : 0;
}

/* ------------------------------------------------------------------------------------ preparing */

/* Frames of a program that the library is a part of are the program's. */
static void find_own_text(void)
{
    if (!hmm_os_is_in_program()) {
        own_start = (uintptr_t)&__ehdr_start;
        own_end = (uintptr_t)etext;
    }
}

void hmm_sites_prepare(void)
{
    if (atomic_load_explicit(&hmm_sites_store, memory_order_acquire) != NULL) {
        return;
    }
    find_own_text();
    struct site_store *opened = hmm_os_reserve(STORE_BYTES, STORE_BYTES);
    if (opened == NULL) {
        return;
    }
    struct site_store *none = NULL;
    hmm_os_name(opened, STORE_BYTES, "hmm call stacks");
    atomic_init(&opened->used_units, sizeof(struct site_store) / SITE_UNIT_BYTES);
    if (!atomic_compare_exchange_strong_explicit(&hmm_sites_store, &none, opened,
                                                 memory_order_release, memory_order_relaxed)) {
        hmm_os_release(opened, STORE_BYTES);
    }
}
