/* Threads that have come and gone, and left nothing but free slots in bins. The program says how
 * many blocks it has, and how many bytes lie in bins, and waits. */
#include "hmm.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { ROUNDS = 4, THREADS = 4, BYTES_MAX = 8000 };

static void *come_and_go(void *argument)
{
    (void)argument;
    for (size_t bytes = 16; bytes <= BYTES_MAX; bytes += bytes / 8 + 16) {
        void *volatile block = malloc(bytes);
        free(block);
    }
    return NULL;
}

int main(void)
{
    static HmmStats stats;
    for (int round = 0; round < ROUNDS; round++) {
        pthread_t threads[THREADS];
        for (int i = 0; i < THREADS; i++) {
            pthread_create(&threads[i], NULL, come_and_go, NULL);
        }
        for (int i = 0; i < THREADS; i++) {
            pthread_join(threads[i], NULL);
        }
    }
    setvbuf(stdout, NULL, _IONBF, 0);
    HmmGetStats(&stats);
    printf("%zu %zu\nready\n", stats.live_count, stats.cached_bytes);
    pause();
    return 0;
}
