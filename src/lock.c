/*
 * lock.c - the slow halves of the locks: waiting, waking, and fork. See lock.h.
 */
#include "lock.h"
#include "check.h"
#include "os.h"

#include <pthread.h>

/* A heap call takes some 100 ns and a futex call with a wake-up some 5000: a short look pays. */
enum { SPIN_COUNT = 100 };

atomic_uintptr_t hmm_lock_forker;

static inline void lock_pause(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#endif
}

static bool lock_is_forker(void)
{
    uintptr_t forker = atomic_load_explicit(&hmm_lock_forker, memory_order_relaxed);
    return forker != 0 && forker == (uintptr_t)pthread_self();
}

void hmm_lock_acquire_slow(struct lock *lock)
{
    if (lock_is_forker()) {
        return;
    }
    if (__libc_single_threaded) {
        hmm_fatal("lock", lock, &(struct crime){.what = "heap call inside a heap call"}, NULL);
    }
    for (int spins = 0; spins < SPIN_COUNT; spins++) {
        uint32_t state = LOCK_FREE;
        if (atomic_load_explicit(&lock->state, memory_order_relaxed) == LOCK_FREE &&
            atomic_compare_exchange_strong_explicit(&lock->state, &state, LOCK_HELD,
                                                    memory_order_acquire, memory_order_relaxed)) {
            return;
        }
        lock_pause();
    }
    while (atomic_exchange_explicit(&lock->state, LOCK_CONTENDED, memory_order_acquire) !=
           LOCK_FREE) {
        hmm_os_futex_wait(&lock->state, LOCK_CONTENDED);
    }
}

/* The forking thread walked through, so it leaves the lock as it is. Another thread may hold a lock
 * that fork does not know, that of a heap in a caller's memory, and gives it back as ever. */
void hmm_lock_release_while_forking(struct lock *lock)
{
    if (!lock_is_forker() &&
        atomic_exchange_explicit(&lock->state, LOCK_FREE, memory_order_release) == LOCK_CONTENDED) {
        hmm_os_futex_wake(&lock->state);
    }
}

void hmm_lock_fork_begin(void)
{
    atomic_store_explicit(&hmm_lock_forker, (uintptr_t)pthread_self(), memory_order_relaxed);
}

void hmm_lock_fork_end(void)
{
    atomic_store_explicit(&hmm_lock_forker, 0, memory_order_relaxed);
}

#ifdef HMM_DEBUG

static _Thread_local unsigned ranks_held; /* one bit a rank */

void hmm_lock_note_acquired(const struct lock *lock)
{
    if (!lock_is_forker()) {
        ASSERT(ranks_held >> (lock->rank + 1) == 0);
        ranks_held |= 1u << lock->rank;
    }
}

void hmm_lock_note_released(const struct lock *lock)
{
    if (!lock_is_forker()) {
        ranks_held &= ~(1u << lock->rank);
    }
}

#endif
