/*
 * thread_lists.h - all threads there are and were: for the threads' room, and for whoever counts
 * what they have.
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
    _Atomic unsigned ending_count;  /* called by the system because they end, and not done yet */
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

#endif
