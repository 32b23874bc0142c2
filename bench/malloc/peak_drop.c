/*
 * peak_drop.c - What is still resident a second after a peak, when no call is made any more?
 *
 * A program loads documents of about 1 MiB, each of some thousand blocks of 16 to 512 bytes, until
 * 150 are open, and closes all; then it does so once more, but keeps every tenth open, and waits
 * for its user. The documents that stay are whole, so most of what was freed lies together, and an
 * allocator can give it back if it does so of its own accord.
 */
#include "harness.h"

enum {
    PEAKS = 3,
    DOCUMENTS = 150,
    KEEP_ONE_IN = 10,
    DOCUMENT_BLOCKS = 4000,
    BYTES_MIN = 16,
    BYTES_MAX = 512,
};

static struct block **places; /* DOCUMENT_BLOCKS for each document */

static void prepare(void)
{
    places = table_map(DOCUMENTS * DOCUMENT_BLOCKS * sizeof *places);
}

static void document_open(struct worker *worker, size_t document)
{
    for (size_t index = 0; index < DOCUMENT_BLOCKS; index++) {
        place_fill(worker, &places[document * DOCUMENT_BLOCKS + index],
                   random_between(worker, BYTES_MIN, BYTES_MAX));
    }
}

static void document_close(struct worker *worker, size_t document)
{
    places_empty(worker, &places[document * DOCUMENT_BLOCKS], DOCUMENT_BLOCKS);
}

static void work(struct worker *worker)
{
    size_t document_count = DOCUMENTS < scaled(DOCUMENTS) ? DOCUMENTS : scaled(DOCUMENTS);
    for (size_t peak = 1; peak <= PEAKS; peak++) {
        for (size_t document = 0; document < document_count; document++) {
            document_open(worker, document);
        }
        for (size_t document = 0; document < document_count; document++) {
            if (peak < PEAKS || document % KEEP_ONE_IN) {
                document_close(worker, document);
            }
        }
    }
}

int main(int argc, char **argv)
{
    return workload_run(&(struct workload){.prepare = prepare, .work = work}, argc, argv);
}
