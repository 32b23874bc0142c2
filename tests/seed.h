/*
 * seed.h - numbers at random for tests: the same for the same seed.
 */
#ifndef HMM_TESTS_SEED_H
#define HMM_TESTS_SEED_H

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <time.h>

/* SEED of the environment; without, another one each time. Never 0. */
static inline uint64_t seed_draw(void)
{
    const char *given = getenv("SEED");
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    uint64_t seed =
        given != NULL ? strtoull(given, NULL, 10) : (uint64_t)now.tv_nsec * 1000003u + 1;
    return seed != 0 ? seed : 1;
}

/* Xorshift (G. Marsaglia, 2003). The state is not 0. */
static inline uint64_t random_next(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

static inline size_t random_below(uint64_t *state, size_t bound)
{
    return (size_t)(random_next(state) >> 11) % bound;
}

#endif
