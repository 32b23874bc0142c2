/*
 * picture.c - a heap in a 4 KiB array, drawn after each step.
 *
 * One character stands for 32 bytes: '#' used, '.' free, ':' the heap's own header. It shows what
 * splitting, merging and the four policies do, and needs nothing but hmm.h.
 */
#include <hmm.h>

#include <stdint.h>
#include <stdio.h>
#include <string.h>

enum { ARRAY_BYTES = 4096, CELL_BYTES = 32, CELLS = ARRAY_BYTES / CELL_BYTES };

static _Alignas(64) unsigned char array[ARRAY_BYTES];

static bool draw_block(void *ptr, size_t usable_bytes, bool is_used, void *context)
{
    char *cells = context;
    size_t first = (size_t)((unsigned char *)ptr - array) / CELL_BYTES;
    size_t last = (size_t)((unsigned char *)ptr + usable_bytes - 1 - array) / CELL_BYTES;
    memset(cells + first, is_used ? '#' : '.', last - first + 1);
    return true;
}

static void draw(const HmmHeap *heap, const char *step)
{
    char cells[CELLS + 1];
    memset(cells, ':', CELLS);
    cells[CELLS] = '\0';
    HmmHeapWalk(heap, draw_block, cells);
    HmmHeapStats stats;
    HmmHeapGetStats(heap, &stats);
    printf("  |%s|  %s\n", cells, step);
    printf("   %zu used in %zu blocks, %zu free in %zu, largest %zu\n", stats.live_bytes,
           stats.live_count, stats.free_bytes, stats.free_count, stats.largest_free_bytes);
}

static void show_policy(const char *name, HmmFit fit)
{
    HmmHeap *heap = HmmHeapInit(array, sizeof array, &(HmmHeapOptions){.fit = fit});
    void *blocks[6];
    for (int i = 0; i < 6; i++) {
        blocks[i] = HmmHeapAlloc(heap, i % 2 == 0 ? 120 : 400);
    }
    printf("\nfit=%s\n", name);
    draw(heap, "three of 120 bytes, three of 400, in turn");
    HmmHeapFree(heap, blocks[1]);
    HmmHeapFree(heap, blocks[4]);
    draw(heap, "one of 400 and one of 120 freed");
    void *small = HmmHeapAlloc(heap, 100);
    draw(heap, "100 bytes asked");
    HmmHeapFree(heap, small);
    HmmHeapFree(heap, blocks[3]);
    draw(heap, "those 100 bytes and one of 400 freed: neighbours merge");
    HmmHeapDestroy(heap);
}

int main(void)
{
    printf("A heap in an array of %d bytes, one character for %d\n", ARRAY_BYTES, CELL_BYTES);
    show_policy("good", HMM_FIT_GOOD);
    show_policy("first", HMM_FIT_FIRST);
    return 0;
}
