/*
 * thread_batches.c - slots of slabs that the thread does not own, on their way home. See thread.h
 * (T4) and remote.h.
 *
 * They are gathered by slab, so that one exchange takes several. A batch goes when another slab
 * wants its place, when all together have become much, when the thread looks for memory itself, and
 * at its end.
 */
#include "os.h"
#include "thread_room.h"

void hmm_thread_respond(struct thread *thread, struct granule *slab, enum remote_event event)
{
    switch (event) {
    case REMOTE_CLAIMED:
        hmm_thread_adopt(thread, slab);
        break;
    case REMOTE_LOOSE:
        /* or what it is by now: any class will do */
        hmm_remote_purge(slab_class(slab), LOOSE_LOOKS_MAX);
        break;
    case REMOTE_DORMANT:
        hmm_thread_break_up_dormant();
        break;
    default:
        break;
    }
}

void hmm_thread_push(struct thread *thread, struct granule *slab, struct slot_chain chain)
{
    hmm_thread_respond(thread, slab, hmm_remote_push(slab, chain));
}

static void batch_flush(struct thread *thread, struct batch *batch)
{
    struct granule *slab = batch->slab;
    if (slab != NULL) {
        batch->slab = NULL;
        thread->batched_slots -= batch->chain.count;
        thread->batched_bytes -= batch->chain.count * slab->slot_bytes;
        hmm_thread_push(thread, slab, batch->chain);
    }
}

bool hmm_thread_flush_batches(struct thread *thread)
{
    if (thread->batched_slots == 0) {
        return false;
    }
    for (struct batch *batch = thread->batches; batch < thread->batches + BATCH_COUNT; batch++) {
        batch_flush(thread, batch);
    }
    return true;
}

/* The calling thread, if it has batches by now. One that is gone is not opened, for nobody tells of
 * its end any more: the last that a detached thread may do is to free what others' stacks have left
 * that the C library keeps no longer. */
static struct thread *thread_with_batches(struct thread *thread)
{
    if (UNLIKELY(thread == NULL) && ++hmm_thread.pushed_slots % PUSHED_SLOTS_MAX == 0 &&
        !hmm_os_thread_is_gone()) {
        thread = hmm_thread_open_to_free();
    }
    return thread_is_open(thread) ? thread : NULL;
}

static struct batch *batch_of(struct thread *thread, const struct granule *slab)
{
    return &thread->batches[granule_index(slab) % BATCH_COUNT];
}

/* The first slot of a batch, in whose place there may be another, or the last for which there is
 * room. The thread is busy until then. */
static HMM_NOINLINE void gather_slow(struct thread *thread, struct batch *batch,
                                     struct granule *slab, struct slot *slot)
{
    if (batch->slab != slab) {
        batch_flush(thread, batch);
        batch->slab = slab;
        batch->chain = (struct slot_chain){.head = slot, .tail = slot};
    } else {
        slot_link(slot, batch->chain.head);
        batch->chain.head = slot;
    }
    batch->chain.count++;
    thread->batched_slots++;
    thread->batched_bytes += slab->slot_bytes;
    if (thread->batched_slots >= BATCHED_SLOTS_MAX || thread->batched_bytes >= BATCHED_BYTES_MAX) {
        (void)hmm_thread_flush_batches(thread);
    }
    thread_set_busy(thread, false);
}

/* A thread that has no batches, or gets them just now. */
static HMM_NOINLINE void free_alone(struct thread *caller, struct granule *slab, struct slot *slot)
{
    struct thread *thread = thread_with_batches(caller);
    if (thread == NULL) {
        hmm_thread_push(caller, slab, (struct slot_chain){.head = slot, .tail = slot, .count = 1});
        return;
    }
    thread_set_busy(thread, true);
    gather_slow(thread, batch_of(thread, slab), slab, slot);
}

/* What most calls do needs no frame. */
void hmm_thread_free_remote(struct thread *thread, struct granule *slab, struct slot *slot)
{
    if (UNLIKELY(!thread_is_open(thread))) {
        free_alone(thread, slab, slot);
        return;
    }
    thread_set_busy(thread, true);
    struct batch *batch = batch_of(thread, slab);
    uint32_t slots = thread->batched_slots + 1;
    uint32_t bytes = thread->batched_bytes + slab->slot_bytes;
    if (UNLIKELY(batch->slab != slab || slots >= BATCHED_SLOTS_MAX || bytes >= BATCHED_BYTES_MAX)) {
        gather_slow(thread, batch, slab, slot);
        return;
    }
    slot_link(slot, batch->chain.head);
    batch->chain.head = slot;
    batch->chain.count++;
    thread->batched_slots = slots;
    thread->batched_bytes = bytes;
    thread_set_busy(thread, false);
}
