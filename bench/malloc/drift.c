/*
 * drift.c - What does it cost when the sizes that a program asks for change?
 *
 * A service through its day, a compiler through its passes: about 8 MiB are alive, most blocks are
 * of a narrow range of sizes, and the range moves from 16 bytes to 4 KiB and back. Blocks go at
 * random, so a few of the old sizes stay for long. Memory that was cut for one size is wanted for
 * another; what cannot be used again shows in the table of peak resident sizes.
 */
#include "harness.h"

enum {
    OPERATIONS = 4000000,
    STEPS = 14, /* from the smallest range to the largest, and back */
    BYTES_MIN = 16,
    LIVE_BYTES_MAX = 8 << 20,
    PLACES = 1 << 19, /* as many of the smallest as may be alive */
};

static struct block **places; /* the first `block_count` are filled */

static void prepare(void)
{
    places = table_map(PLACES * sizeof *places);
}

static void place_close(struct worker *worker, size_t index, size_t last)
{
    place_empty(worker, &places[index]);
    if (index != last) {
        place_put(&places[index], place_remove(&places[last]));
    }
}

static size_t bytes_drifting(struct worker *worker, size_t step)
{
    size_t doubling = step < STEPS / 2 ? step : STEPS - 1 - step;
    return random_between(worker, (size_t)BYTES_MIN << doubling,
                          (size_t)BYTES_MIN << (doubling + 2));
}

static void work(struct worker *worker)
{
    size_t block_count = 0;
    size_t step_operations = scaled(OPERATIONS / STEPS);
    for (size_t step = 0; step < STEPS; step++) {
        for (size_t operation = step_operations; operation; operation--) {
            size_t bytes = bytes_drifting(worker, step);
            while (worker->live_bytes + bytes > LIVE_BYTES_MAX) {
                place_close(worker, random_below(worker, block_count), block_count - 1);
                block_count--;
            }
            place_fill(worker, &places[block_count++], bytes);
        }
    }
}

int main(int argc, char **argv)
{
    return workload_run(&(struct workload){.prepare = prepare, .work = work}, argc, argv);
}
