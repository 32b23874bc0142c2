/*
 * measure.c - see measure.h.
 */
#include "measure.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

uint64_t ticks_cost(void)
{
    const int trial_count = 1000000;
    uint64_t least_ticks = UINT64_MAX;
    for (int trial = 0; trial < trial_count; trial++) {
        uint64_t start = ticks_now();
        uint64_t ticks = ticks_now() - start;
        least_ticks = ticks < least_ticks ? ticks : least_ticks;
    }
    return least_ticks;
}

double ticks_per_ns(void)
{
    const uint64_t while_ns = 50000000;
    uint64_t start_ns = clock_ns(CLOCK_MONOTONIC);
    uint64_t start_ticks = ticks_now();
    uint64_t elapsed_ns;
    do {
        elapsed_ns = clock_ns(CLOCK_MONOTONIC) - start_ns;
    } while (elapsed_ns < while_ns);
    return (double)(ticks_now() - start_ticks) / (double)elapsed_ns;
}

static int double_compare(const void *left, const void *right)
{
    double a = *(const double *)left;
    double b = *(const double *)right;
    return (a > b) - (a < b);
}

double median_of(double *values, size_t count)
{
    qsort(values, count, sizeof *values, double_compare);
    return (values[(count - 1) / 2] + values[count / 2]) / 2;
}

static int ticks_compare(const void *left, const void *right)
{
    uint32_t a = *(const uint32_t *)left;
    uint32_t b = *(const uint32_t *)right;
    return (a > b) - (a < b);
}

void ticks_sort(uint32_t *ticks, size_t count)
{
    qsort(ticks, count, sizeof *ticks, ticks_compare);
}

void *array_map(size_t bytes)
{
    void *array = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    if (array == MAP_FAILED) {
        perror("bench");
        exit(EXIT_FAILURE);
    }
    return memset(array, 0, bytes);
}

size_t array_smallest(size_t low_bytes, size_t high_bytes, size_t precision_bytes,
                      array_trial trial, void *context)
{
    if (!trial(high_bytes, context)) {
        return 0;
    }
    while (high_bytes - low_bytes > precision_bytes) {
        size_t middle_bytes = low_bytes + (high_bytes - low_bytes) / 2;
        *(trial(middle_bytes, context) ? &high_bytes : &low_bytes) = middle_bytes;
    }
    return high_bytes;
}
