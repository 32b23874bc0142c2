/*
 * lock.c - the slow halves of the locks: waiting, waking, and fork. See lock.h.
 */
#include "lock.h"
#include "check.h"
#include "os.h"

#include <pthread.h>

enum {
    /* A heap call takes some 100 ns and a futex call with a wake-up some 5000: a
     * short look pays. */
    SPIN_COUNT = 100,
    /* For a message about a crime: many heap calls long, and still over before anybody notices. */
    TRY_SPIN_COUNT = 10000,
};

/* The thread inside fork(), 0: none. Written by that thread only; relaxed, because a thread only
 * asks whether the value is its own. */
static atomic_uintptr_t lock_forker;

static inline void lock_pause(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#endif
}

static bool lock_is_forker(void)
{
    uintptr_t forker = atomic_load_explicit(&lock_forker, memory_order_relaxed);
    return forker != 0 && forker == (uintptr_t)pthread_self();
}

static bool lock_spin(struct lock *lock, int count)
{
    for (int spins = 0; spins < count; spins++) {
        uint32_t state = LOCK_FREE;
        if (atomic_load_explicit(&lock->state, memory_order_relaxed) == LOCK_FREE &&
            atomic_compare_exchange_strong_explicit(&lock->state, &state, LOCK_HELD,
                                                    memory_order_acquire, memory_order_relaxed)) {
            return true;
        }
        lock_pause();
    }
    return false;
}

bool hmm_lock_try(struct lock *lock)
{
    bool is_taken = lock_spin(lock, TRY_SPIN_COUNT);
    if (is_taken) {
        hmm_lock_note_tried(lock);
    }
    return is_taken;
}

void hmm_lock_acquire_slow(struct lock *lock)
{
    if (lock_is_forker() && lock->is_for_fork) {
        return;
    }
    if (process_has_one_thread()) {
        hmm_fatal("lock", lock, &(struct crime){.what = "heap call inside a heap call"}, NULL);
    }
    if (lock_spin(lock, SPIN_COUNT)) {
        return;
    }
    while (atomic_exchange_explicit(&lock->state, LOCK_CONTENDED, memory_order_acquire) !=
           LOCK_FREE) {
        hmm_os_futex_wait(&lock->state, LOCK_CONTENDED);
    }
}

void hmm_lock_fork_begin(void)
{
    atomic_store_explicit(&lock_forker, (uintptr_t)pthread_self(), memory_order_relaxed);
}

void hmm_lock_fork_end(void)
{
    atomic_store_explicit(&lock_forker, 0, memory_order_relaxed);
}

void hmm_lock_acquire_for_fork(struct lock *lock)
{
    hmm_lock_acquire(lock);
    lock->is_for_fork = true;
}

void hmm_lock_release_after_fork(struct lock *lock)
{
    lock->is_for_fork = false;
    hmm_lock_release(lock);
}

#ifdef HMM_DEBUG

static _Thread_local unsigned ranks_held; /* one bit a rank, the first rank's first */

static unsigned rank_bit(const struct lock *lock)
{
    return 1u << (lock->rank - LOCK_RANK_START);
}

void hmm_lock_note_tried(const struct lock *lock)
{
    ranks_held |= rank_bit(lock);
}

void hmm_lock_note_acquired(const struct lock *lock)
{
    if (!lock->is_for_fork) {
        ASSERT(ranks_held < 2 * rank_bit(lock));
        hmm_lock_note_tried(lock);
    }
}

void hmm_lock_note_released(const struct lock *lock)
{
    ranks_held &= ~rank_bit(lock);
}

#endif
