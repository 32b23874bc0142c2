/*
 * guard_quarantine.h - what a thread has freed, and holds back for a while. For the files of
 * the guard only.
 *
 * A block that comes takes the place of another, drawn by chance, which goes on its way. Short
 * slots, and all other blocks, have places of their own: guard_fast.h. Blocks are looked at when
 * they go: medium ones whole, slots in the word that their link will overwrite, because the rest is
 * looked at when they are handed out.
 */
#ifndef HMM_GUARD_QUARANTINE_H
#define HMM_GUARD_QUARANTINE_H

#include "guard_block.h"
#include "guard_rooms.h"

/* The same for all threads, and known to the compiler in the secure library: a thread of the
 * ordinary one holds back up to 1 MiB, so that a block lies idle for some thousand calls; of the
 * secure one what costs little memory. */
enum {
    QUARANTINE_COUNT = HMM_SECURE ? 64 : QUARANTINE_COUNT_MAX,
    QUARANTINE_BYTES = HMM_SECURE ? 32 << 10 : 1 << 20,
    QUARANTINE_BLOCK_SHARE = 4,
};

static HMM_INLINE void slot_release(struct thread *thread, struct slot *slot)
{
    struct granule *slab = granule_of(slot);
    if (UNLIKELY(!thread_is_open(thread) || granule_owner(slab) != thread->self)) {
        hmm_thread_free_remote(thread, slab, slot);
        return;
    }
    slot_link(slot, slab->free);
    slab->free = slot;
    if (UNLIKELY(--slab->need == 0)) {
        hmm_thread_slab_event(thread, slab);
    }
}

/* A block leaves the quarantine as it came, or somebody wrote into it. Of a slot only the word is
 * looked at that its link will overwrite: the rest is when it is handed out. The thread may be
 * closed or NULL. */
static HMM_INLINE void block_release(struct thread *thread, void *ptr)
{
    if (UNLIKELY(granule_kind(granule_of(ptr)) != GRANULE_SLAB)) {
        hmm_guard_medium_release(ptr);
        return;
    }
    struct slot *slot = ptr;
    if (UNLIKELY(slot->next != NULL)) {
        hmm_guard_accuse_byte("free", ptr, "write after free", NULL, nonzero_byte((uintptr_t)ptr));
    }
    slot_release(thread, slot);
}

static inline uint64_t quarantine_random(struct quarantine *quarantine)
{
    quarantine->random_state = random_step(quarantine->random_state);
    return quarantine->random_state >> 40;
}

/* A block, or NULL, takes a place. What was there, or NULL, may go. */
static inline void *quarantine_swap(struct quarantine *quarantine, size_t index, void *ptr,
                                    size_t bytes)
{
    struct held_block *held = &quarantine->blocks[index];
    void *old = held->ptr;
    quarantine->bytes += (uint32_t)bytes - held->bytes;
    held->ptr = ptr;
    held->bytes = (uint32_t)bytes;
    atomic_signal_fence(memory_order_seq_cst); /* a forked child finds no block in both places */
    return old;
}

/* `old`, which may be NULL, goes, and others until the bound is kept. */
HMM_HIDDEN void hmm_guard_quarantine_shrink(struct thread *thread, void *old);

/* The block takes the place of another, at random, which may be used again now. The last thing that
 * a call does: so whatever follows needs no frame. */
static HMM_INLINE void quarantine_add(void *ptr, size_t bytes)
{
    struct thread *thread = hmm_thread.thread;
    struct guarded *guarded = LIKELY(thread != NULL) ? thread->guarded : NULL;
    if (UNLIKELY(guarded == NULL || bytes > hmm_settings.guard.quarantine_block_bytes)) {
        block_release(thread, ptr);
        return;
    }
    struct quarantine *quarantine = &guarded->quarantine;
    size_t index = (size_t)quarantine_random(quarantine) % QUARANTINE_COUNT;
    void *old = quarantine_swap(quarantine, index, ptr, bytes);
    if (UNLIKELY(old == NULL || quarantine->bytes > QUARANTINE_BYTES)) {
        hmm_guard_quarantine_shrink(thread, old);
        return;
    }
    block_release(thread, old);
}

/* A slot that was held back goes, whatever it is that it leaves to. */
HMM_HIDDEN void hmm_guard_release(struct slot *slot);

/* All of it goes. */
HMM_HIDDEN void hmm_guard_quarantine_flush(struct thread *thread);

/* fork(), in the child: what a vanished thread held back goes, but for what it was
 * just about to. */
HMM_HIDDEN void hmm_guard_quarantine_inherit(struct guarded *guarded);

/* Whether a block that is held back looks as it came, where it is looked at. */
HMM_HIDDEN bool hmm_guard_held_is_free(void *ptr);

#endif
