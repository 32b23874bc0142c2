/*
 * first.c - many threads make the very first call of all, and one of them forks meanwhile.
 *
 * The program itself runs on the C library's malloc, or its threads would have been the first to
 * allocate.
 */
#include "cases.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdint.h>
#include <sys/wait.h>

enum { THREADS = 4, LIMIT_SECONDS = 20 };

static void *(*allocate)(size_t bytes);
static void (*release)(void *ptr);
static pthread_barrier_t all_ready;

static void use_heap(void)
{
    for (size_t bytes = 10; bytes < 100000; bytes *= 3) {
        char *block = allocate(bytes);
        REQUIRE(block != NULL);
        memset(block, 1, bytes);
        release(block);
    }
}

static void *thread_run(void *unused)
{
    (void)unused;
    pthread_barrier_wait(&all_ready);
    use_heap();
    return NULL;
}

int main(int argc, char **argv)
{
    pthread_t threads[THREADS];
    void *library = dlopen(argc > 1 ? argv[1] : "", RTLD_NOW | RTLD_LOCAL);
    REQUIRE(library != NULL);
    allocate = (void *(*)(size_t))(uintptr_t)dlsym(library, "HmmAlloc");
    release = (void (*)(void *))(uintptr_t)dlsym(library, "HmmFree");
    REQUIRE(allocate != NULL && release != NULL);
    REQUIRE(pthread_barrier_init(&all_ready, NULL, THREADS + 1) == 0);
    alarm(LIMIT_SECONDS);
    for (int i = 0; i < THREADS; i++) {
        REQUIRE(pthread_create(&threads[i], NULL, thread_run, NULL) == 0);
    }
    pthread_barrier_wait(&all_ready);
    pid_t child = fork();
    if (child == 0) {
        alarm(LIMIT_SECONDS);
        use_heap();
        _exit(EXIT_SUCCESS);
    }
    int status = -1;
    use_heap();
    REQUIRE(child > 0 && waitpid(child, &status, 0) == child);
    EXPECT_EQUAL(status, 0);
    for (int i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
    }
    return case_status();
}
