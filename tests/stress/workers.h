/*
 * workers.h - threads in the background that allocate and free without a pause, until they are told
 * to stop.
 *
 * Waiting is done by counting what they did, never by the clock.
 */
#ifndef WORKERS_H
#define WORKERS_H

#include "cases.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>

enum { WORKERS = 4, WORKER_BLOCKS = 64 };

static pthread_t workers[WORKERS];
static atomic_bool workers_must_stop;
static atomic_ulong worker_rounds[WORKERS];

/* One round of a busy thread: some blocks of its own, filled, checked and freed. */
static inline void worker_round(unsigned long round)
{
    unsigned char *blocks[WORKER_BLOCKS];
    for (unsigned i = 0; i < WORKER_BLOCKS; i++) {
        size_t bytes = 16 + (round * 131 + i * 977) % (i % 16 == 0 ? 20000 : 500);
        blocks[i] = malloc(bytes);
        REQUIRE(blocks[i] != NULL);
        memset(blocks[i], (int)i, 16);
    }
    for (unsigned i = 0; i < WORKER_BLOCKS; i += 3) {
        blocks[i] = realloc(blocks[i], 700);
        REQUIRE(blocks[i] != NULL);
    }
    for (unsigned i = 0; i < WORKER_BLOCKS; i++) {
        EXPECT(blocks[i][0] == i && blocks[i][15] == i);
        free(blocks[i]);
    }
}

static inline void *worker_run(void *number)
{
    unsigned long round = 0;
    while (!atomic_load(&workers_must_stop)) {
        worker_round(round++);
        atomic_fetch_add(&worker_rounds[(uintptr_t)number], 1);
    }
    return NULL;
}

static inline void workers_start(void)
{
    atomic_store(&workers_must_stop, false);
    for (uintptr_t i = 0; i < WORKERS; i++) {
        REQUIRE(pthread_create(&workers[i], NULL, worker_run, (void *)i) == 0);
    }
    for (int i = 0; i < WORKERS; i++) {
        while (atomic_load(&worker_rounds[i]) == 0) {
            sched_yield();
        }
    }
}

static inline void workers_stop(void)
{
    atomic_store(&workers_must_stop, true);
    for (int i = 0; i < WORKERS; i++) {
        pthread_join(workers[i], NULL);
    }
}

static inline void *worker_run_once(void *unused)
{
    (void)unused;
    worker_round(1);
    return NULL;
}

/* A few threads that come, allocate, and go. */
static inline void workers_visit(int count)
{
    pthread_t threads[WORKERS];
    for (int i = 0; i < count; i++) {
        REQUIRE(pthread_create(&threads[i], NULL, worker_run_once, NULL) == 0);
    }
    for (int i = 0; i < count; i++) {
        pthread_join(threads[i], NULL);
    }
}

#endif
