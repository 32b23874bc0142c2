/*
 * sites.h - where in the program a call came from: call stacks, each kept once, as numbers.
 *
 * A stack is captured by libc's backtrace(), which reads the unwind tables that every program
 * carries. Frame pointers would be cheaper, but distributions compile without them, and a stack
 * then ends in libc. So a capture costs microseconds, and is made only where an option asks for it.
 *
 * backtrace() loads libgcc_s at its first call, which takes the loader's lock and allocates. That
 * works from inside an allocation, but neither before libc is initialised nor while the loader is
 * about to load something, so until then nothing is captured. Later calls do neither, where the
 * unwinder finds its tables by _dl_find_object (glibc 2.35, GCC 12); an older one takes the
 * loader's lock at each call. A thread that captures and is led back here captures nothing.
 *
 * Stacks lie in a reservation of the library's own, of a fixed size, linked from a table by their
 * hash. Nothing is ever removed, so there is no lock, and a forked child finds all of it.
 */
#ifndef HMM_SITES_H
#define HMM_SITES_H

#include "base.h"

#include <stdatomic.h>

enum {
    SITE_FRAMES_MAX = 30,
    SITE_UNIT_BYTES = 8, /* a number is a place in the store, in these units */
};

/* For readers from outside: whatever else the store holds. */
struct site_stack {
    _Atomic uint32_t next; /* of the same bucket; written before the stack is linked */
    uint32_t hash;
    uint32_t frame_count;
    uint32_t padding;
    uintptr_t frames[];
};

/* A multiplication a frame (the constant is the golden ratio's), and the upper half of it all. */
static inline uint32_t site_stack_hash(const uintptr_t *frames, size_t frame_count)
{
    uint64_t hash = frame_count;
    for (size_t i = 0; i < frame_count; i++) {
        hash = rotate_left((hash ^ frames[i]) * 0x9e3779b97f4a7c15u, 29);
    }
    return (uint32_t)(hash >> 32);
}

struct site_store;

/* release by whoever opens it, acquire by everybody else; NULL: nothing is prepared */
extern HMM_HIDDEN _Atomic(struct site_store *) hmm_sites_store;

/* From now on stacks are captured. Not before the library's constructor runs. More than once is
 * harmless. */
HMM_HIDDEN void hmm_sites_prepare(void);

/* The number of the calling thread's stack, from the caller of the library on. 0: none, because
 * nothing is prepared, this thread is already about it, or no room is left. No lock may be held.
 * errno stays as it is. */
HMM_HIDDEN uint32_t hmm_sites_capture(void);

/* The frames of a stack, the innermost first: addresses inside the calling instructions. Returns
 * how many there are, `frame_count_max` at most; 0: no such stack. Any thread, at any time. */
HMM_HIDDEN size_t hmm_sites_frames(uint32_t site, uintptr_t *frames, size_t frame_count_max);

/* The calling thread's stack itself, as hmm_sites_frames would give it. */
HMM_HIDDEN size_t hmm_sites_here(uintptr_t frames[SITE_FRAMES_MAX]);

/* Where the stacks lie; 0, 0: nowhere yet. */
HMM_HIDDEN void hmm_sites_memory(uintptr_t *start, uintptr_t *end);

/* A line for one frame, as addr2line and the symbolizers of sanitizers understand it:
 *     #0 0x55d1e8a4a16c (/usr/bin/program+0x116c)
 * In one write, unless the module's name is too long for it. Asks the loader, and may wait
 * for it. */
HMM_HIDDEN void hmm_sites_write_frame(int file, size_t index, uintptr_t frame);

/* A line a frame on standard error. */
HMM_HIDDEN void hmm_sites_print(const uintptr_t *frames, size_t frame_count);

#endif
