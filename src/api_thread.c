/*
 * api_thread.c - the door through which a program gets threads: the first one brings the scavenger with it.
 *
 * Here no lock of anybody's is held, as it may be where memory is asked for. The next one is looked up by the first call, at
 * which there is but one thread: nobody else has the loader's lock, and waits for what we start. Going on is a jump.
 */
#include "purge.h"
#include "scavenger.h"

#include <dlfcn.h>
#include <errno.h>

/* The next one behind ours, 0: not looked up yet. */
static _Atomic uintptr_t create_address;

static HMM_COLD pthread_create_function create_find(void)
{
    uintptr_t address = (uintptr_t)dlsym(RTLD_NEXT, "pthread_create");
    atomic_store_explicit(&create_address, address, memory_order_relaxed);
    return (pthread_create_function)address;
}

int pthread_create(pthread_t *restrict thread, const pthread_attr_t *restrict attributes,
                   void *(*start)(void *argument), void *restrict argument)
{
    uintptr_t address = atomic_load_explicit(&create_address, memory_order_relaxed);
    pthread_create_function next =
        LIKELY(address != 0) ? (pthread_create_function)address : create_find();
    if (UNLIKELY(next == NULL)) {
        return EAGAIN;
    }
    if (UNLIKELY(atomic_load_explicit(&hmm_scavenger.state, memory_order_relaxed) ==
                 SCAVENGER_WANTED)) {
        hmm_scavenger_start(next);
    }
    return next(thread, attributes, start, argument);
}
