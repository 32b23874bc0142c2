/*
 * lock.h - ranked locks.
 *
 * A lock is one word: free, held, or held with sleepers (U. Drepper, "Futexes Are Tricky": the
 * third state spares the system call where nobody waits). While the process has one thread, and the
 * C library says so, no atomic read-modify-write is executed.
 *
 * The ranks are the lock order: a thread takes locks in rising rank only, and debug builds
 * check it. fork() takes all of them, where there are several threads; until it is over the
 * forking thread walks through those that it took as if they were open, because handlers of
 * pthread_atfork that run before or after ours may allocate.
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

/* In this order. A lock of the medium shards is all zero while it is free, and so are the shards
 * until they are used: the library's file has no bytes for them, and a process no page. */
enum lock_rank {
    LOCK_RANK_START = -6,
    LOCK_RANK_REGISTRY,
    LOCK_RANK_HEAP,
    LOCK_RANK_PROCESS,
    LOCK_RANK_THREADS,
    LOCK_RANK_CLASS,
    LOCK_RANK_MEDIUM,
    LOCK_RANK_FENCE,
    LOCK_RANK_ARENA
};

static_assert(LOCK_RANK_MEDIUM == 0, "a zeroed lock is that of a medium shard");

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

static inline bool hmm_lock_try(struct lock *lock)
{
    (void)lock;
    return true;
}

static inline void hmm_lock_release(struct lock *lock)
{
    (void)lock;
}

static inline void hmm_lock_note_inside(struct lock *lock)
{
    (void)lock;
}

static inline void hmm_lock_note_outside(struct lock *lock)
{
    (void)lock;
}

#else

#include "libc.h"
#include "os.h"

#include <stdatomic.h>

enum lock_state { LOCK_FREE, LOCK_HELD, LOCK_CONTENDED };

struct lock {
    /* acquire on the change to held pairs with release on the change to free, which is sequentially
     * consistent for hmm_lock_try_now: that costs nothing more on x86-64 and little on ARM */
    _Atomic uint32_t state;
    enum lock_rank rank; /* immutable after init */
    bool is_for_fork;    /* guarded by the lock: fork() holds it, and its thread walks through */
    /* Of a lock that is never taken, because the caller guards what it stands before: a thread is
     * inside a call that changes it. For readers of the process; relaxed, they look more than
     * once. */
    _Atomic bool is_inside;
};

#define LOCK_INITIALIZER(its_rank)                                                                 \
    {                                                                                              \
        LOCK_FREE, its_rank, false, false                                                          \
    }

HMM_HIDDEN void hmm_lock_acquire_slow(struct lock *lock);

/* Takes the lock if it is to be had within moments. */
HMM_HIDDEN bool hmm_lock_try(struct lock *lock);

/* fork(): the calling thread, and it alone, walks through the locks that it took for the fork, from
 * begin to end, in the parent and in the child. One fork at a time: begin comes after the first of
 * those locks was taken, end before it is given back. */
HMM_HIDDEN void hmm_lock_fork_begin(void);
HMM_HIDDEN void hmm_lock_fork_end(void);
HMM_HIDDEN void hmm_lock_acquire_for_fork(struct lock *lock);
HMM_HIDDEN void hmm_lock_release_after_fork(struct lock *lock);

/* Debug builds: no lock of a higher rank may be held, but by who does not wait for this one. */
#ifdef HMM_DEBUG
HMM_HIDDEN void hmm_lock_note_acquired(const struct lock *lock);
HMM_HIDDEN void hmm_lock_note_tried(const struct lock *lock);
HMM_HIDDEN void hmm_lock_note_released(const struct lock *lock);
#else
static inline void hmm_lock_note_acquired(const struct lock *lock)
{
    (void)lock;
}

static inline void hmm_lock_note_tried(const struct lock *lock)
{
    (void)lock;
}

static inline void hmm_lock_note_released(const struct lock *lock)
{
    (void)lock;
}
#endif

/* A counter that any thread adds to: no read-modify-write while there is one. */
static inline void counter_add(_Atomic ptrdiff_t *counter, ptrdiff_t amount)
{
    if (process_has_one_thread()) {
        ptrdiff_t now = atomic_load_explicit(counter, memory_order_relaxed);
        atomic_store_explicit(counter, now + amount, memory_order_relaxed);
    } else {
        atomic_fetch_add_explicit(counter, amount, memory_order_relaxed);
    }
}

static inline void hmm_lock_init(struct lock *lock, enum lock_rank rank)
{
    atomic_init(&lock->state, LOCK_FREE);
    lock->rank = rank;
    lock->is_for_fork = false;
    atomic_init(&lock->is_inside, false);
}

static inline void hmm_lock_acquire(struct lock *lock)
{
    uint32_t state = LOCK_FREE;
    if (process_has_one_thread() &&
        atomic_load_explicit(&lock->state, memory_order_relaxed) == LOCK_FREE) {
        atomic_store_explicit(&lock->state, LOCK_HELD, memory_order_relaxed);
    } else if (!atomic_compare_exchange_strong_explicit(
                   &lock->state, &state, LOCK_HELD, memory_order_acquire, memory_order_relaxed)) {
        hmm_lock_acquire_slow(lock);
    }
    hmm_lock_note_acquired(lock);
}

/* Takes the lock if nobody has it at this moment, without a second look; a thread inside fork()
 * does not walk through. Sequentially consistent, as is the release: whoever leaves a message in a
 * sequentially consistent word and then fails here can rely on the holder, if that one looks at the
 * word after its release. Not while the process has one thread. */
static inline bool hmm_lock_try_now(struct lock *lock)
{
    uint32_t state = LOCK_FREE;
    bool is_taken = atomic_compare_exchange_strong_explicit(
        &lock->state, &state, LOCK_HELD, memory_order_seq_cst, memory_order_seq_cst);
    if (is_taken) {
        hmm_lock_note_acquired(lock);
    }
    return is_taken;
}

static inline void hmm_lock_release(struct lock *lock)
{
    if (UNLIKELY(lock->is_for_fork)) {
        return;
    }
    hmm_lock_note_released(lock);
    if (process_has_one_thread()) {
        atomic_store_explicit(&lock->state, LOCK_FREE, memory_order_relaxed);
    } else if (atomic_exchange_explicit(&lock->state, LOCK_FREE, memory_order_seq_cst) ==
               LOCK_CONTENDED) {
        hmm_os_futex_wake(&lock->state);
    }
}

/* Around a change to what the caller guards. The fences keep the compiler from moving it out. */
static inline void hmm_lock_note_inside(struct lock *lock)
{
    atomic_store_explicit(&lock->is_inside, true, memory_order_relaxed);
    atomic_signal_fence(memory_order_seq_cst);
}

static inline void hmm_lock_note_outside(struct lock *lock)
{
    atomic_signal_fence(memory_order_seq_cst);
    atomic_store_explicit(&lock->is_inside, false, memory_order_relaxed);
}

#endif

#endif
