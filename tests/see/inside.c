/* A heap whose lock is its own, the caller's or nobody's, damaged by a thread that is inside a call
 * of it or that has left it. It says so and waits; with `end` it ends at once.
 *
 *     inside own|callers|none inside|outside wait|end
 */
#include "hmm.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static const char *end;

static void take(void *context)
{
    pthread_mutex_lock(context);
}

static void give(void *context)
{
    pthread_mutex_unlock(context);
}

/* The footer of a free block. */
static void damage(char *block)
{
    memset(block + 100, 'd', 900);
}

static void rest(void)
{
    puts("ready");
    fflush(stdout);
    if (strcmp(end, "end") == 0) {
        _exit(0);
    }
    pause();
}

/* HmmHeapWalk is a call of the heap that can be stayed in. */
static bool stay(void *ptr, size_t usable_bytes, bool is_used, void *context)
{
    (void)ptr;
    (void)usable_bytes;
    (void)is_used;
    damage(context);
    rest();
    return false;
}

int main(int argc, char **argv)
{
    if (argc < 4) {
        return 2;
    }
    HmmHeapOptions options = {.unlocked = strcmp(argv[1], "none") == 0};
    if (strcmp(argv[1], "callers") == 0) {
        options.lock = take;
        options.unlock = give;
        options.context = &mutex;
    }
    end = argv[3];
    HmmHeap *heap = HmmHeapCreate(1 << 20, &options);
    char *first = HmmHeapAlloc(heap, 1000);
    (void)HmmHeapAlloc(heap, 1000);
    HmmHeapFree(heap, first);
    if (strcmp(argv[2], "inside") == 0) {
        HmmHeapWalk(heap, stay, first);
    }
    damage(first);
    rest();
    return 0;
}
