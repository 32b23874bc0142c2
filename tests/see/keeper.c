/* Never frees: blocks of all kinds. It says so and waits; with an argument it ends at once.
 * With `damage` it first writes where it must not. No byte is zero, so that a core shows
 * what was touched. */
#include "hmm.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static void *keep(size_t bytes)
{
    void *block = malloc(bytes);
    if (block == NULL) {
        abort();
    }
    return memset(block, 'k', bytes);
}

/* The first of the process's mappings is one that nobody can read, as in browsers. */
static void reserve_low(void)
{
    void *low = (void *)(1 << 20);
    (void)mmap(low, 1 << 20, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
}

static void fill(void)
{
    for (size_t i = 0; i < 100000; i++) {
        (void)keep(1 + i % 700);
    }
    for (size_t i = 0; i < 400; i++) {
        (void)keep(10000 + i * 100);
    }
    (void)keep(5 << 20);
}

/* Frees all but a share of many small blocks. */
static void drop(size_t kept_share)
{
    enum { COUNT = 400000 };
    void **blocks = keep(COUNT * sizeof *blocks);
    for (size_t i = 0; i < COUNT; i++) {
        blocks[i] = keep(100);
    }
    for (size_t i = 0; i < COUNT; i++) {
        if (i % kept_share != 0) {
            free(blocks[i]);
        }
    }
}

/* The last of some blocks, all of which have been freed. */
static void *keep_and_free(size_t count, size_t bytes)
{
    void *blocks[8];
    for (size_t i = 0; i < count; i++) {
        blocks[i] = keep(bytes);
    }
    for (size_t i = 0; i < count; i++) {
        free(blocks[i]);
    }
    return blocks[count - 1];
}

static void damage(const char *where)
{
    if (strcmp(where, "nothing") == 0) {
        /* Whole pages of slabs go back. */
        drop(400);
    } else if (strcmp(where, "half") == 0) {
        /* They stay: no less than half is live. */
        drop(2);
    } else if (strcmp(where, "held") == 0) {
        /* Nothing is damaged; a hardened heap holds these back. */
        (void)keep_and_free(8, 20000);
    } else if (strcmp(where, "tag") == 0) {
        /* A medium block's tag lies before it. */
        uintptr_t *block = keep(20000);
        block[-1] ^= 1 << 8;
    } else if (strcmp(where, "link") == 0) {
        /* A freed slot's first word links the next one. */
        *(uintptr_t *)keep_and_free(3, 600) = 0x1234;
    } else if (strcmp(where, "heap") == 0) {
        /* The footer of a free block in a created heap. */
        HmmHeap *heap = HmmHeapCreate(1 << 20, NULL);
        char *first = HmmHeapAlloc(heap, 1000);
        (void)HmmHeapAlloc(heap, 1000);
        HmmHeapFree(heap, first);
        memset(first + 100, 'd', 900);
    }
}

int main(int argc, char **argv)
{
    reserve_low();
    fill();
    if (argc > 2) {
        damage(argv[2]);
    }
    puts("ready");
    fflush(stdout);
    if (argc > 1 && strcmp(argv[1], "return") == 0) {
        return 0;
    }
    if (argc > 1 && strcmp(argv[1], "wait") != 0) {
        _exit(strcmp(argv[1], "seven") == 0 ? 7 : 0);
    }
    pause();
    return 0;
}
