/*
 * thread_fork.c - what a forked child does about the threads that it does not have. See thread.h.
 *
 * They may have been in the middle of anything but what a lock guards. So nothing is believed but
 * descriptors, and of lists of slots what makes sense.
 */
#include "purge.h"
#include "thread_room.h"

void hmm_thread_lock(void)
{
    hmm_lock_acquire_for_fork(&hmm_threads.lock);
}

void hmm_thread_unlock(void)
{
    hmm_lock_release_after_fork(&hmm_threads.lock);
}

/* One bit a slot: those that are free in a slab whose owner vanished in the middle of anything. */
struct slot_set {
    uint64_t words[GRANULE_BYTES / SLOT_UNIT_BYTES / WORD_BITS];
    uint32_t count;
};

/* Adds a list's slots up to the first that is none of the slab's, or is there already. */
static void set_add_list(struct slot_set *set, const struct granule *slab, const struct slot *slot)
{
    while (slot != NULL && arena_covers(slot) && granule_of(slot) == slab &&
           slab_is_slot(slab, slot)) {
        size_t units = ((uintptr_t)slot - granule_start(slab)) >> SLOT_UNIT_SHIFT;
        uint64_t bit = (uint64_t)1 << units % WORD_BITS;
        if ((set->words[units / WORD_BITS] & bit) != 0) {
            return;
        }
        set->words[units / WORD_BITS] |= bit;
        set->count++;
        slot = slot_next(slot);
    }
}

static struct slot *set_link(const struct slot_set *set, const struct granule *slab)
{
    struct slot *first = NULL;
    for (size_t word = 0; word < sizeof set->words / sizeof set->words[0]; word++) {
        for (uint64_t bits = set->words[word]; bits != 0; bits &= bits - 1) {
            size_t units = word * WORD_BITS + (size_t)__builtin_ctzll(bits);
            struct slot *slot = (struct slot *)(granule_start(slab) + (units << SLOT_UNIT_SHIFT));
            slot_link(slot, first);
            first = slot;
        }
    }
    return first;
}

static struct thread *thread_of(uintptr_t owner)
{
    struct thread *thread = hmm_threads.live;
    while (thread != NULL && thread->self != owner) {
        thread = thread->next;
    }
    return thread;
}

/* Rebuilt from the descriptor: links between slabs are not believed, and links of slots only as far
 * as they make sense. */
static void bury_slab(struct granule *slab, const struct thread *thread)
{
    struct slot_set set = {0};
    set_add_list(&set, slab, slab->free);
    if (thread != NULL && !atomic_load_explicit(&thread->is_busy, memory_order_relaxed)) {
        set_add_list(&set, slab, thread->bins[slab_class(slab)]);
    } else {
        hmm_purge_count_untouched(-(ptrdiff_t)slab_untouched_bytes(slab));
        slab->is_zero = false; /* somebody may have written to what he was about to carve */
    }
    slab->free = set_link(&set, slab);
    slab->need = slab_slots(slab) - set.count - hmm_slab_away_slots(slab);
    hmm_purge_count_loose(-(ptrdiff_t)(slab->loose_slots * class_bytes(slab_class(slab))));
    slab->floor_slots = slab->loose_slots = 0;
    slab->state = SLAB_PARTIAL;
    hmm_thread_disown(slab);
}

/* Batches of threads that were not just at them. Their slabs have been buried. */
static void bury_batches(struct thread *thread)
{
    for (struct batch *batch = thread->batches; batch < thread->batches + BATCH_COUNT; batch++) {
        if (batch->slab != NULL) {
            hmm_thread_push(NULL, batch->slab, batch->chain);
        }
    }
}

/* What a guard gave the thread stays: hmm_thread_visit_unused. */
static void put_aside(struct thread *thread)
{
    hmm_purge_count_loose(thread->loose_bytes);
    *thread = (struct thread){.guarded = thread->guarded};
    thread_link(&hmm_threads.unused, thread);
}

void hmm_thread_visit_unused(void (*visit)(struct guarded *guarded))
{
    for (struct thread *thread = hmm_threads.unused; thread != NULL; thread = thread->next) {
        if (thread->guarded != NULL) {
            visit(thread->guarded);
        }
    }
}

/* A dormant thread's slabs are buried as well: some may have been in the hands of a thread that was
 * about to take them over, and on no list. */
static void bury_dormant(void)
{
    while (hmm_threads.dormant != NULL) {
        struct thread *thread = hmm_threads.dormant;
        thread_unlink(&hmm_threads.dormant, thread);
        hmm_thread_put_back_kept(thread);
        put_aside(thread);
    }
    atomic_store_explicit(&hmm_threads.dormant_count, 0, memory_order_relaxed);
}

/* All locks are held for the fork. A slab that nobody owns and that is neither asleep nor woken was
 * on its way from one to the other. */
void hmm_thread_bury_others(void)
{
    struct thread *own_thread = hmm_thread.thread;
    uintptr_t self = thread_is_open(own_thread) ? own_thread->self : 0;
    bury_dormant();
    atomic_store_explicit(&hmm_threads.ending_count, 0, memory_order_relaxed);
    for (size_t index = 0; index < hmm_arena.frontier_count; index++) {
        struct granule *slab = &hmm_arena.table[index];
        if (granule_kind(slab) != GRANULE_SLAB) {
            continue;
        }
        uintptr_t owner = granule_owner(slab);
        if (owner == 0 && !slab_is_to_itself(slab)) {
            hmm_thread_respond(NULL, slab, hmm_remote_settle(slab));
        } else if (owner == 0 || owner != self) {
            bury_slab(slab, thread_of(owner));
        }
    }
    struct thread *thread = hmm_threads.live;
    while (thread != NULL) {
        struct thread *next = thread->next;
        if (thread != own_thread) {
            thread_unlink(&hmm_threads.live, thread);
            if (!atomic_load_explicit(&thread->is_busy, memory_order_relaxed)) {
                bury_batches(thread);
            }
            put_aside(thread);
        }
        thread = next;
    }
}
