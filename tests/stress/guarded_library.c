/*
 * guarded_library.c - a library as many are: it allocates under a mutex of its own, which it takes
 * for fork() by pthread_atfork, and it starts its worker anew in the child.
 *
 * Its handlers are registered before the allocator's would be if those had no precedence. Then fork
 * would hold the heap while it waits for the mutex, and the worker the mutex while it waits for the
 * heap.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

static pthread_mutex_t guard = PTHREAD_MUTEX_INITIALIZER;
static atomic_long turns;

long guarded_turns(void);

long guarded_turns(void)
{
    return atomic_load(&turns);
}

static void *work(void *unused)
{
    for (;;) {
        pthread_mutex_lock(&guard);
        void *block = malloc(100 + (size_t)(turns % 2000));
        free(block);
        pthread_mutex_unlock(&guard);
        atomic_fetch_add(&turns, 1);
    }
    return unused;
}

static void start_worker(void)
{
    pthread_t worker;
    if (pthread_create(&worker, NULL, work, NULL) != 0) {
        abort();
    }
    pthread_detach(worker);
}

static void prepare(void)
{
    pthread_mutex_lock(&guard);
}

static void parent(void)
{
    pthread_mutex_unlock(&guard);
}

static void child(void)
{
    atomic_store(&turns, 0);
    pthread_mutex_unlock(&guard);
    start_worker();
}

__attribute__((constructor)) static void begin(void)
{
    pthread_atfork(prepare, parent, child);
    start_worker();
}
