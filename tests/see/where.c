/* Blocks of all kinds, in use and freed. A line for each: what it is, and its address. Then it says
 * that it is ready, and waits. */
#include "hmm.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int data;

static __attribute__((noinline)) char *take(size_t bytes)
{
    char *block = malloc(bytes);
    return block != NULL ? memset(block, 'w', bytes) : NULL;
}

static __attribute__((noinline)) void give(char *block)
{
    free(block);
}

static void say(const char *name, const void *address)
{
    printf("%s 0x%zx\n", name, (size_t)(uintptr_t)address);
}

int main(void)
{
    static char output[BUFSIZ];
    HmmHeap *heap = HmmHeapCreate(1 << 20, NULL);
    setvbuf(stdout, output, _IOFBF, sizeof output);
    char *small = take(90);
    char *small_freed = take(90);
    char *medium = take(20000);
    char *medium_freed = take(30000);
    char *medium_last = take(30000);
    char *large = take(1 << 20);
    char *inner = HmmHeapAlloc(heap, 100);
    give(small_freed);
    give(medium_freed);
    say("small", small);
    say("small_inside", small + 5);
    say("small_behind", small + 91);
    say("small_freed", small_freed);
    say("medium", medium + 100);
    say("medium_tag", medium - 3);
    say("medium_freed", medium_freed);
    say("medium_last", medium_last);
    say("large", large + 7);
    say("inner", inner + 1);
    say("data", &data);
    say("nothing", (void *)0x10);
    puts("ready");
    fflush(stdout);
    pause();
    return 0;
}
