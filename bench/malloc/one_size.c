/*
 * one_size.c - What does a call cost when nothing has to be looked for?
 *
 * Batches of 64-byte blocks are taken, and given back in the order in which they came: the nodes of
 * a list, the tasks of a queue, the events of a loop. A batch is larger than what an allocator
 * would keep at hand for one size without having thought of it.
 */
#include "harness.h"

enum { ROUNDS = 120000, BATCH_BLOCKS = 256, REQUEST_BYTES = 64 };

static struct block *places[BATCH_BLOCKS];

static void work(struct worker *worker)
{
    for (size_t round = scaled(ROUNDS); round; round--) {
        for (size_t index = 0; index < BATCH_BLOCKS; index++) {
            place_fill(worker, &places[index], REQUEST_BYTES);
        }
        for (size_t index = 0; index < BATCH_BLOCKS; index++) {
            place_empty(worker, &places[index]);
        }
    }
}

int main(int argc, char **argv)
{
    return workload_run(&(struct workload){.work = work}, argc, argv);
}
