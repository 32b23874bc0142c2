/*
 * threads.c - a small process that has had threads, which freed each other's blocks. Answers each
 * line with a line.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

enum { THREADS = 2, GENERATIONS = 3, PLACES = 256, ROUNDS = 200, BYTES_MIN = 16, BYTES_STEP = 3 };

static void *_Atomic places[PLACES];

static void *swap(void *unused)
{
    for (int round = 0; round < ROUNDS; round++) {
        for (size_t i = 0; i < PLACES; i++) {
            free(atomic_exchange(&places[i], malloc(BYTES_MIN + i * BYTES_STEP)));
        }
    }
    return unused;
}

int main(void)
{
    for (int generation = 0; generation < GENERATIONS; generation++) {
        pthread_t threads[THREADS];
        for (int i = 0; i < THREADS; i++) {
            if (pthread_create(&threads[i], NULL, swap, NULL) != 0) {
                return EXIT_FAILURE;
            }
        }
        for (int i = 0; i < THREADS; i++) {
            pthread_join(threads[i], NULL);
        }
    }
    char line[128];
    while (fgets(line, sizeof line, stdin) != NULL) {
        fputs(line, stdout);
        fflush(stdout);
    }
    return EXIT_SUCCESS;
}
