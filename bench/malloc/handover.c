/*
 * handover.c - What is still resident when one thread took everything and another gave it back?
 *
 * A loader and its user: one thread of a pair builds documents of about 1 MiB, the other closes
 * all but every 32nd, over and over. Then both are idle, alive and without a call. The blocks are
 * the first thread's, who does not hear of it unless the allocator sees to that.
 */
#include "harness.h"

enum {
    ROUNDS = 3,
    DOCUMENTS = 128,
    KEEP_ONE_IN = 32,
    DOCUMENT_BLOCKS = 4000,
    BYTES_MIN = 16,
    BYTES_MAX = 512,
    PAIR_BLOCKS = DOCUMENTS * DOCUMENT_BLOCKS,
};

static struct block **places; /* PAIR_BLOCKS for each pair */

static void prepare(void)
{
    places = table_map((worker_count() + 1) / 2 * PAIR_BLOCKS * sizeof *places);
}

static void documents_open(struct worker *worker, struct block **first, size_t document_count)
{
    for (size_t index = 0; index < document_count * DOCUMENT_BLOCKS; index++) {
        if (!first[index]) {
            place_fill(worker, &first[index], random_between(worker, BYTES_MIN, BYTES_MAX));
        }
    }
}

static void documents_close(struct worker *worker, struct block **first, size_t document_count)
{
    for (size_t document = 0; document < document_count; document++) {
        if (document % KEEP_ONE_IN) {
            places_empty(worker, &first[document * DOCUMENT_BLOCKS], DOCUMENT_BLOCKS);
        }
    }
}

static void work(struct worker *worker)
{
    struct block **first = places + worker->index / 2 * PAIR_BLOCKS;
    size_t document_count = DOCUMENTS < scaled(DOCUMENTS) ? DOCUMENTS : scaled(DOCUMENTS);
    for (size_t round = 0; round < ROUNDS; round++) {
        if (worker->index % 2 == 0) {
            documents_open(worker, first, document_count);
        }
        worker_meet();
        if (worker->index % 2) {
            documents_close(worker, first, document_count);
        }
        worker_meet();
    }
}

int main(int argc, char **argv)
{
    const struct workload workload = {
        .prepare = prepare, .work = work, .is_threaded = true, .is_paired = true};
    return workload_run(&workload, argc, argv);
}
