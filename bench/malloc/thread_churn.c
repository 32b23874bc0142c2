/*
 * thread_churn.c - What do threads cost that come and go, and leave blocks behind?
 *
 * A thread for each connection or task: it takes 300 blocks by a power law, gives most of them
 * back, and leaves one in ten in a table that outlives it, from where it frees what others before
 * it have left. Thousands of threads come and go, two at a time. What an allocator keeps for a
 * thread has to be made, found again and taken over each time, and pages with a survivor cannot
 * simply go.
 */
#include "harness.h"

#include <pthread.h>
#include <stdatomic.h>

enum {
    THREADS = 4000, /* in all, one after the other for each worker */
    BLOCKS = 300,
    SURVIVOR_ONE_IN = 10,
    SHARED_PLACES = 8192,
    BYTES_MIN = 16,
    DOUBLINGS = 8,
};

static _Atomic(struct block *) *shared_places;
static struct block **own_places; /* BLOCKS for each worker */

static void prepare(void)
{
    shared_places = table_map(SHARED_PLACES * sizeof *shared_places);
    own_places = table_map(worker_count() * BLOCKS * sizeof *own_places);
}

/* Its worker waits meanwhile: the thread acts in its name. */
static void *thread_main(void *argument)
{
    struct worker *worker = argument;
    struct block **places = own_places + worker->index * BLOCKS;
    for (size_t index = 0; index < BLOCKS; index++) {
        place_fill(worker, &places[index], bytes_heavy_tail(worker, BYTES_MIN, DOUBLINGS));
    }
    for (size_t index = 0; index < BLOCKS; index += SURVIVOR_ONE_IN) {
        size_t shared = random_below(worker, SHARED_PLACES);
        struct block *block = place_remove(&places[index]);
        block = atomic_exchange_explicit(&shared_places[shared], block, memory_order_acq_rel);
        if (block) {
            block_give(worker, block);
        }
    }
    places_empty(worker, places, BLOCKS);
    return NULL;
}

static void work(struct worker *worker)
{
    for (size_t round = scaled(THREADS / worker_count()); round; round--) {
        pthread_t thread;
        if (pthread_create(&thread, NULL, thread_main, worker) || pthread_join(thread, NULL)) {
            harness_fail("no thread");
        }
    }
}

int main(int argc, char **argv)
{
    const struct workload workload = {.prepare = prepare, .work = work, .is_threaded = true};
    return workload_run(&workload, argc, argv);
}
