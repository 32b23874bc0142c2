/*
 * large.c - What do large blocks cost, with the pages that they are made of?
 *
 * Images, matrices, whole files: 8 blocks of 512 KiB to 16 MiB are alive, each new one takes the
 * place of any other, and every page of it is written to. An allocator that gives memory back at
 * once pays for each page again, one that keeps it shows in the tables of resident sizes.
 */
#include "harness.h"

enum { OPERATIONS = 500, PLACES = 8, BYTES_MIN = 512 << 10, DOUBLINGS = 5 };

static struct block *places[PLACES];

static void work(struct worker *worker)
{
    for (size_t operation = scaled(OPERATIONS); operation; operation--) {
        struct block **place = &places[random_below(worker, PLACES)];
        if (*place) {
            place_empty(worker, place);
        }
        size_t bytes = bytes_log_uniform(worker, BYTES_MIN, DOUBLINGS);
        place_fill(worker, place, bytes);
        block_touch((char *)*place, bytes);
    }
    places_empty(worker, places, PLACES);
}

int main(int argc, char **argv)
{
    return workload_run(&(struct workload){.work = work}, argc, argv);
}
