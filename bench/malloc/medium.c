/*
 * medium.c - What do blocks between the small and the large cost?
 *
 * Buffers of files and sockets, pages of a cache, rows of an image: 500 blocks of 4 to 256 KiB are
 * alive, each new one takes the place of any other, and every page of it is written to. Too large
 * for a list of each size to be kept full, too frequent for a system call each.
 */
#include "harness.h"

enum { OPERATIONS = 400000, PLACES = 500, BYTES_MIN = 4096, DOUBLINGS = 6 };

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
