/*
 * harness.h - what the malloc workloads share: workers, places, random numbers, the report.
 *
 * A workload is a program that calls malloc, free, calloc and realloc, and nothing else of an
 * allocator's: which one answers is decided by LD_PRELOAD. The harness takes its own memory from
 * mmap, so every call that an allocator sees is the workload's.
 *
 *     WORKLOAD [SCALE_PERCENT [THREADS]]
 *
 * Each workload is built twice. WORKLOAD is for time and memory: nothing stands between it and the
 * allocator, and after the work it idles for a second, without a call, before it looks at its
 * resident size. WORKLOAD.calls (built with MEASURE_CALLS) reads a clock around every single call
 * instead. Either prints one line, the first
 *
 *     wall_ns=N live_bytes=N after_bytes=N table_bytes=N
 *
 * and the second the calls' percentiles, `wall_ns` being the time of the work alone, `live_bytes`
 * what is still allocated at its end, as asked for, and `table_bytes` what the harness itself had
 * resident during the work and no more after it:
 *
 *     p99.9_ns=N p99.99_ns=N p100_ns=N
 */
#ifndef BENCH_MALLOC_HARNESS_H
#define BENCH_MALLOC_HARNESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include "measure.h"

/* -------------------------------------------------------------------------------------- workers */

enum {
    CACHE_LINE_BYTES = 64,
    PAGE_BYTES = 4096, /* for touching: larger pages are touched more than once */
    STEP_SHIFT = 4,    /* a histogram has 16 steps a doubling: percentiles within 6 % */
    STEP_COUNT = (64 - STEP_SHIFT) << STEP_SHIFT,
};

/* What a thread of a workload has to itself. */
struct worker {
    unsigned index;
    uint64_t random;
    size_t live_bytes; /* taken less given; of one worker alone it may be below zero, and wrap */
    uint64_t start_ns, end_ns; /* of its work */
    uint64_t worst_ticks;
    uint32_t calls_by_step[STEP_COUNT]; /* only where single calls are measured */
};

struct workload {
    void (*prepare)(void);               /* maps tables before the clock starts; NULL: none */
    void (*work)(struct worker *worker); /* what each worker does */
    bool is_threaded;      /* else the work is the main thread's, and the process has no other */
    bool is_paired;        /* the number of workers must be even */
    unsigned threads_each; /* workers for each thread that the command line asks for; 0: one */
};

/* Runs the workload and prints its line: the exit status. Threads stay, asleep, until the end. */
int workload_run(const struct workload *workload, int argc, char **argv);

unsigned worker_count(void);

/* Waits until every worker is here. */
void worker_meet(void);

/* `count` at the scale that the command line asks for, at least 1. */
size_t scaled(size_t count);

/* Zeroed memory that is there: no page fault will be measured later. It goes away when the work is
 * done, so that it does not count as resident after it. */
void *table_map(size_t bytes);

/* Ends the program, which has found that the allocator is not one. */
_Noreturn void harness_fail(const char *reason);

/* ------------------------------------------------------------------------------- random numbers */

/* splitmix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014): a
 * counter whose bits are mixed. */
static inline uint64_t random_next(struct worker *worker)
{
    uint64_t mixed = worker->random += 0x9e3779b97f4a7c15;
    mixed = (mixed ^ mixed >> 30) * 0xbf58476d1ce4e5b9;
    mixed = (mixed ^ mixed >> 27) * 0x94d049bb133111eb;
    return mixed ^ mixed >> 31;
}

static inline size_t random_below(struct worker *worker, size_t limit)
{
    return (size_t)((random_next(worker) >> 32) * limit >> 32);
}

static inline size_t random_between(struct worker *worker, size_t least, size_t most)
{
    return least + random_below(worker, most - least + 1);
}

static inline bool random_has_chance(struct worker *worker, unsigned percent)
{
    return random_below(worker, 100) < percent;
}

/* Each doubling from `least_bytes` on, `doublings` of them, is as likely as the next. */
static inline size_t bytes_log_uniform(struct worker *worker, size_t least_bytes, size_t doublings)
{
    size_t low_bytes = least_bytes << random_below(worker, doublings);
    return random_between(worker, low_bytes, 2 * low_bytes - 1);
}

/* A power law: each doubling is 0.62 times as likely as the one before. */
static inline size_t bytes_heavy_tail(struct worker *worker, size_t least_bytes, size_t doublings)
{
    size_t doubling = 0;
    while (random_has_chance(worker, 62)) {
        doubling = (doubling + 1) % doublings;
    }
    size_t low_bytes = least_bytes << doubling;
    return random_between(worker, low_bytes, 2 * low_bytes - 1);
}

/* ---------------------------------------------------------------------------------------- calls */

#ifdef MEASURE_CALLS

void worker_count_call(struct worker *worker, uint64_t ticks);

static inline void *call_malloc(struct worker *worker, size_t bytes)
{
    uint64_t start = ticks_now();
    void *ptr = malloc(bytes);
    worker_count_call(worker, ticks_now() - start);
    return ptr;
}

static inline void *call_calloc(struct worker *worker, size_t count, size_t bytes)
{
    uint64_t start = ticks_now();
    void *ptr = calloc(count, bytes);
    worker_count_call(worker, ticks_now() - start);
    return ptr;
}

static inline void *call_realloc(struct worker *worker, void *ptr, size_t bytes)
{
    uint64_t start = ticks_now();
    ptr = realloc(ptr, bytes);
    worker_count_call(worker, ticks_now() - start);
    return ptr;
}

static inline void call_free(struct worker *worker, void *ptr)
{
    uint64_t start = ticks_now();
    free(ptr);
    worker_count_call(worker, ticks_now() - start);
}

#else

static inline void *call_malloc(struct worker *worker, size_t bytes)
{
    (void)worker;
    return malloc(bytes);
}

static inline void *call_calloc(struct worker *worker, size_t count, size_t bytes)
{
    (void)worker;
    return calloc(count, bytes);
}

static inline void *call_realloc(struct worker *worker, void *ptr, size_t bytes)
{
    (void)worker;
    return realloc(ptr, bytes);
}

static inline void call_free(struct worker *worker, void *ptr)
{
    (void)worker;
    free(ptr);
}

#endif

/* Writes a word to each page but the first of a large block. */
static inline void block_touch(char *block, size_t bytes)
{
    for (size_t offset = PAGE_BYTES; offset < bytes; offset += PAGE_BYTES) {
        block[offset] = 1;
    }
}

/* --------------------------------------------------------------------------------------- places */

/* Most workloads keep their blocks in tables of places. A block begins with where it is kept and
 * how many bytes were asked for: programs write to what they allocate, the accounts are kept that
 * way, and two places that have been given the same block are found out. */
struct block {
    struct block **place;
    size_t bytes;
};

enum { BLOCK_BYTES_MIN = sizeof(struct block) };

static inline void place_put(struct block **place, struct block *block)
{
    *place = block;
    block->place = place;
}

static inline struct block *place_remove(struct block **place)
{
    struct block *block = *place;
    if (block->place != place) {
        harness_fail("a block is in two places");
    }
    *place = NULL;
    return block;
}

/* `bytes` from BLOCK_BYTES_MIN on. */
static inline struct block *block_take(struct worker *worker, size_t bytes)
{
    struct block *block = call_malloc(worker, bytes);
    block->bytes = bytes;
    worker->live_bytes += bytes;
    return block;
}

static inline void block_give(struct worker *worker, struct block *block)
{
    worker->live_bytes -= block->bytes;
    call_free(worker, block);
}

static inline void place_fill(struct worker *worker, struct block **place, size_t bytes)
{
    place_put(place, block_take(worker, bytes));
}

static inline void place_empty(struct worker *worker, struct block **place)
{
    block_give(worker, place_remove(place));
}

/* Empties those of the places that are not. */
void places_empty(struct worker *worker, struct block **places, size_t count);

#endif
