/*
 * api_thread.c - the door through which a program gets threads: the first one brings the scavenger with it.
 *
 * Here no lock of anybody's is held, as it may be where memory is asked for. The next one is looked up by the first call, at
 * which there is but one thread: nobody else has the loader's lock, and waits for what we start. Going on is a jump.
 */
#include "next.h"
#include "purge.h"
#include "scavenger.h"

#include <errno.h>

int pthread_create(pthread_t *restrict thread, const pthread_attr_t *restrict attributes,
                   void *(*start)(void *argument), void *restrict argument)
{
    static _Atomic uintptr_t known;
    pthread_create_function next = (pthread_create_function)next_address(&known, "pthread_create");
    if (UNLIKELY(next == NULL)) {
        return EAGAIN;
    }
    if (UNLIKELY(atomic_load_explicit(&hmm_scavenger.state, memory_order_relaxed) ==
                 SCAVENGER_WANTED)) {
        hmm_scavenger_start(next);
    }
    return next(thread, attributes, start, argument);
}
