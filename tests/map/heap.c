/*
 * heap.c - a heap to look at: at least so many small blocks as the argument says, medium and
 * large ones, a created heap, holes, denser here than there, and two threads with slabs of
 * their own. Prints its process id and how many small blocks there are, and stays until its
 * standard input ends.
 */
#include "hmm.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

enum {
    SMALL_STEP_BYTES = 24,
    SMALL_STEP_COUNT = 10,
    MEDIUM_COUNT = 400,
    MEDIUM_BYTES = 24 * 1024,
    LARGE_COUNT = 6,
    LARGE_BYTES = 700 * 1000,
    DENSITY_COUNT = 6,  /* one block in 2, 3 ... 7 is a hole */
    DENSITY_SHIFT = 14, /* in so many blocks in a row */
    OWN_COUNT = 20000,
    OWN_BYTES = 100,
    HEAP_BYTES = 256 * 1024,
    HEAP_COUNT = 100,
};

static pthread_barrier_t all_there;
static pthread_barrier_t all_seen;

static void *allocated(size_t bytes)
{
    void *ptr = malloc(bytes);
    if (ptr == NULL) {
        abort();
    }
    memset(ptr, 1, bytes);
    return ptr;
}

/* How many stay. */
static size_t make_blocks(void **blocks, size_t count, size_t bytes_each, size_t step_count)
{
    size_t live_count = count;
    for (size_t i = 0; i < count; i++) {
        blocks[i] = allocated(bytes_each * (1 + i % step_count));
    }
    for (size_t i = 0; i < count; i++) {
        if (i % (2 + (i >> DENSITY_SHIFT) % DENSITY_COUNT) == 0) {
            free(blocks[i]);
            live_count--;
        }
    }
    return live_count;
}

/* Counts its blocks where the argument points to. */
static void *own(void *argument)
{
    static __thread void *blocks[OWN_COUNT];
    *(size_t *)argument = make_blocks(blocks, OWN_COUNT, OWN_BYTES, 1);
    pthread_barrier_wait(&all_there);
    pthread_barrier_wait(&all_seen);
    return argument;
}

static void make_heap(void)
{
    HmmHeap *heap = HmmHeapCreate(HEAP_BYTES, NULL);
    if (heap == NULL) {
        abort();
    }
    for (size_t i = 0; i < HEAP_COUNT; i++) {
        void *volatile block = HmmHeapAlloc(heap, 1 + i * 10);
        (void)block;
    }
}

int main(int argc, char **argv)
{
    /* Where only a parent may read a process, we let everybody. */
    prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY, 0, 0, 0);
    size_t count = argc > 1 ? strtoul(argv[1], NULL, 10) : 0;
    count *= 2; /* half of them at most are holes */
    void **blocks = allocated((count + 1) * sizeof *blocks);
    static void *medium[MEDIUM_COUNT];
    static void *large[LARGE_COUNT];
    size_t own_counts[2];
    pthread_t threads[2];
    pthread_barrier_init(&all_there, NULL, 3);
    pthread_barrier_init(&all_seen, NULL, 3);
    for (int i = 0; i < 2; i++) {
        pthread_create(&threads[i], NULL, own, &own_counts[i]);
    }
    size_t live_count = make_blocks(blocks, count, SMALL_STEP_BYTES, SMALL_STEP_COUNT);
    make_blocks(medium, MEDIUM_COUNT, MEDIUM_BYTES, 2);
    make_blocks(large, LARGE_COUNT, LARGE_BYTES, 2);
    make_heap();
    pthread_barrier_wait(&all_there);
    printf("%d %zu\n", (int)getpid(), live_count + own_counts[0] + own_counts[1]);
    fflush(stdout);
    char byte;
    while (read(STDIN_FILENO, &byte, 1) > 0) {
    }
    pthread_barrier_wait(&all_seen);
    for (int i = 0; i < 2; i++) {
        pthread_join(threads[i], NULL);
    }
    return 0;
}
