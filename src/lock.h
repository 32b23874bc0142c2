/*
 * lock.h - ranked locks.
 *
 * A lock is one word: free, held, or held with sleepers (U. Drepper, "Futexes Are Tricky": the third
 * state spares the system call where nobody waits). While the process has one thread no atomic
 * read-modify-write is executed.
 *
 * The ranks are the lock order: a thread takes locks in rising rank only, and debug builds check
 * it. fork() takes all of them; until it is over the forking thread walks through locks as if they
 * were open, because handlers of pthread_atfork that run before or after ours may allocate.
 *
 * A lock that is found held while there is one thread was taken by this thread: a signal handler
 * called into a heap that it had interrupted. That would deadlock, so it is a crime.
 *
 * Freestanding there are no threads that we could know of: the functions are empty, and a target
 * that has tasks gives its own lock in HmmHeapOptions.
 */
#ifndef HMM_LOCK_H
#define HMM_LOCK_H

#include "base.h"

enum lock_rank { LOCK_RANK_START, LOCK_RANK_REGISTRY, LOCK_RANK_HEAP, LOCK_RANK_PROCESS };

#if HMM_FREESTANDING

struct lock {
    char nothing;
};

static inline void hmm_lock_init(struct lock *lock, enum lock_rank rank)
{
    (void)rank;
    lock->nothing = 0;
}

static inline void hmm_lock_acquire(struct lock *lock)
{
    (void)lock;
}

static inline void hmm_lock_release(struct lock *lock)
{
    (void)lock;
}

#else

#include "os.h"

#include <stdatomic.h>
#include <sys/single_threaded.h>

enum lock_state { LOCK_FREE, LOCK_HELD, LOCK_CONTENDED };

struct lock {
    /* acquire on the change to held pairs with release on the change to free */
    _Atomic uint32_t state;
    enum lock_rank rank; /* immutable after init */
};

#define LOCK_INITIALIZER(its_rank) {LOCK_FREE, its_rank}

/* The thread inside fork(), 0: none. Written by that thread only; relaxed, because a thread only
 * asks whether the value is its own. */
extern HMM_HIDDEN atomic_uintptr_t hmm_lock_forker;

HMM_HIDDEN void hmm_lock_acquire_slow(struct lock *lock);
HMM_HIDDEN void hmm_lock_release_while_forking(struct lock *lock);

/* fork(): between begin and end the calling thread passes every lock. */
HMM_HIDDEN void hmm_lock_fork_begin(void);
HMM_HIDDEN void hmm_lock_fork_end(void);

/* Debug builds: no lock of a higher rank may be held. */
#ifdef HMM_DEBUG
HMM_HIDDEN void hmm_lock_note_acquired(const struct lock *lock);
HMM_HIDDEN void hmm_lock_note_released(const struct lock *lock);
#else
static inline void hmm_lock_note_acquired(const struct lock *lock)
{
    (void)lock;
}

static inline void hmm_lock_note_released(const struct lock *lock)
{
    (void)lock;
}
#endif

static inline void hmm_lock_init(struct lock *lock, enum lock_rank rank)
{
    atomic_init(&lock->state, LOCK_FREE);
    lock->rank = rank;
}

/* In a forked child: whoever held the lock or slept on it is gone. */
static inline void hmm_lock_reset(struct lock *lock)
{
    hmm_lock_note_released(lock);
    hmm_lock_init(lock, lock->rank);
}

static inline void hmm_lock_acquire(struct lock *lock)
{
    uint32_t state = LOCK_FREE;
    if (__libc_single_threaded &&
        atomic_load_explicit(&lock->state, memory_order_relaxed) == LOCK_FREE) {
        atomic_store_explicit(&lock->state, LOCK_HELD, memory_order_relaxed);
    } else if (!atomic_compare_exchange_strong_explicit(&lock->state, &state, LOCK_HELD,
                                                        memory_order_acquire,
                                                        memory_order_relaxed)) {
        hmm_lock_acquire_slow(lock);
    }
    hmm_lock_note_acquired(lock);
}

static inline void hmm_lock_release(struct lock *lock)
{
    hmm_lock_note_released(lock);
    if (UNLIKELY(atomic_load_explicit(&hmm_lock_forker, memory_order_relaxed) != 0)) {
        hmm_lock_release_while_forking(lock);
    } else if (__libc_single_threaded) {
        atomic_store_explicit(&lock->state, LOCK_FREE, memory_order_relaxed);
    } else if (atomic_exchange_explicit(&lock->state, LOCK_FREE, memory_order_release) ==
               LOCK_CONTENDED) {
        hmm_os_futex_wake(&lock->state);
    }
}

#endif

#endif
