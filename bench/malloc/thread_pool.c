/*
 * thread_pool.c - What does a pool of threads keep of sizes that nobody wants any more?
 *
 * Eight threads a processor fill a cache that they share, 32 MiB in 16 parts, of which each drops
 * what is oldest, whoever made it. What they store is of a narrow range of sizes, and five times
 * the range changes. In the end the cache goes but for one block in eight, and all fall asleep:
 * each with what it has at hand of every size that there has been.
 */
#include "harness.h"

#include <pthread.h>

enum {
    STEPS = 6,
    OPERATIONS = 1600000, /* of all threads, in all steps */
    PARTS = 16,
    PART_BYTES = 2 << 20,
    PLACES = 1 << 16, /* of a part, a ring; more than may be filled */
    KEPT_ONE_IN = 8,
    THREADS_EACH = 8,
};

static const size_t bytes_of_step[STEPS] = {64, 700, 130, 3000, 300, 1400};

static struct part {
    pthread_mutex_t mutex;
    size_t bytes;
    size_t oldest, next; /* which block; its place is that modulo PLACES */
    struct block **places;
} parts[PARTS];

static void prepare(void)
{
    struct block **places = table_map(PARTS * PLACES * sizeof *places);
    for (size_t index = 0; index < PARTS; index++) {
        pthread_mutex_init(&parts[index].mutex, NULL);
        parts[index].places = places + index * PLACES;
    }
}

static struct block *part_drop(struct part *part)
{
    struct block *block = place_remove(&part->places[part->oldest++ % PLACES]);
    part->bytes -= block->bytes;
    return block;
}

static void part_store(struct worker *worker, struct part *part, size_t bytes)
{
    struct block *block = block_take(worker, bytes);
    pthread_mutex_lock(&part->mutex);
    place_put(&part->places[part->next++ % PLACES], block);
    part->bytes += bytes;
    while (part->bytes > PART_BYTES) {
        block_give(worker, part_drop(part));
    }
    pthread_mutex_unlock(&part->mutex);
}

static void part_clear(struct worker *worker, struct part *part)
{
    for (size_t left = part->next - part->oldest; left; left--) {
        struct block *block = part_drop(part);
        if (random_below(worker, KEPT_ONE_IN)) {
            block_give(worker, block);
        }
    }
}

static void work(struct worker *worker)
{
    for (size_t step = 0; step < STEPS; step++) {
        const size_t bytes = bytes_of_step[step];
        for (size_t left = scaled(OPERATIONS / STEPS / worker_count()); left; left--) {
            struct part *part = &parts[random_below(worker, PARTS)];
            part_store(worker, part, random_between(worker, bytes / 2, bytes * 3 / 2));
        }
        worker_meet();
    }
    for (size_t index = worker->index; index < PARTS; index += worker_count()) {
        part_clear(worker, &parts[index]);
    }
}

int main(int argc, char **argv)
{
    const struct workload workload = {
        .prepare = prepare, .work = work, .is_threaded = true, .threads_each = THREADS_EACH};
    return workload_run(&workload, argc, argv);
}
