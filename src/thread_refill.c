/*
 * thread_refill.c - how a bin that has run empty is filled.
 *
 * The order decides time and footprint: memory that was touched comes before memory that was not,
 * wherever it lies. A first touch of a page costs as much as some hundred calls.
 */
#include "thread_room.h"

enum {
    /* How many partial slabs are looked at for the fullest one. */
    PARTIAL_PROBES = 8,
    /* A class's first slots come out of a larger class's bin, if that is no more than so many
     * classes, one doubling, away: a page that is touched for one slot costs more than the slot's
     * waste, in time and in footprint. Larger slots than these fill pages by themselves. */
    BORROW_MAX = 8,
    BORROW_DISTANCE = 8,
    BORROW_BYTES_MAX = 1024,
    /* After so many refills of any class one class is looked at, each in its turn
     * (docs/experiments.md). */
    REFILLS_PER_LOOK = 2,
};

/* The current slab has nothing in the bin and nothing free. */
static void retire_current(struct class_slabs *slabs)
{
    struct granule *slab = slabs->current;
    slabs->current = NULL;
    if (slab == NULL) {
        return;
    }
    if (slab_is_carved(slab)) {
        slabs_own_full(slabs, slab);
    } else {
        hmm_thread_keep_partial(slabs, slab);
    }
}

/* A slab on no list, owned, becomes the current one. */
static void make_current(struct class_slabs *slabs, struct granule *slab)
{
    retire_current(slabs);
    slab->state = SLAB_CURRENT;
    slabs->current = slab;
}

/* A list of the current slab's slots for the bin; no stage was set. Both ways of getting one count
 * `need` up by its length. */
static struct slot *hand_free(struct class_slabs *slabs)
{
    struct granule *slab = slabs->current;
    uint32_t old_need = slab->need;
    struct slot *list = hmm_slab_take_free(slab);
    if (list != NULL) {
        slabs->handed_slots += slab->need - old_need;
        slab_stage_current(slab);
    }
    return list;
}

static struct slot *hand_carved(struct class_slabs *slabs)
{
    struct granule *slab = slabs->current;
    uint32_t old_need = slab->need;
    struct slot *list = hmm_slab_carve(slab, slabs->full.first != NULL);
    slabs->handed_slots += slab->need - old_need;
    slab_stage_current(slab);
    return list;
}

static struct slot *use(struct class_slabs *slabs, struct granule *slab)
{
    make_current(slabs, slab);
    return hand_free(slabs);
}

/* Full slabs of which others have freed as many slots as wake a sleeper become partial. */
static void wake_full(struct class_slabs *slabs)
{
    uint32_t wake = slabs->full.first != NULL ? class_wake(slab_class(slabs->full.first)) : 0;
    struct granule *slab = slabs->full.first;
    for (int probes = 0; slab != NULL && probes < FULL_MAX; probes++) {
        struct granule *next = slab->next;
        if (slab_remote_count(slab) >= wake) {
            slabs_note_others(slabs);
            hmm_thread_part_full(slabs, slab);
            hmm_thread_keep_partial(slabs, slab);
        }
        slab = next;
    }
}

/* The fullest of the partial slabs that have something free: so the emptier ones become empty. */
static struct slot *refill_from_partial(struct class_slabs *slabs)
{
    struct granule *best = NULL;
    struct granule *slab = slabs->partial.first;
    for (int probes = 0; slab != NULL && probes < PARTIAL_PROBES; probes++) {
        struct granule *next = slab->next;
        if (!slabs_collect_partial(slabs, slab)) {
            hmm_slab_release(slab);
        } else if (slab->free != NULL &&
                   (best == NULL || slab_used_slots(slab) > slab_used_slots(best))) {
            best = slab;
        }
        slab = next;
    }
    if (best == NULL) {
        return NULL;
    }
    slabs_part(slabs, best);
    return use(slabs, best);
}

/* A slab of which pages are away: what is left of the others, or else a page that comes back. */
static struct slot *refill_from_thin(struct class_slabs *slabs)
{
    struct granule *slab = slabs->thin.first;
    while (slab != NULL) {
        slabs_part(slabs, slab);
        hmm_remote_collect(slab);
        if (slab->need != 0) {
            struct slot *list = use(slabs, slab);
            return list != NULL ? list : hand_carved(slabs);
        }
        hmm_slab_release(slab);
        slab = slabs->thin.first;
    }
    return NULL;
}

/* Of the full slabs the one of which others have freed most, however little. */
static struct slot *refill_from_full(struct class_slabs *slabs)
{
    struct granule *best = NULL;
    uint32_t best_count = 0;
    int probes = 0;
    for (struct granule *slab = slabs->full.first; slab != NULL && probes < FULL_MAX;
         slab = slab->next, probes++) {
        uint32_t count = slab_remote_count(slab);
        best = count > best_count ? slab : best;
        best_count = count > best_count ? count : best_count;
    }
    if (best == NULL) {
        return NULL;
    }
    slabs_note_others(slabs);
    hmm_thread_part_full(slabs, best);
    return use(slabs, best);
}

static struct slot *refill_from_woken(struct thread *thread, struct class_slabs *slabs,
                                      unsigned size_class)
{
    struct granule *slab = hmm_remote_adopt(size_class, thread->self);
    if (slab == NULL) {
        return NULL;
    }
    if (slab->free == NULL) {
        hmm_thread_keep_partial(slabs, slab);
        return NULL;
    }
    return use(slabs, slab);
}

/* Takes what a dormant thread has of the class, of the first that has something, and what was
 * in its bin. */
static struct class_slabs dormant_take(unsigned size_class, struct slot **kept)
{
    struct class_slabs found = {0};
    hmm_lock_acquire(&hmm_threads.lock);
    for (struct thread *dormant = hmm_threads.dormant;
         dormant != NULL && found.current == NULL && slabs_any_partial(&found) == NULL;
         dormant = dormant->next) {
        found = dormant->classes[size_class];
        dormant->classes[size_class] = (struct class_slabs){.handed_slots = found.handed_slots};
        *kept = dormant->kept_bins[size_class];
        dormant->kept_bins[size_class] = NULL;
    }
    hmm_lock_release(&hmm_threads.lock);
    return found;
}

static struct slot *refill_from_dormant(struct thread *thread, struct class_slabs *slabs,
                                        unsigned size_class)
{
    if (atomic_load_explicit(&hmm_threads.dormant_count, memory_order_relaxed) == 0) {
        return NULL;
    }
    struct slot *kept = NULL;
    struct class_slabs found = dormant_take(size_class, &kept);
    if (found.current != NULL) {
        slabs_put_back(&found, &kept);
        slab_own(&found.partial, found.current, SLAB_PARTIAL);
    }
    for (struct granule *slab = slabs_any_partial(&found); slab != NULL;
         slab = slabs_any_partial(&found)) {
        slabs_part(&found, slab);
        granule_set_owner(slab, thread->self);
        hmm_remote_collect(slab);
        hmm_thread_keep_partial(slabs, slab);
    }
    return refill_from_partial(slabs);
}

static struct slot *refill_by_carving(struct class_slabs *slabs)
{
    struct granule *slab = slabs->current;
    if (slab == NULL || slab_is_carved(slab)) {
        int probes = 0;
        slab = slabs->partial.first;
        while (slab != NULL && slab_is_carved(slab) && probes < PARTIAL_PROBES) {
            slab = slab->next;
            probes++;
        }
        if (slab == NULL || slab_is_carved(slab)) {
            return NULL;
        }
        slabs_part(slabs, slab);
        make_current(slabs, slab);
    }
    return hand_carved(slabs);
}

/* One slot of a larger class, as well aligned, for a class that has no slab yet. */
static struct slot *refill_by_borrowing(struct thread *thread, struct class_slabs *slabs,
                                        unsigned size_class)
{
    if (slabs->current != NULL || slabs->borrowed_count >= BORROW_MAX || thread->guarded != NULL) {
        return NULL;
    }
    const size_t alignment = class_alignment(size_class);
    const unsigned last = class_of(BORROW_BYTES_MAX);
    for (unsigned lender = size_class + 1; lender <= last && lender <= size_class + BORROW_DISTANCE;
         lender++) {
        struct slot *slot = thread->bins[lender];
        if (slot != NULL && is_aligned(class_bytes(lender), alignment)) {
            thread->bins[lender] = slot_next(slot);
            slot_link(slot, NULL);
            slabs->borrowed_count++;
            return slot;
        }
    }
    return NULL;
}

static struct slot *refill_from_arena(struct thread *thread, struct class_slabs *slabs,
                                      unsigned size_class)
{
    struct granule *slab = hmm_slab_create(size_class, thread->self);
    if (slab == NULL) {
        return NULL;
    }
    make_current(slabs, slab);
    return hand_carved(slabs);
}

static struct slot *refill_list(struct thread *thread, struct class_slabs *slabs,
                                unsigned size_class)
{
    struct granule *current = slabs->current;
    struct slot *list = NULL;
    if (current != NULL) {
        slab_tighten(current);
        hmm_remote_collect(current);
        list = hand_free(slabs);
        if (list != NULL) {
            return list;
        }
    }
    wake_full(slabs);
    list = refill_from_partial(slabs);
    if (list != NULL) {
        return list;
    }
    list = hmm_thread_flush_batches(thread) ? refill_from_partial(slabs) : NULL;
    list = list != NULL ? list : refill_from_woken(thread, slabs, size_class);
    list = list != NULL ? list : refill_from_dormant(thread, slabs, size_class);
    list = list != NULL ? list : refill_from_full(slabs);
    list = list != NULL ? list : refill_from_thin(slabs);
    list = list != NULL ? list : refill_by_carving(slabs);
    list = list != NULL ? list : refill_by_borrowing(thread, slabs, size_class);
    return list != NULL ? list : refill_from_arena(thread, slabs, size_class);
}

/* What the thread had of sizes that it asks for no more is of use to others. */
static void let_go_quiet(struct thread *thread)
{
    if (!process_has_one_thread() && thread->refill_count % REFILLS_PER_LOOK == 0) {
        uint64_t look = thread->refill_count / REFILLS_PER_LOOK;
        hmm_thread_let_go_quiet(thread, (unsigned)(look % CLASS_COUNT));
    }
}

struct slot *hmm_thread_refill(struct thread *thread, unsigned size_class)
{
    struct class_slabs *slabs = &thread->classes[size_class];
    thread_set_busy(thread, true);
    thread->refill_count++;
    struct slot *slot = refill_list(thread, slabs, size_class);
    hmm_thread_bound_slabs(slabs);
    let_go_quiet(thread);
    if (slot != NULL) {
        thread->bins[size_class] = slot_next(slot);
        if (LIKELY(thread->guarded == NULL)) { /* which looks at what is there */
            slot->mark = 0;
        }
    }
    thread_set_busy(thread, false);
    return slot;
}
