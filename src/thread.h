/*
 * thread.h - what a thread has of the heap: bins, slabs, and other threads' slots on
 * their way home.
 *
 * The bins lie in the thread's TLS block itself. All zero means empty, so a thread needs nothing
 * done before its first call, and a process none before its first constructor. The rest is a struct
 * thread in the library's own memory, opened by the first call that finds its bin empty, or when
 * the thread has freed many of the slots of others, for its batches.
 *
 * When a thread ends its full slabs go to sleep. Of up to DORMANT_MAX threads
 * (docs/experiments.md) the other slabs are kept whole for the next thread, with what is in the
 * bins, as dormant. Others break them up before they touch fresh memory.
 *
 * T1  Every slab that a thread owns is on one of its lists, so that its end misses none: a later
 *     thread may well have the same thread pointer.
 * T2  A bin holds slots of its class's current slab only.
 * T3  A thread has at most PARTIAL_MAX partial, as many thin and FULL_MAX full slabs a class, once
 *     the process has had threads and the thread has refilled the bin often enough to let go of
 *     what it had before. Of full ones it has the fewer the more often they come back to it by what
 *     others have freed of them.
 *     What it has of a class whose bin is as it was at the last look becomes everybody's.
 * T4  A batch holds slots of one slab that another thread owned, or nobody did, when they
 *     were freed; all batches of a thread together hold at most BATCHED_SLOTS_MAX slots
 *     and BATCHED_BYTES_MAX bytes.
 * T5  After its end a thread has no bins and no slabs: it allocates medium blocks, and its frees
 *     are pushed at once. Nor does a thread get any by a free that comes after all destructors.
 */
#ifndef HMM_THREAD_H
#define HMM_THREAD_H

#include "libc.h"
#include "quarantine.h"
#include "remote.h"

enum {
    PARTIAL_MAX = 4,
    FULL_MAX = 4,
    FULL_MIN = 1, /* where others free what is in them */
    DORMANT_MAX = 1,
    /* So much becomes loose, or is not any more, before others hear of it: slabs come and go. */
    LOOSE_STEP_BYTES = 64 * 1024,
    BATCH_COUNT = 16,
    BATCHED_SLOTS_MAX = 64,
    BATCHED_BYTES_MAX = 16 * 1024,
    /* A thread that only frees is opened after so many slots, for its batches. */
    PUSHED_SLOTS_MAX = 32,
};

struct class_slabs {
    struct granule *current;  /* NULL: none */
    struct slab_list partial; /* those with loose slots last */
    struct slab_list thin;
    struct slab_list full;
    uint32_t full_less;      /* so many fewer than FULL_MAX are kept */
    uint32_t borrowed_count; /* slots that larger classes lent while there was no slab */
    uint32_t seen;           /* of the bin, when somebody last looked: class_seen */
    uint64_t handed_slots;   /* ever put into the bin, but for those that went back */
};

struct batch {
    struct granule *slab; /* NULL: the batch is empty */
    struct slot_chain chain;
};

/* What a thread has besides where there is a guard. */
struct guarded {
    uintptr_t self; /* as the thread's */
    struct slot *bins[CLASS_COUNT];
    struct quarantine quarantine;
};

struct thread {
    uintptr_t self; /* the thread pointer */
    unsigned shard; /* of medium.c */
    /* Inside a slow path, where lists and bins may disagree. Read by a forked child about threads
     * that it does not have. */
    _Atomic bool is_busy;
    struct slot **bins;  /* in the thread's TLS block; NULL: it is neither live nor dormant */
    struct thread *next; /* of the live, the dormant or the unused; guarded by the threads' lock */
    struct thread *prev;
    struct guarded *guarded; /* NULL: there is no guard */
    uint64_t refill_count;
    ptrdiff_t loose_bytes; /* that purge.c has not been told of yet */
    uint32_t batched_slots;
    uint32_t batched_bytes;
    struct batch batches[BATCH_COUNT];
    struct class_slabs classes[CLASS_COUNT];
    struct slot *kept_bins[CLASS_COUNT]; /* of a dormant thread: its bins */
};

struct thread_block {
    struct slot *bins[CLASS_COUNT];
    struct thread *thread;   /* NULL: not opened yet */
    struct guarded *guarded; /* the thread's; NULL: not opened, ended, or there is no guard */
    uint32_t pushed_slots;   /* freed while it was not */
    uint32_t short_room_span_bytes; /* guard_fast.h; 0 where there is no `guarded` */
};

static_assert(sizeof(struct thread_block) <= 512, "dlopen has little static TLS to give");

extern HMM_HIDDEN _Thread_local struct thread_block hmm_thread;

/* What `thread` points to after the thread's end. Its `self` is 0, as the owner of slabs that
 * nobody owns: who compares asks thread_is_open first. */
extern HMM_HIDDEN struct thread hmm_thread_closed;

static inline bool thread_is_open(const struct thread *thread)
{
    return thread != NULL && thread != &hmm_thread_closed;
}

/* Opens the calling thread, whose bins are empty. NULL: no memory. Closed, if its end could not be
 * noticed. */
HMM_HIDDEN struct thread *hmm_thread_open(void);

/* From now on threads that end are noticed. */
HMM_HIDDEN void hmm_thread_register(void);

/* Our code is about to be unloaded: from now on it is not called when a thread ends, and a thread
 * that it does not know yet is closed at once. Waits for those that are ending. */
HMM_HIDDEN HMM_COLD void hmm_thread_unregister(void);

/* From now on threads have bins and slabs that the doors do not know of, and `end` is called at
 * each thread's end. Before any thread is opened. short_room_span_bytes: guard_fast.h. */
HMM_HIDDEN void hmm_thread_set_guard(void (*end)(struct thread *thread),
                                     uint32_t short_room_span_bytes);

/* A slot of the class, and the bin full with others. NULL: no memory. */
HMM_HIDDEN struct slot *hmm_thread_refill(struct thread *thread, unsigned size_class);

/* `need` of a slab that the thread owns has come to 0. */
HMM_HIDDEN void hmm_thread_slab_event(struct thread *thread, struct granule *slab);

/* So many more (or, negative, fewer) bytes are loose in slabs. Whether it has become so much that
 * everybody should know. */
HMM_HIDDEN bool hmm_thread_count_loose(ptrdiff_t bytes);

/* A slot of a slab that the thread does not own. `thread` may be closed or NULL.
 * Leaves errno alone. */
HMM_HIDDEN void hmm_thread_free_remote(struct thread *thread, struct granule *slab,
                                       struct slot *slot);

/* The process is about to have a second thread: what this one has filled becomes everybody's, for
 * it may sleep from now on. hmm_thread_has_shared says that somebody has called it, and nobody
 * needs to again. Two cache lines for each slab. */
HMM_HIDDEN HMM_COLD void hmm_thread_share(void);

extern HMM_HIDDEN _Atomic bool hmm_thread_has_shared;

/* Sends all batches on their way, empties the bins, and breaks up dormant threads: whatever can be
 * given to others. A guard has followed the links in the bins before. */
HMM_HIDDEN void hmm_thread_flush(struct thread *thread);

/* Gives the free pages of the thread's own slabs back, until it is so much. How many bytes went.
 * `thread` has been flushed, or is closed or NULL. */
HMM_HIDDEN HMM_COLD size_t hmm_thread_trim(struct thread *thread, size_t budget_bytes);

/* The heap has grown: free pages of slabs that are hardly used any more go back for it, of the
 * thread's own and of nobody's. A few slabs a call. */
HMM_HIDDEN void hmm_thread_offset_growth(struct thread *thread);

/* What a slow path ends with. `thread` may be closed. */
static inline void thread_offset_growth(struct thread *thread)
{
    if (UNLIKELY(atomic_load_explicit(&hmm_purge_growth, memory_order_relaxed) != 0) &&
        thread_is_open(thread)) {
        hmm_thread_offset_growth(thread);
    }
}

/* Gives what exceeds the bound back, as far as slabs have it: the thread's own, and those that
 * nobody owns. `thread` may be closed. */
HMM_HIDDEN HMM_COLD void hmm_thread_purge_excess(struct thread *thread);

/* fork(): the lock of the lists of threads; and, in the child, the end of all other threads. */
HMM_HIDDEN void hmm_thread_lock(void);
HMM_HIDDEN void hmm_thread_unlock(void);
HMM_HIDDEN void hmm_thread_bury_others(void);

/* What threads that are no more have left of what a guard gave them. No other thread may run. */
HMM_HIDDEN void hmm_thread_visit_unused(void (*visit)(struct guarded *guarded));

/* The first invariant that does not hold for the calling thread and the dormant ones; NULL: all do.
 * No other thread may run. */
HMM_HIDDEN const char *hmm_thread_audit(void);

#endif
