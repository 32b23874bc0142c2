/*
 * guard_quarantine.h - what a thread has freed, and holds back for a while. For the files of the guard only.
 *
 * A block that comes takes the place of another, drawn by chance, which goes on its way. Blocks are looked at
 * when they go: medium ones whole, slots in the word that their link will overwrite, because the rest is
 * looked at when they are handed out.
 */
#ifndef HMM_GUARD_QUARANTINE_H
#define HMM_GUARD_QUARANTINE_H

#include "guard_block.h"
#include "guard_rooms.h"

static inline void slot_release(struct thread *thread, struct slot *slot)
{
    struct granule *slab = granule_of(slot);
    if (LIKELY(thread_is_open(thread) && granule_owner(slab) == thread->self)) {
        slot_link(slot, slab->free);
        slab->free = slot;
        if (UNLIKELY(--slab->need == 0)) {
            hmm_thread_slab_event(thread, slab);
        }
        return;
    }
    hmm_thread_free_remote(thread, slab, slot);
}

/* A block leaves the quarantine as it came, or somebody wrote into it. Of a slot only the
 * word is looked at that its link will overwrite: the rest is when it is handed out. */
static inline void block_release(struct thread *thread, void *ptr)
{
    if (LIKELY(granule_kind(granule_of(ptr)) == GRANULE_SLAB)) {
        struct slot *slot = ptr;
        if (UNLIKELY(slot->next != NULL)) {
            hmm_guard_accuse_byte("free", ptr, "write after free", NULL,
                                  nonzero_byte((uintptr_t)ptr));
        }
        slot_release(thread, slot);
        return;
    }
    hmm_guard_medium_release(ptr);
}

/* Knuth's MMIX generator: its high bits are good enough to make a place hard to guess. */
static inline uint64_t random_next(struct quarantine *quarantine)
{
    quarantine->random_state = quarantine->random_state * 0x5851f42d4c957f2du + 0x14057b7ef767814fu;
    return quarantine->random_state >> 40;
}

static inline __attribute__((always_inline)) void
quarantine_swap(struct thread *thread, size_t index, void *ptr, size_t bytes)
{
    struct quarantine *quarantine = &thread->guarded->quarantine;
    void *old = quarantine->blocks[index].ptr;
    quarantine->bytes += (uint32_t)bytes - quarantine->blocks[index].bytes;
    quarantine->blocks[index].ptr = ptr;
    quarantine->blocks[index].bytes = (uint32_t)bytes;
    atomic_signal_fence(memory_order_seq_cst); /* a forked child finds no block in both places */
    if (old != NULL) {
        block_release(thread, old);
    }
}

/* The block takes the place of another, at random, which may be used again now. */
static inline void quarantine_add(struct thread *thread, void *ptr, size_t bytes)
{
    if (bytes > hmm_guard.quarantine_block_bytes || !thread_is_open(thread)) {
        block_release(thread, ptr);
        return;
    }
    struct quarantine *quarantine = &thread->guarded->quarantine;
    quarantine_swap(thread, (size_t)random_next(quarantine) & hmm_guard.quarantine_mask, ptr,
                    bytes);
    while (quarantine->bytes > hmm_guard.quarantine_bytes) {
        quarantine->next = (quarantine->next + 1) & hmm_guard.quarantine_mask;
        quarantine_swap(thread, quarantine->next, NULL, 0);
    }
}

/* All of it goes. */
HMM_HIDDEN void hmm_guard_quarantine_flush(struct thread *thread);

/* fork(), in the child: what a vanished thread held back goes, but for what it was just about to. */
HMM_HIDDEN void hmm_guard_quarantine_inherit(struct guarded *guarded);

/* Whether a block that is held back looks as it came, where it is looked at. */
HMM_HIDDEN bool hmm_guard_held_is_free(void *ptr);

#endif
