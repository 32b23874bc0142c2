/*
 * workload.h - the requests that the benches make of a heap.
 *
 * A workload is written down before anything is measured, from a fixed seed and without a look at
 * any address, so every heap gets the same requests in the same order, and the clock sees no random
 * numbers being made.
 *
 * Replaying marks the first and the last word of each block and looks for the marks before the
 * block goes: a bench of a heap that hands out the same memory twice is not worth its figures.
 */
#ifndef BENCH_WORKLOAD_H
#define BENCH_WORKLOAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum workload_kind {
    WORKLOAD_UNIFORM,
    WORKLOAD_HEAVY_TAIL,
    WORKLOAD_QUEUE,
    WORKLOAD_PHASES,
    WORKLOAD_DRIFT,
    WORKLOAD_GROWING, /* the only one that resizes */
    WORKLOAD_COUNT
};

struct operation {
    uint32_t slot;
    uint32_t bytes; /* 0: free the slot's block; else allocate, or resize the block that is there */
};

struct held {
    char *ptr; /* NULL: the slot is empty */
    uint32_t bytes;
};

struct workload {
    const char *name;
    const char *story; /* what it does, for the reader of the table */
    struct operation *operations;
    size_t operation_count;
    size_t slot_count;
    size_t peak_live_bytes; /* as asked for: no rounding, no tags */
    struct held *held;      /* by slot: what a replay has there */
};

/* How a workload reaches a heap. */
struct allocator {
    void *(*allocate)(size_t bytes);
    void *(*resize)(void *ptr, size_t bytes); /* NULL: not for workloads that resize */
    void (*release)(void *ptr);
};

const char *workload_name(enum workload_kind kind);

/* Writes the workload down; ends the program when memory is out. The same seed gives the same
 * requests, another one requests of the same sort. */
struct workload workload_write(enum workload_kind kind, size_t operation_count, uint64_t seed);
void workload_discard(struct workload *workload);

/* Makes all the requests of an empty heap. false: one of them failed, and the rest was not made.
 * Ends the program when a block was not as it had been left. */
bool workload_replay(const struct workload *workload, const struct allocator *allocator);

#endif
