/*
 * thread.c - the life of a thread: opened by a call that finds no bins, ended by the system,
 * dormant until another takes over what it had, or everybody. See thread.h.
 */
#include "purge.h"
#include "random.h"
#include "thread_room.h"

#include <pthread.h>
#include <sched.h>

_Thread_local struct thread_block hmm_thread;
struct thread hmm_thread_closed;

/* immutable once threads are opened */
static void (*thread_end_guard)(struct thread *thread);
static uint32_t thread_short_room_span_bytes;

struct thread_lists hmm_threads = {.lock = LOCK_INITIALIZER(LOCK_RANK_THREADS)};

static pthread_key_t end_key;        /* immutable while has_end_key is set */
static _Atomic unsigned has_end_key; /* a word: not every processor exchanges bytes */
static _Atomic bool is_keyless;      /* the system has none left, or the code is about to go */

static void thread_put_aside(struct thread *thread)
{
    hmm_lock_acquire(&hmm_threads.lock);
    thread_link(&hmm_threads.unused, thread);
    hmm_lock_release(&hmm_threads.lock);
}

/* Of a thread on no list. Its slabs are everybody's, and the struct the next thread's. */
static void thread_break_up(struct thread *thread)
{
    hmm_thread_disown_slabs(thread);
    thread->bins = NULL;
    thread_put_aside(thread);
}

static struct thread *dormant_pop(void)
{
    if (atomic_load_explicit(&hmm_threads.dormant_count, memory_order_relaxed) == 0) {
        return NULL;
    }
    hmm_lock_acquire(&hmm_threads.lock);
    struct thread *thread = hmm_threads.dormant;
    if (thread != NULL) {
        thread_unlink(&hmm_threads.dormant, thread);
        unsigned count = atomic_load_explicit(&hmm_threads.dormant_count, memory_order_relaxed);
        atomic_store_explicit(&hmm_threads.dormant_count, count - 1, memory_order_relaxed);
    }
    hmm_lock_release(&hmm_threads.lock);
    return thread;
}

void hmm_thread_break_up_dormant(void)
{
    struct thread *thread = dormant_pop();
    while (thread != NULL) {
        thread_break_up(thread);
        thread = dormant_pop();
    }
}

void hmm_thread_flush(struct thread *thread)
{
    if (thread_is_open(thread)) {
        thread_set_busy(thread, true);
        (void)hmm_thread_flush_batches(thread);
        hmm_thread_flush_slabs(thread);
        thread_set_busy(thread, false);
    }
    hmm_thread_break_up_dormant();
}

/* A thread that has no bins any more becomes dormant. false: there are enough of them, and it is
 * on no list. */
static bool thread_leave(struct thread *thread)
{
    hmm_lock_acquire(&hmm_threads.lock);
    thread_unlink(&hmm_threads.live, thread);
    unsigned count = atomic_load_explicit(&hmm_threads.dormant_count, memory_order_relaxed);
    bool is_kept = count < DORMANT_MAX;
    thread->self = OWNER_DORMANT;
    thread->bins = thread->kept_bins;
    thread_set_busy(thread, false);
    if (is_kept) {
        thread_link(&hmm_threads.dormant, thread);
        atomic_store_explicit(&hmm_threads.dormant_count, count + 1, memory_order_relaxed);
    }
    hmm_lock_release(&hmm_threads.lock);
    return is_kept;
}

/* Of a live thread, the calling one. */
static void thread_close(struct thread *thread)
{
    if (UNLIKELY(thread_end_guard != NULL)) {
        thread_end_guard(thread);
    }
    hmm_thread.thread = &hmm_thread_closed;
    hmm_thread.guarded = NULL;
    hmm_thread.short_room_span_bytes = 0;
    thread_set_busy(thread, true);
    hmm_purge_count_loose(thread->loose_bytes);
    thread->loose_bytes = 0;
    (void)hmm_thread_flush_batches(thread);
    hmm_thread_retire_slabs(thread);
    if (!thread_leave(thread)) {
        thread_break_up(thread);
    }
}

/* The thread's end, called by the system. With which argument says nothing: another copy of this
 * library, on a C library of its own (dlmopen), may have put its thread where ours was. */
static void thread_end(void *argument)
{
    (void)argument;
    atomic_fetch_add_explicit(&hmm_threads.ending_count, 1, memory_order_relaxed);
    if (thread_is_open(hmm_thread.thread)) {
        thread_close(hmm_thread.thread);
    }
    /* release: whoever waits for it in hmm_thread_unregister takes the code away. */
    atomic_fetch_sub_explicit(&hmm_threads.ending_count, 1, memory_order_release);
}

/* -------------------------------------------------------------------------------------- opening */

static struct thread *unused_pop(void)
{
    hmm_lock_acquire(&hmm_threads.lock);
    struct thread *thread = hmm_threads.unused;
    if (thread != NULL) {
        thread_unlink(&hmm_threads.unused, thread);
    }
    hmm_lock_release(&hmm_threads.lock);
    return thread;
}

void hmm_thread_set_guard(void (*end)(struct thread *thread), uint32_t short_room_span_bytes)
{
    thread_short_room_span_bytes = short_room_span_bytes;
    thread_end_guard = end;
}

/* Where the thread's bins are, and by which name it owns slabs: the doors know neither if there is
 * a guard, so that every call arrives in a slow path. false: no memory. */
static bool thread_equip(struct thread *thread)
{
    thread->self = thread_pointer();
    thread->bins = hmm_thread.bins;
    if (UNLIKELY(thread_end_guard != NULL)) {
        if (thread->guarded == NULL) {
            thread->guarded = hmm_arena_metadata(sizeof *thread->guarded);
        }
        if (thread->guarded == NULL) {
            return false;
        }
        thread->guarded->quarantine.random_state = hmm_random_secret() | 1;
        thread->self = thread_pointer() | OWNER_GUARDED;
        thread->guarded->self = thread->self;
        thread->bins = HMM_SECURE ? hmm_thread.bins : thread->guarded->bins;
    }
    return true;
}

/* `thread` is a dormant one; NULL: there is none, or it shall not be one. */
static struct thread *thread_open(struct thread *thread)
{
    if (UNLIKELY(atomic_load_explicit(&is_keyless, memory_order_acquire))) {
        if (thread != NULL) {
            thread_break_up(thread);
        }
        hmm_thread.thread = &hmm_thread_closed;
        return hmm_thread.thread;
    }
    const bool was_dormant = thread != NULL;
    thread = thread != NULL ? thread : unused_pop();
    thread = thread != NULL ? thread : hmm_arena_metadata(sizeof *thread);
    if (thread == NULL) {
        return NULL;
    }
    if (!thread_equip(thread)) {
        thread_put_aside(thread);
        return NULL;
    }
    if (was_dormant) {
        hmm_thread_claim_slabs(thread);
    }
    hmm_lock_acquire(&hmm_threads.lock);
    thread->shard = hmm_threads.opened_count++;
    thread_link(&hmm_threads.live, thread);
    hmm_lock_release(&hmm_threads.lock);
    if (thread->shard == 1) {
        atomic_store_explicit(&hmm_purge_counts.has_threads, true, memory_order_relaxed);
    }
    hmm_thread.thread = thread;
    hmm_thread.guarded = thread->guarded;
    hmm_thread.short_room_span_bytes = thread_short_room_span_bytes;
    if (atomic_load_explicit(&has_end_key, memory_order_acquire) &&
        pthread_setspecific(end_key, thread) != 0) {
        thread_close(thread);
    }
    return hmm_thread.thread;
}

struct thread *hmm_thread_open(void)
{
    return thread_open(dormant_pop());
}

/* What dormant threads have is for those who allocate. */
struct thread *hmm_thread_open_to_free(void)
{
    int saved_errno = errno;
    struct thread *thread = thread_open(NULL);
    errno = saved_errno;
    return thread;
}

/* Where there is no key, only the first thread has bins: another's end would go unnoticed (T1). */
void hmm_thread_register(void)
{
    if (pthread_key_create(&end_key, thread_end) != 0) {
        atomic_store_explicit(&is_keyless, true, memory_order_release);
        return;
    }
    atomic_store_explicit(&has_end_key, true, memory_order_release);
    if (thread_is_open(hmm_thread.thread)) {
        (void)pthread_setspecific(end_key, hmm_thread.thread);
    }
}

/* Who has been called by the system, and has not got to counting himself, is missed: there is no
 * way to wait for him. */
void hmm_thread_unregister(void)
{
    atomic_store_explicit(&is_keyless, true, memory_order_release);
    if (!atomic_exchange_explicit(&has_end_key, false, memory_order_acq_rel)) {
        return;
    }
    (void)pthread_key_delete(end_key);
    while (atomic_load_explicit(&hmm_threads.ending_count, memory_order_acquire) != 0) {
        (void)sched_yield();
    }
}
