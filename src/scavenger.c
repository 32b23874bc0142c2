/*
 * scavenger.c - the thread that gives back. See scavenger.h.
 */
#include "scavenger.h"
#include "alloc.h"
#include "os.h"
#include "purge.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>

enum {
    LOOK_MS = 1000, /* as often as regret is halved */
    /* After so many looks that found nothing to wait for it sleeps until it is woken. */
    QUIET_LOOKS_MAX = 2,
    /* What a program and its libraries have for each thread is part of it. */
    STACK_BYTES = 256 * 1024,
};

/* A static program without threads has none. */
#pragma weak pthread_create

bool hmm_scavenger_is_wanted; /* immutable once constructors have run */
static pthread_key_t end_key; /* immutable while it is */

/* Nobody gets it out of its end. */
static void announce(uint32_t state)
{
    uint32_t other = state == SCAVENGER_AWAKE ? SCAVENGER_ASLEEP : SCAVENGER_AWAKE;
    (void)atomic_compare_exchange_strong_explicit(&hmm_scavenger.state, &other, state,
                                                  memory_order_relaxed, memory_order_relaxed);
}

static uint32_t state_now(void)
{
    return atomic_load_explicit(&hmm_scavenger.state, memory_order_relaxed);
}

/* Who meets too much while it is awake does not wake it: it looks a second time after it has
 * announced that it sleeps. */
static void *scavenger_main(void *unused)
{
    int quiet_looks = 0;
    hmm_os_name_thread("hmm-scavenger");
    atomic_store_explicit(&hmm_scavenger.thread, thread_pointer(), memory_order_relaxed);
    while (state_now() != SCAVENGER_ENDING) {
        const uint32_t announced = quiet_looks == 0 ? SCAVENGER_AWAKE : SCAVENGER_ASLEEP;
        announce(announced);
        if (quiet_looks < QUIET_LOOKS_MAX) {
            hmm_os_futex_wait_for(&hmm_scavenger.state, announced, LOOK_MS);
        } else {
            hmm_os_futex_wait(&hmm_scavenger.state, announced);
        }
        bool is_quiet = state_now() == announced && !hmm_alloc_scavenge();
        is_quiet = is_quiet && state_now() == announced;
        quiet_looks = is_quiet ? quiet_looks + (quiet_looks < QUIET_LOOKS_MAX) : 0;
    }
    return unused;
}

/* The system calls it at the end of the thread that has loaded us. */
static void scavenger_end(void *unused)
{
    (void)unused;
    atomic_store_explicit(&hmm_scavenger.state, SCAVENGER_ENDING, memory_order_relaxed);
    hmm_os_futex_wake(&hmm_scavenger.state);
}

/* The signals of all are not those that the C library sends itself. Where so small a stack is too
 * small, it has the usual one. */
static bool thread_start(void)
{
    pthread_t thread;
    pthread_attr_t attributes;
    sigset_t all, old;
    if (pthread_create == NULL || pthread_attr_init(&attributes) != 0) {
        return false;
    }
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &old);
    (void)pthread_attr_setstacksize(&attributes, STACK_BYTES);
    const bool is_started = pthread_create(&thread, &attributes, scavenger_main, NULL) == 0 ||
                            pthread_create(&thread, NULL, scavenger_main, NULL) == 0;
    (void)pthread_sigmask(SIG_SETMASK, &old, NULL);
    return is_started;
}

void hmm_scavenger_start(void)
{
    hmm_scavenger_is_wanted = pthread_key_create(&end_key, scavenger_end) == 0;
    if (hmm_scavenger_is_wanted) {
        hmm_scavenger_forked();
    }
}

/* The forking thread is the child's first. */
void hmm_scavenger_forked(void)
{
    const int saved_errno = errno;
    if (pthread_setspecific(end_key, &end_key) == 0) {
        atomic_store_explicit(&hmm_scavenger.thread, 0, memory_order_relaxed);
        atomic_store_explicit(&hmm_scavenger.state, SCAVENGER_AWAKE, memory_order_relaxed);
        if (!thread_start()) {
            atomic_store_explicit(&hmm_scavenger.state, SCAVENGER_NONE, memory_order_relaxed);
        }
    }
    errno = saved_errno;
}
