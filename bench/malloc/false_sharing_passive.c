/*
 * false_sharing_passive.c - Does an allocator let a line stay shared that a program has shared?
 *
 * In each round one thread takes a counter of a few bytes for every thread, side by side as it may
 * well be, and hands them out. Each gives its own back at once, and then takes others of the
 * same size, counts, and gives them back. An allocator that hands the freed piece of the line to
 * whoever freed it has the threads write to one line from then on.
 */
#include "harness.h"

enum { ROUNDS = 3000, COUNTERS = 30, WRITES = 2000, REQUEST_BYTES = 8 };

static void **handed_out; /* one for each worker */

static void prepare(void)
{
    handed_out = table_map(worker_count() * sizeof *handed_out);
}

static void count(struct worker *worker)
{
    volatile uint64_t *counter = call_malloc(worker, REQUEST_BYTES);
    *counter = 0;
    for (size_t write = 0; write < WRITES; write++) {
        *counter = *counter + 1;
    }
    if (*counter != WRITES) {
        harness_fail("two counters are one");
    }
    call_free(worker, (void *)counter);
}

static void work(struct worker *worker)
{
    for (size_t round = scaled(ROUNDS); round; round--) {
        if (worker->index == 0) {
            for (unsigned index = 0; index < worker_count(); index++) {
                handed_out[index] = call_malloc(worker, REQUEST_BYTES);
            }
        }
        worker_meet();
        call_free(worker, handed_out[worker->index]);
        for (size_t counter = 0; counter < COUNTERS; counter++) {
            count(worker);
        }
        worker_meet();
    }
}

int main(int argc, char **argv)
{
    const struct workload workload = {.prepare = prepare, .work = work, .is_threaded = true};
    return workload_run(&workload, argc, argv);
}
