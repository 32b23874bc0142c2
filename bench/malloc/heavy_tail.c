/*
 * heavy_tail.c - What does a large heap of all sizes cost?
 *
 * A database's or a browser's heap: 100,000 blocks are alive, most of them small and most of the
 * bytes in the few large ones, by a power law from 16 bytes to 1 MiB. Each new block takes the
 * place of any other. Nothing fits into a cache, and holes of all sizes lie about.
 */
#include "harness.h"

enum { OPERATIONS = 1000000, PLACES = 100000, BYTES_MIN = 16, DOUBLINGS = 16 };

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
        size_t bytes = bytes_heavy_tail(worker, BYTES_MIN, DOUBLINGS);
        place_fill(worker, place, bytes);
        block_touch((char *)*place, bytes);
    }
}

int main(int argc, char **argv)
{
    return workload_run(&(struct workload){.prepare = prepare, .work = work}, argc, argv);
}
