/*
 * second_copy.c - a copy of the library on a C library of its own, beside the one that is there:
 * each keeps its own threads, although both C libraries number what threads keep from 0.
 */
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { THREADS = 8, ROUNDS = 4, BLOCKS = 1000, BYTES = 100 };

static void *(*other_malloc)(size_t bytes);
static void (*other_free)(void *ptr);

static void *work(void *unused)
{
    static __thread void *own[BLOCKS];
    static __thread void *others[BLOCKS];
    (void)unused;
    for (size_t i = 0; i < BLOCKS; i++) {
        own[i] = malloc(BYTES + i);
        others[i] = other_malloc(BYTES + i);
        memset(own[i], 1, BYTES + i);
        memset(others[i], 2, BYTES + i);
    }
    for (size_t i = 0; i < BLOCKS; i++) {
        free(own[i]);
        other_free(others[i]);
    }
    return NULL;
}

int main(int argc, char **argv)
{
    void *copy = argc == 2 ? dlmopen(LM_ID_NEWLM, argv[1], RTLD_NOW | RTLD_LOCAL) : NULL;
    if (copy == NULL) {
        fprintf(stderr, "# %s\n", dlerror());
        return 1;
    }
    other_malloc = (void *(*)(size_t))dlsym(copy, "malloc");
    other_free = (void (*)(void *))dlsym(copy, "free");
    for (int round = 0; round < ROUNDS; round++) {
        pthread_t threads[THREADS];
        for (int i = 0; i < THREADS; i++) {
            if (pthread_create(&threads[i], NULL, work, NULL) != 0) {
                return 1;
            }
        }
        for (int i = 0; i < THREADS; i++) {
            pthread_join(threads[i], NULL);
        }
    }
    return 0;
}
