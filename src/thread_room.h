/*
 * thread_room.h - what the files of the threads' room share: the lists of a thread's slabs, and
 * what one file does for another. For them only.
 *
 *     thread.c           a thread's life: opened, ended, dormant
 *     thread_slabs.c     its slabs, and the lists on which they are
 *     thread_refill.c    how its bins are filled
 *     thread_batches.c   what it frees of other threads' slabs
 *     thread_fork.c      what a forked child does about threads that it does not have
 *     thread_audit.c     the invariants, checked
 */
#ifndef HMM_THREAD_ROOM_H
#define HMM_THREAD_ROOM_H

#include "thread_lists.h"

/* Around what leaves lists and bins in disagreement for a while. */
static inline void thread_set_busy(struct thread *thread, bool is_busy)
{
    atomic_store_explicit(&thread->is_busy, is_busy, memory_order_relaxed);
    atomic_signal_fence(memory_order_seq_cst);
}

/* ------------------------------------------------------------------------------- thread_slabs.c */

/* `need` of a slab that the thread owns counts all slots again, and nothing counts as loose. */
static inline void slab_tighten(struct granule *slab)
{
    slab_clear_stage(slab);
    if (slab->loose_slots != 0) {
        (void)hmm_thread_count_loose(
            -(ptrdiff_t)(slab->loose_slots * class_bytes(slab_class(slab))));
        slab->loose_slots = 0;
    }
}

/* The current slab has handed out what was free. What comes back of it is loose, by stages, where
 * there are threads: none has any use for what another one has at hand. */
static inline void slab_stage_current(struct granule *slab)
{
    if (!process_has_one_thread()) {
        slab_set_stage(slab);
    }
}

/* What is in the bin, if anything, goes back to the current slab, which has been tightened. */
static inline void slabs_put_back(struct class_slabs *slabs, struct slot **bin)
{
    if (*bin != NULL) {
        ASSERT(slabs->current->floor_slots == 0);
        hmm_slab_put_back(slabs->current, *bin);
        *bin = NULL;
    }
}

/* A slab that is on no list. */
static inline void slab_own(struct slab_list *list, struct granule *slab, enum slab_state state)
{
    slab->state = (uint8_t)state;
    slab_list_push(list, slab);
}

/* Takes a slab off the partial or the thin list, and what it counts for. */
static inline void slabs_part(struct class_slabs *slabs, struct granule *slab)
{
    slab_list_remove(slab->state == SLAB_THIN ? &slabs->thin : &slabs->partial, slab);
    slab_tighten(slab);
}

/* A slab that is used up, on no list. */
static inline void slabs_own_full(struct class_slabs *slabs, struct granule *slab)
{
    slab->need = class_wake(slab_class(slab));
    slab_own(&slabs->full, slab, SLAB_FULL);
}

/* How many full slabs of the class the thread keeps. */
static inline uint32_t slabs_full_max(const struct class_slabs *slabs)
{
    return FULL_MAX - slabs->full_less;
}

/* A full slab is about to be of use because of what others have freed of it: asleep it would have
 * been of use to any of them. */
static inline void slabs_note_others(struct class_slabs *slabs)
{
    slabs->full_less += slabs_full_max(slabs) > FULL_MIN;
}

/* The same because of what the thread itself has freed, which it does with no exchange. */
static inline void slabs_note_own(struct class_slabs *slabs)
{
    slabs->full_less -= slabs->full_less != 0;
}

/* Takes what others freed of a partial or thin slab. false: it is empty, and on no list any
 * more. */
static inline bool slabs_collect_partial(struct class_slabs *slabs, struct granule *slab)
{
    if (slab_remote_count(slab) == 0) {
        return true;
    }
    slab_clear_stage(slab);
    hmm_remote_collect(slab);
    if (slab->need == 0) {
        slabs_part(slabs, slab);
        return false;
    }
    slab_set_stage(slab);
    return true;
}

static inline struct granule *slabs_any_partial(const struct class_slabs *slabs)
{
    return slabs->partial.first != NULL ? slabs->partial.first : slabs->thin.first;
}

/* A slab with free slots, some to carve, or pages away, on no list; empty ones go back. */
HMM_HIDDEN void hmm_thread_keep_partial(struct class_slabs *slabs, struct granule *slab);

/* Takes a full slab off its list, with what others freed of it. It counts as partial. */
HMM_HIDDEN void hmm_thread_part_full(struct class_slabs *slabs, struct granule *slab);

/* A sleeper that the thread, which may be closed or NULL, has woken. */
HMM_HIDDEN void hmm_thread_adopt(struct thread *thread, struct granule *slab);

/* A slab that is on no list, and is not full, becomes everybody's. */
HMM_HIDDEN void hmm_thread_disown(struct granule *slab);

/* What a thread owns of a class is bounded (T3) once there are others who could use it. A few
 * slabs a call. */
HMM_HIDDEN void hmm_thread_bound_slabs(struct class_slabs *slabs);

/* What the thread has of the class becomes everybody's if its bin is as it was at the last such
 * call. */
HMM_HIDDEN void hmm_thread_let_go_quiet(struct thread *thread, unsigned size_class);

/* Full slabs go to sleep. The others become a dormant thread's, and what is in the bins. */
HMM_HIDDEN void hmm_thread_retire_slabs(struct thread *thread);

/* The slabs of a thread that was dormant get it as their owner, and its bins what was kept. */
HMM_HIDDEN void hmm_thread_claim_slabs(struct thread *thread);

/* What a dormant thread keeps in bins goes back to its slabs. */
HMM_HIDDEN void hmm_thread_put_back_kept(struct thread *thread);

/* What is in the bins goes back to their slabs, which take what others freed; the arena gets those
 * that are empty then. The thread is busy. */
HMM_HIDDEN HMM_COLD void hmm_thread_flush_slabs(struct thread *thread);

/* They become everybody's. */
HMM_HIDDEN void hmm_thread_disown_slabs(struct thread *thread);

/* ----------------------------------------------------------------------------- thread_batches.c */

/* Gives slots to a slab that the thread, which may be closed or NULL, does not own, and does what
 * that makes necessary. */
HMM_HIDDEN void hmm_thread_push(struct thread *thread, struct granule *slab,
                                struct slot_chain chain);
HMM_HIDDEN void hmm_thread_respond(struct thread *thread, struct granule *slab,
                                   enum remote_event event);

/* Sends what was gathered on its way. Whether there was anything. The thread is busy. */
HMM_HIDDEN bool hmm_thread_flush_batches(struct thread *thread);

/* ------------------------------------------------------------------------------------- thread.c */

/* Opens the calling thread for its batches, without the slabs of a dormant one.
 * Leaves errno alone. */
HMM_HIDDEN struct thread *hmm_thread_open_to_free(void);

/* The slabs of all dormant threads become everybody's. */
HMM_HIDDEN void hmm_thread_break_up_dormant(void);

#endif
