/*
 * early_handlers.c - a shared library whose constructor registers handlers of pthread_atfork.
 *
 * Built once as any library, and once so that it asks, as libhmm does, to be initialized first: of
 * two such libraries the one that is loaded last gets its way, and its handlers are there before
 * libhmm's. Then its `prepare` runs when all locks are taken already, and its `parent` and `child`
 * while they still are.
 *
 * What the handlers do is set by the program.
 */
#include "early_handlers.h"

#include <pthread.h>
#include <stddef.h>

static void (*act)(enum fork_moment moment);

void early_handlers_set(void (*function)(enum fork_moment moment))
{
    act = function;
}

static void prepare(void)
{
    if (act != NULL) {
        act(FORK_PREPARE);
    }
}

static void parent(void)
{
    if (act != NULL) {
        act(FORK_PARENT);
    }
}

static void child(void)
{
    if (act != NULL) {
        act(FORK_CHILD);
    }
}

__attribute__((constructor)) static void register_handlers(void)
{
    pthread_atfork(prepare, parent, child);
}
