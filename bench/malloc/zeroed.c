/*
 * zeroed.c - What does memory cost that must be zero?
 *
 * Hash tables, bit sets, arrays of counters: 1,000 blocks of 64 bytes to 512 KiB are alive, each
 * new one comes from calloc and takes the place of any other. Of each, its first and last word are
 * looked at, and every fourth page is written to, as by a table that is not full: who clears more
 * than has to be cleared pays for pages that nobody wanted.
 */
#include "harness.h"

enum { OPERATIONS = 80000, PLACES = 1000, BYTES_MIN = 64, DOUBLINGS = 13 };
enum { TOUCH_BYTES = 4 * PAGE_BYTES };

static struct block *places[PLACES];

static struct block *block_take_zeroed(struct worker *worker, size_t bytes)
{
    char *cells = call_calloc(worker, 1, bytes);
    if (cells[0] || cells[bytes / 2] || cells[bytes - 1]) {
        harness_fail("calloc's memory is not zero");
    }
    for (size_t offset = 0; offset < bytes; offset += TOUCH_BYTES) {
        cells[offset] = 1;
    }
    cells[bytes - 1] = 1;
    struct block *block = (struct block *)cells;
    block->bytes = bytes;
    worker->live_bytes += bytes;
    return block;
}

static void work(struct worker *worker)
{
    for (size_t operation = scaled(OPERATIONS); operation; operation--) {
        struct block **place = &places[random_below(worker, PLACES)];
        if (*place) {
            place_empty(worker, place);
        }
        place_put(place,
                  block_take_zeroed(worker, bytes_log_uniform(worker, BYTES_MIN, DOUBLINGS)));
    }
    places_empty(worker, places, PLACES);
}

int main(int argc, char **argv)
{
    return workload_run(&(struct workload){.work = work}, argc, argv);
}
