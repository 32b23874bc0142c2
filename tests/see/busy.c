/* Threads that allocate, check and free without a pause, some of it in each other's place, until
 * the standard input ends. Exit status 0: every block kept its content. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { THREAD_COUNT = 3, PLACE_COUNT = 512 };

struct block {
    size_t bytes;
    unsigned char fill[];
};

static _Atomic(struct block *) places[PLACE_COUNT];
static atomic_bool is_over;
static atomic_bool is_damaged;

static void check_and_free(struct block *block)
{
    for (size_t i = 0; block != NULL && i < block->bytes; i += 97) {
        if (block->fill[i] != (unsigned char)block->bytes) {
            is_damaged = true;
        }
    }
    free(block);
}

static size_t pick_bytes(unsigned random)
{
    unsigned shift = random >> 28;
    return 1 + (random >> 8) % (shift == 0 ? 1000000 : shift < 3 ? 60000 : 600);
}

static void *work(void *argument)
{
    unsigned random = (unsigned)(size_t)argument;
    while (!is_over) {
        random = random * 1664525 + 1013904223;
        size_t bytes = pick_bytes(random);
        struct block *block = malloc(sizeof *block + bytes);
        if (block != NULL) {
            block->bytes = bytes;
            memset(block->fill, (int)bytes, bytes);
        }
        check_and_free(atomic_exchange(&places[random % PLACE_COUNT], block));
    }
    return NULL;
}

int main(void)
{
    pthread_t threads[THREAD_COUNT];
    char byte;
    for (size_t i = 0; i < THREAD_COUNT; i++) {
        if (pthread_create(&threads[i], NULL, work, (void *)(i + 1)) != 0) {
            return 2;
        }
    }
    puts("ready");
    fflush(stdout);
    while (read(STDIN_FILENO, &byte, 1) > 0) {
    }
    is_over = true;
    for (size_t i = 0; i < THREAD_COUNT; i++) {
        pthread_join(threads[i], NULL);
    }
    return is_damaged;
}
