/*
 * mixed_in_order.c - What do mixed sizes cost when the oldest block goes first?
 *
 * Requests and their replies, lines of a log, a cache that forgets what is oldest: 20,000 blocks of
 * 16 to 1024 bytes are alive, and each new one takes the place of the oldest. Neighbours die
 * together, the kindest order that mixed sizes come in.
 */
#include "harness.h"

enum { OPERATIONS = 8000000, PLACES = 20000, BYTES_MIN = 16, BYTES_MAX = 1024 };

static struct block **places;

static void prepare(void)
{
    places = table_map(PLACES * sizeof *places);
}

static void work(struct worker *worker)
{
    size_t oldest = 0;
    for (size_t operation = scaled(OPERATIONS); operation; operation--) {
        if (places[oldest]) {
            place_empty(worker, &places[oldest]);
        }
        place_fill(worker, &places[oldest], random_between(worker, BYTES_MIN, BYTES_MAX));
        oldest = (oldest + 1) % PLACES;
    }
    places_empty(worker, places, PLACES);
}

int main(int argc, char **argv)
{
    return workload_run(&(struct workload){.prepare = prepare, .work = work}, argc, argv);
}
