/* Many threads, each of which keeps a few blocks of several sizes and has freed others. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { THREADS = 3000, BLOCKS = 40, STEP_BYTES = 40, STACK_BYTES = 64 * 1024 };

static pthread_barrier_t all_are_there;

static void *keep_some(void *argument)
{
    for (size_t i = 0; i < BLOCKS; i++) {
        void *volatile block = malloc(1 + i * STEP_BYTES);
        if (i % 3 != 0) {
            free(block);
        }
    }
    pthread_barrier_wait(&all_are_there);
    pause();
    return argument;
}

int main(void)
{
    pthread_attr_t small;
    pthread_attr_init(&small);
    pthread_attr_setstacksize(&small, STACK_BYTES);
    pthread_barrier_init(&all_are_there, NULL, THREADS + 1);
    for (int i = 0; i < THREADS; i++) {
        pthread_t thread;
        if (pthread_create(&thread, &small, keep_some, NULL) != 0) {
            return 2;
        }
    }
    pthread_barrier_wait(&all_are_there);
    puts("ready");
    fflush(stdout);
    pause();
    return 0;
}
