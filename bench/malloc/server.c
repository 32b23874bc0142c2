/*
 * server.c - What does it cost when threads free each other's blocks?
 *
 * Threads of a server, each with 1,000 objects of its own, by a power law from 16 bytes to 8 KiB,
 * of which it replaces any at each step. Every fourth new object goes to a table that all threads
 * share, as a session or a cached page would, and what was there before, which any thread may have
 * made, comes home with the one that replaced it and is given back there sooner or later.
 */
#include "harness.h"

#include <stdatomic.h>

enum {
    OPERATIONS = 4000000, /* of each thread */
    OWN_PLACES = 1000,
    SHARED_PLACES = 4096,
    SHARE_ONE_IN = 4,
    BYTES_MIN = 16,
    DOUBLINGS = 9,
};

static _Atomic(struct block *) *shared_places;
static struct block **own_places; /* OWN_PLACES for each worker */

static void prepare(void)
{
    shared_places = table_map(SHARED_PLACES * sizeof *shared_places);
    own_places = table_map(worker_count() * OWN_PLACES * sizeof *own_places);
}

static void place_swap(struct worker *worker, struct block **place)
{
    size_t shared = random_below(worker, SHARED_PLACES);
    struct block *block = place_remove(place);
    block = atomic_exchange_explicit(&shared_places[shared], block, memory_order_acq_rel);
    if (block) {
        place_put(place, block);
    }
}

static void work(struct worker *worker)
{
    struct block **places = own_places + worker->index * OWN_PLACES;
    for (size_t operation = scaled(OPERATIONS); operation; operation--) {
        struct block **place = &places[random_below(worker, OWN_PLACES)];
        if (*place) {
            place_empty(worker, place);
        }
        place_fill(worker, place, bytes_heavy_tail(worker, BYTES_MIN, DOUBLINGS));
        if (operation % SHARE_ONE_IN == 0) {
            place_swap(worker, place);
        }
    }
}

int main(int argc, char **argv)
{
    const struct workload workload = {.prepare = prepare, .work = work, .is_threaded = true};
    return workload_run(&workload, argc, argv);
}
