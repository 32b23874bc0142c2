/*
 * measure.h - clocks, order statistics, and the smallest array that will do.
 */
#ifndef BENCH_MEASURE_H
#define BENCH_MEASURE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

static inline uint64_t clock_ns(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

/* The finest clock there is. The fences keep what comes before it from ending after it, and what
 * comes after it from starting before. */
#if defined(__SSE2__) /* which lfence is part of */

#define TICK_NAME "cycles"

static inline uint64_t ticks_now(void)
{
    __builtin_ia32_lfence();
    uint64_t ticks = __builtin_ia32_rdtsc();
    __builtin_ia32_lfence();
    return ticks;
}

#else

#define TICK_NAME "ns"

static inline uint64_t ticks_now(void)
{
    return clock_ns(CLOCK_MONOTONIC);
}

#endif

/* What reading the clock twice costs, at its best. */
uint64_t ticks_cost(void);

/* How many ticks are a nanosecond. */
double ticks_per_ns(void);

/* Both sort what they are given. */
double median_of(double *values, size_t count);
void ticks_sort(uint32_t *ticks, size_t count);

/* Pages that have been written to once, so that no page fault is measured later. Ends the program
 * when memory is out. */
void *array_map(size_t bytes);

/* Whether something fits in an array of `bytes`. */
typedef bool (*array_trial)(size_t bytes, void *context);

/* The smallest array in which the trial succeeds, to `precision_bytes`, by bisection between `low`,
 * where it must fail, and `high`, where it should succeed; 0: it fails there too. A heap may fail
 * in an array and succeed in a smaller one by luck, so this is an edge, and in theory not the
 * lowest. */
size_t array_smallest(size_t low_bytes, size_t high_bytes, size_t precision_bytes,
                      array_trial trial, void *context);

#endif
