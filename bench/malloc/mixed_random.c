/*
 * mixed_random.c - What do mixed sizes cost when any block may go next?
 *
 * As mixed_in_order.c, 20,000 blocks of 16 to 1024 bytes, but each new one takes the place of any
 * other: sessions, objects of a game, nodes of a graph that changes. Blocks that lie side by side
 * have nothing else in common, and few of those that are given back are in a cache.
 */
#include "harness.h"

enum { OPERATIONS = 5000000, PLACES = 20000, BYTES_MIN = 16, BYTES_MAX = 1024 };

static struct block **places;

static void prepare(void)
{
    places = table_map(PLACES * sizeof *places);
}

static void work(struct worker *worker)
{
    for (size_t operation = scaled(OPERATIONS); operation; operation--) {
        struct block **place = &places[random_below(worker, PLACES)];
        if (*place) {
            place_empty(worker, place);
        }
        place_fill(worker, place, random_between(worker, BYTES_MIN, BYTES_MAX));
    }
    places_empty(worker, places, PLACES);
}

int main(int argc, char **argv)
{
    return workload_run(&(struct workload){.prepare = prepare, .work = work}, argc, argv);
}
