/*
 * scavenger.h - a thread of our own that gives back what an idle process keeps.
 *
 * Memory goes back as other memory is freed, so what regret keeps (purge.h) stays in a process that makes no call any more. With
 * scavenger=1 a thread gives it back as regret fades, within some seconds. It is started with the first thread that
 * the program starts itself: a process that has no threads gets none. It sleeps until somebody who frees meets more than the bound
 * without regret, wakes once a second while there is regret, and then sleeps again. It takes no signals.
 *
 * It ends when the thread ends that loaded the library, because a process whose first thread has ended goes on until the last of
 * the others ends. A forked child has none until it starts a thread.
 */
#ifndef HMM_SCAVENGER_H
#define HMM_SCAVENGER_H

#include "base.h"

#include <pthread.h>
#include <stdatomic.h>

typedef int (*pthread_create_function)(pthread_t *thread, const pthread_attr_t *attributes,
                                       void *(*start)(void *argument), void *argument);

/* There shall be one: hmm_scavenger.state is SCAVENGER_WANTED until somebody starts it. By the thread at whose end it ends. */
HMM_HIDDEN HMM_COLD void hmm_scavenger_prepare(void);

/* Starts it, once, by the system's pthread_create. If that fails there is none. Leaves errno alone. */
HMM_HIDDEN HMM_COLD void hmm_scavenger_start(pthread_create_function create);

/* In a forked child, with no lock held, where one was prepared. */
extern HMM_HIDDEN bool hmm_scavenger_is_prepared;
HMM_HIDDEN HMM_COLD void hmm_scavenger_forked(void);

#endif
