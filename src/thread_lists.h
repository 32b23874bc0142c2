/*
 * thread_lists.h - all threads there are and were, for the files of the threads' room only.
 */
#ifndef HMM_THREAD_LISTS_H
#define HMM_THREAD_LISTS_H

#include "thread.h"

struct thread_lists {
    struct lock lock; /* guards the rest */
    struct thread *live;
    struct thread *dormant; /* the last one to end first */
    struct thread *unused;
    unsigned opened_count;
    _Atomic unsigned dormant_count; /* looked at without the lock */
};

extern HMM_HIDDEN struct thread_lists hmm_threads;

static inline void thread_unlink(struct thread **list, struct thread *thread)
{
    if (thread->prev != NULL) {
        thread->prev->next = thread->next;
    } else {
        *list = thread->next;
    }
    if (thread->next != NULL) {
        thread->next->prev = thread->prev;
    }
}

static inline void thread_link(struct thread **list, struct thread *thread)
{
    thread->prev = NULL;
    thread->next = *list;
    if (*list != NULL) {
        (*list)->prev = thread;
    }
    *list = thread;
}

/* A slab that is on no list, and is not full, becomes everybody's. */
HMM_HIDDEN void hmm_thread_disown(struct granule *slab);

/* Gives slots to a slab that the thread, which may be closed or NULL, does not own, and does what that
 * makes necessary. */
HMM_HIDDEN void hmm_thread_push(struct thread *thread, struct granule *slab,
                                struct slot_chain chain);
HMM_HIDDEN void hmm_thread_respond(struct thread *thread, struct granule *slab,
                                   enum remote_event event);

#endif
