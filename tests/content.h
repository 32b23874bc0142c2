/*
 * content.h - blocks that know what is in them, for random tests of the process heap.
 *
 * A block that two callers hold, that moved by a byte, or whose pages were given back too early is
 * seen by its content. Large blocks are written at both ends and at one place a page, so that they
 * cost little more than the faults.
 */
#ifndef HMM_TESTS_CONTENT_H
#define HMM_TESTS_CONTENT_H

#include "seed.h"

#include <stdbool.h>

enum {
    CONTENT_WHOLE_BYTES = 2048, /* from both ends so much is written whole */
    CONTENT_STEP_BYTES = 4093,  /* no multiple of anything */
    CONTENT_MEBIBYTE = 1 << 20,
};

/* Mostly small, some of medium size in all its octaves, a few large. */
static inline size_t random_bytes(uint64_t *state)
{
    size_t share = random_below(state, 1000);
    if (share < 800) {
        return random_below(state, 520);
    }
    if (share < 930) {
        return random_below(state, 8400);
    }
    if (share < 985) {
        size_t octave_bytes = (size_t)8192 << random_below(state, 7);
        return octave_bytes + random_below(state, octave_bytes);
    }
    return CONTENT_MEBIBYTE - 5000 + random_below(state, 2 * CONTENT_MEBIBYTE);
}

static inline unsigned char content_byte(uint32_t salt, size_t i)
{
    return (unsigned char)(salt + i * 31 + (i >> 8) * 7);
}

/* The place after `i` that is written to in a block of so many bytes. */
static inline size_t content_next(size_t i, size_t bytes)
{
    bool is_inside = i >= CONTENT_WHOLE_BYTES && bytes - i > CONTENT_WHOLE_BYTES;
    size_t next = is_inside ? i + CONTENT_STEP_BYTES : i + 1;
    return is_inside && next > bytes - CONTENT_WHOLE_BYTES ? bytes - CONTENT_WHOLE_BYTES : next;
}

static inline void content_write(unsigned char *ptr, size_t bytes, uint32_t salt)
{
    for (size_t i = 0; i < bytes; i = content_next(i, bytes)) {
        ptr[i] = content_byte(salt, i);
    }
}

/* Whether the first `kept_bytes` of a block that was written as one of `bytes` are as they were. */
static inline bool content_is_kept(const unsigned char *ptr, size_t bytes, uint32_t salt,
                                   size_t kept_bytes)
{
    size_t wrong = 0;
    for (size_t i = 0; i < bytes && i < kept_bytes; i = content_next(i, bytes)) {
        wrong += ptr[i] != content_byte(salt, i);
    }
    return wrong == 0;
}

static inline bool content_is(const unsigned char *ptr, size_t bytes, uint32_t salt)
{
    return content_is_kept(ptr, bytes, salt, bytes);
}

static inline bool content_is_zero(const unsigned char *ptr, size_t bytes)
{
    unsigned char sum = 0;
    for (size_t i = 0; i < bytes; i++) {
        sum |= ptr[i];
    }
    return sum == 0;
}

#endif
