/*
 * false_sharing_active.c - Does an allocator give threads blocks that share a cache line?
 *
 * Each thread takes a counter of a few bytes, counts, and gives it back, over and over. When two
 * threads' counters come from the same line, it travels between the cores at each write, and the
 * threads run slower together than either alone.
 */
#include "harness.h"

enum { ROUNDS = 120000, WRITES = 2000, REQUEST_BYTES = 8 };

static void work(struct worker *worker)
{
    for (size_t round = scaled(ROUNDS); round; round--) {
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
}

int main(int argc, char **argv)
{
    return workload_run(&(struct workload){.work = work, .is_threaded = true}, argc, argv);
}
