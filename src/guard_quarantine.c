/*
 * guard_quarantine.c - a quarantine that ends. See guard_quarantine.h.
 */
#include "guard_quarantine.h"

bool hmm_guard_held_is_free(void *ptr)
{
    const struct granule *granule = granule_of(ptr);
    bool is_slot = granule_kind(granule) == GRANULE_SLAB;
    size_t room_bytes = is_slot ? class_bytes(slab_class(granule))
                                : hmm_guard_medium_room("fork", "freed block", ptr);
    return ((const struct slot *)ptr)->next == NULL && seal_load(seal_of(ptr, room_bytes)) == 0;
}

void hmm_guard_release(struct slot *slot)
{
    block_release(hmm_thread.thread, slot);
}

static void block_place_empty(struct thread *thread, size_t index)
{
    void *old = quarantine_swap(&thread->guarded->quarantine, index, NULL, 0);
    if (old != NULL) {
        block_release(thread, old);
    }
}

static void small_place_empty(struct thread *thread, size_t index)
{
    struct held_slot *held = &thread->guarded->quarantine.slots[index];
    struct slot *old = held->slot;
    *held = (struct held_slot){0};
    atomic_signal_fence(memory_order_seq_cst); /* as in quarantine_swap */
    if (old != NULL) {
        block_release(thread, old);
    }
}

void hmm_guard_quarantine_shrink(struct thread *thread, void *old)
{
    struct quarantine *quarantine = &thread->guarded->quarantine;
    if (old != NULL) {
        block_release(thread, old);
    }
    while (quarantine->bytes > QUARANTINE_BYTES) {
        quarantine->next = (quarantine->next + 1) % QUARANTINE_COUNT;
        block_place_empty(thread, quarantine->next);
    }
}

void hmm_guard_quarantine_flush(struct thread *thread)
{
    for (size_t index = 0; index < QUARANTINE_COUNT; index++) {
        block_place_empty(thread, index);
        small_place_empty(thread, index);
    }
}

static void inherit(struct thread *thread, void *ptr)
{
    if (ptr != NULL && hmm_guard_held_is_free(ptr)) {
        block_release(thread, ptr);
    }
}

/* Nobody is opened for it: that would be one of those that are visited. */
void hmm_guard_quarantine_inherit(struct guarded *guarded)
{
    struct thread *thread = hmm_thread.thread != NULL ? hmm_thread.thread : &hmm_thread_closed;
    for (size_t index = 0; index < QUARANTINE_COUNT; index++) {
        inherit(thread, guarded->quarantine.blocks[index].ptr);
        inherit(thread, guarded->quarantine.slots[index].slot);
    }
    *guarded = (struct guarded){0};
}
