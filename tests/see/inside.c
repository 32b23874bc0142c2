/* A heap whose lock is its own, the caller's or nobody's, damaged by a thread that is inside a call
 * of it or that has left it. It says so and waits; with `end` it ends at once.
 *
 *     inside own|callers|none inside|outside wait|end
 */
#include "hmm.h"

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
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

static char *damaged;

static void stay(int signal_number)
{
    (void)signal_number;
    damage(damaged);
    rest();
}

/* Is stayed in by a fault: what comes behind the block is on a page that cannot be written. */
static void free_and_stay(HmmHeap *heap)
{
    enum { PAGE_BYTES_MAX = 65536 };
    char *wide = HmmHeapAlignedAlloc(heap, PAGE_BYTES_MAX, 2 * PAGE_BYTES_MAX - 8);
    (void)HmmHeapAlloc(heap, 2000);
    signal(SIGSEGV, stay);
    mprotect(wide + PAGE_BYTES_MAX, PAGE_BYTES_MAX, PROT_READ);
    HmmHeapFree(heap, wide);
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
    damaged = HmmHeapAlloc(heap, 1000);
    (void)HmmHeapAlloc(heap, 1000);
    HmmHeapFree(heap, damaged);
    if (strcmp(argv[2], "inside") == 0) {
        free_and_stay(heap);
    }
    damage(damaged);
    rest();
    return 0;
}
