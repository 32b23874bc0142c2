/*
 * thread.c - bins, refills, and the life of a thread. See thread.h.
 *
 * The order in which a bin is refilled decides time and footprint: memory that was touched comes
 * before memory that was not, wherever it lies. A first touch of a page costs as much as some
 * hundred calls.
 */
#include "purge.h"
#include "thread_lists.h"
#include "random.h"

#include <pthread.h>

enum {
    /* How many partial slabs are looked at for the fullest one. */
    PARTIAL_PROBES = 8,
    /* When a process becomes threaded its first thread may own thousands of slabs. So many of a
     * class go a refill, so that no call takes long. */
    LET_GO_MAX = 4,
    /* A class's first slots come out of a larger class's bin, if that is no more than so many classes,
     * one doubling, away: a page that is touched for one slot costs more than the slot's waste, in time
     * and in footprint. Larger slots than these fill pages by themselves. */
    BORROW_MAX = 8,
    BORROW_DISTANCE = 8,
    BORROW_BYTES_MAX = 1024,
};

_Thread_local struct thread_block hmm_thread;
struct thread hmm_thread_closed = {.self = OWNER_CLOSED};

static void (*thread_end_guard)(struct thread *thread); /* immutable once threads are opened */

struct thread_lists hmm_threads = {.lock = LOCK_INITIALIZER(LOCK_RANK_THREADS)};

static pthread_key_t end_key; /* immutable once has_end_key is set */
static _Atomic bool has_end_key;
static _Atomic bool is_keyless; /* the system has none left */

/* ------------------------------------------------------------------------------- lists of slabs */

static void own(struct slab_list *list, struct granule *slab, enum slab_state state)
{
    slab->state = (uint8_t)state;
    slab_list_push(list, slab);
}

/* Whether it has become so much more or less that everybody should know. */
static bool count_loose(const struct granule *slab, uint32_t slots, int sign)
{
    struct thread *thread = hmm_thread.thread;
    ptrdiff_t bytes = sign * (ptrdiff_t)(slots * class_bytes(slab_class(slab)));
    if (LIKELY(thread_is_open(thread))) {
        thread->loose_bytes += bytes;
        bytes = thread->loose_bytes;
        if (bytes < LOOSE_STEP_BYTES && bytes > -LOOSE_STEP_BYTES) {
            return false;
        }
        thread->loose_bytes = 0;
    }
    hmm_purge_count_loose(bytes);
    return true;
}

/* Takes a slab off the partial or the thin list, and what it counts for. */
static void part(struct class_slabs *slabs, struct granule *slab)
{
    slab_list_remove(slab->state == SLAB_THIN ? &slabs->thin : &slabs->partial, slab);
    slab_clear_stage(slab);
    if (slab->loose_slots != 0) {
        (void)count_loose(slab, slab->loose_slots, -1);
        slab->loose_slots = 0;
    }
}

/* A slab with free slots or some to carve, on no list. */
static void own_partial(struct class_slabs *slabs, struct granule *slab)
{
    own(&slabs->partial, slab, SLAB_PARTIAL);
    slab_set_stage(slab);
}

/* So many more slots of the slab, which is on no list, are loose. Whether that is much. */
static bool own_loose(struct class_slabs *slabs, struct granule *slab, uint32_t loose_slots)
{
    slab->state = SLAB_PARTIAL;
    slab->loose_slots = (uint16_t)loose_slots;
    slab_list_append(&slabs->partial, slab);
    slab_set_stage(slab);
    return count_loose(slab, loose_slots, 1);
}

/* A slab with free slots, that nobody has on a list: empty ones go back. */
static void keep_partial(struct class_slabs *slabs, struct granule *slab)
{
    if (slab->need == 0) {
        hmm_slab_release(slab);
    } else {
        own_partial(slabs, slab);
    }
}

/* Gives free pages of one of the class's slabs back. How much less is loose; 0: nothing is. */
static size_t purge_loose_slab(struct class_slabs *slabs)
{
    struct granule *slab = slabs->partial.last;
    if (slab == NULL || slab->loose_slots == 0) {
        return 0;
    }
    size_t loose_bytes = slab->loose_slots * class_bytes(slab_class(slab));
    part(slabs, slab);
    hmm_slab_purge(slab);
    if (slab_away(slab) != 0) {
        own(&slabs->thin, slab, SLAB_THIN);
        slab_set_stage(slab);
    } else {
        own_partial(slabs, slab);
    }
    return loose_bytes;
}

/* What exceeds the bound goes back, as far as the thread's slabs have it: those of the class at hand
 * first. A few slabs a call. */
static void purge_loose(struct thread *thread, struct class_slabs *slabs)
{
    size_t excess_bytes = hmm_purge_excess_bytes();
    struct class_slabs *other = thread->classes;
    for (int looks = 0; excess_bytes != 0 && looks < LOOSE_LOOKS_MAX; looks++) {
        size_t loose_bytes = purge_loose_slab(slabs);
        while (loose_bytes == 0 && other < thread->classes + CLASS_COUNT) {
            loose_bytes = purge_loose_slab(other);
            other += loose_bytes == 0;
        }
        if (loose_bytes == 0) {
            hmm_remote_purge((unsigned)(slabs - thread->classes));
        }
        excess_bytes -= loose_bytes != 0 ? size_min(excess_bytes, loose_bytes) : excess_bytes;
    }
}

/* Of what is free nobody has looked at anything, unless pages are away. */
static void publish(struct granule *slab)
{
    uint32_t free_slots = slab_slots(slab) - slab->need;
    hmm_remote_publish(slab, slab_away(slab) == 0 ? free_slots : 0);
}

/* A slab that is on no list, and is not full, becomes everybody's. */
void hmm_thread_disown(struct granule *slab)
{
    (void)hmm_remote_collect(slab);
    if (slab->need == 0) {
        hmm_slab_release(slab);
        return;
    }
    if (slab->free == NULL && slab_is_carved(slab)) {
        slab->need = class_wake(slab_class(slab));
        if (hmm_remote_sleep(slab)) {
            return;
        }
    }
    publish(slab);
}

static void let_go_last(struct class_slabs *slabs, const struct slab_list *list)
{
    struct granule *slab = list->last;
    part(slabs, slab);
    hmm_thread_disown(slab);
}

static void let_go_full(struct class_slabs *slabs)
{
    struct granule *slab = slabs->full.last;
    slab_list_remove(&slabs->full, slab);
    if (!hmm_remote_sleep(slab)) {
        keep_partial(slabs, slab);
    }
}

/* What a thread owns is bounded (T3) once there are others who could use it. */
static void bound_slabs(struct class_slabs *slabs)
{
    if (__libc_single_threaded) {
        return;
    }
    for (int gone = 0; slabs->full.count > FULL_MAX && gone < LET_GO_MAX; gone++) {
        let_go_full(slabs);
    }
    for (int gone = 0; slabs->partial.count > PARTIAL_MAX && gone < LET_GO_MAX; gone++) {
        let_go_last(slabs, &slabs->partial);
    }
    for (int gone = 0; slabs->thin.count > PARTIAL_MAX && gone < LET_GO_MAX; gone++) {
        let_go_last(slabs, &slabs->thin);
    }
}

/* ------------------------------------------------------------------------------------ batches */

/* A sleeper that the thread woke, or one that it cannot keep. */
static void adopt_claimed(struct thread *thread, struct granule *slab)
{
    if (slab->need == 0) {
        hmm_slab_release(slab);
    } else if (thread_is_open(thread)) {
        struct class_slabs *slabs = &thread->classes[slab_class(slab)];
        granule_set_owner(slab, thread->self);
        (void)own_loose(slabs, slab, slab_slots(slab) - slab->need);
        if (slabs->partial.count > PARTIAL_MAX) {
            let_go_last(slabs, &slabs->partial);
        }
    } else {
        publish(slab);
    }
}

static void break_up_dormant(void);

void hmm_thread_respond(struct thread *thread, struct granule *slab, enum remote_event event)
{
    switch (event) {
    case REMOTE_CLAIMED:
        adopt_claimed(thread, slab);
        break;
    case REMOTE_LOOSE:
        hmm_remote_purge(slab_class(slab)); /* or what it is by now: any class will do */
        break;
    case REMOTE_DORMANT:
        break_up_dormant();
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
        thread->batched_bytes -= batch->chain.count * (uint32_t)class_bytes(slab_class(slab));
        hmm_thread_push(thread, slab, batch->chain);
    }
}

/* Whether there was anything. */
static bool batches_flush(struct thread *thread)
{
    if (thread->batched_slots == 0) {
        return false;
    }
    for (struct batch *batch = thread->batches; batch < thread->batches + BATCH_COUNT; batch++) {
        batch_flush(thread, batch);
    }
    return true;
}

static void busy(struct thread *thread, bool is_busy)
{
    atomic_store_explicit(&thread->is_busy, is_busy, memory_order_relaxed);
    atomic_signal_fence(memory_order_seq_cst);
}

static struct thread *open_to_free(void);

/* The calling thread, if it has batches by now. */
static struct thread *thread_with_batches(struct thread *thread)
{
    if (UNLIKELY(thread == NULL) && ++hmm_thread.pushed_slots % PUSHED_SLOTS_MAX == 0) {
        thread = open_to_free();
    }
    return thread_is_open(thread) ? thread : NULL;
}

void hmm_thread_free_remote(struct thread *caller, struct granule *slab, struct slot *slot)
{
    struct thread *thread = thread_with_batches(caller);
    if (thread == NULL) {
        hmm_thread_push(caller, slab, (struct slot_chain){slot, slot, 1});
        return;
    }
    busy(thread, true);
    struct batch *batch = &thread->batches[granule_index(slab) % BATCH_COUNT];
    if (batch->slab != slab) {
        batch_flush(thread, batch);
        batch->slab = slab;
        batch->chain = (struct slot_chain){slot, slot, 0};
    } else {
        slot_link(slot, batch->chain.head);
        batch->chain.head = slot;
    }
    batch->chain.count++;
    thread->batched_slots++;
    thread->batched_bytes += (uint32_t)class_bytes(slab_class(slab));
    if (thread->batched_slots >= BATCHED_SLOTS_MAX || thread->batched_bytes >= BATCHED_BYTES_MAX) {
        (void)batches_flush(thread);
    }
    busy(thread, false);
}

/* -------------------------------------------------------------------------------------- events */

/* A full slab has got enough back. All that is free of it is loose. */
static void full_event(struct thread *thread, struct class_slabs *slabs, struct granule *slab)
{
    uint32_t wake = class_wake(slab_class(slab));
    slab->need = slab_slots(slab) - wake;
    slab_list_remove(&slabs->full, slab);
    if (slab->need == 0) {
        hmm_slab_release(slab);
        return;
    }
    if (own_loose(slabs, slab, wake)) {
        purge_loose(thread, slabs);
    }
    bound_slabs(slabs);
}

/* A partial or thin slab is empty, or emptier by a stage. */
static void partial_event(struct thread *thread, struct class_slabs *slabs, struct granule *slab)
{
    uint32_t loose_slots = slab->loose_slots + slab_stage_slots(slab);
    part(slabs, slab);
    if (slab->need == 0) {
        hmm_slab_release(slab);
        return;
    }
    if (own_loose(slabs, slab, loose_slots)) {
        purge_loose(thread, slabs);
    }
}

void hmm_thread_slab_event(struct thread *thread, struct granule *slab)
{
    struct class_slabs *slabs = &thread->classes[slab_class(slab)];
    switch (slab->state) {
    case SLAB_FULL:
        busy(thread, true);
        full_event(thread, slabs, slab);
        busy(thread, false);
        break;
    case SLAB_PARTIAL:
    case SLAB_THIN:
        busy(thread, true);
        partial_event(thread, slabs, slab);
        busy(thread, false);
        break;
    default:
        if (hmm_arena_wants_back(slab)) {
            busy(thread, true);
            slabs->current = NULL;
            hmm_slab_release(slab);
            busy(thread, false);
        }
        break;
    }
}

/* --------------------------------------------------------------------------------------- refill */

/* The current slab has nothing in the bin and nothing free. */
static void retire_current(struct class_slabs *slabs)
{
    struct granule *slab = slabs->current;
    slabs->current = NULL;
    if (slab == NULL) {
        return;
    }
    if (slab_is_carved(slab)) {
        slab->need = class_wake(slab_class(slab));
        own(&slabs->full, slab, SLAB_FULL);
    } else {
        keep_partial(slabs, slab);
    }
}

/* A slab on no list, owned, becomes the current one. */
static void make_current(struct class_slabs *slabs, struct granule *slab)
{
    retire_current(slabs);
    slab->state = SLAB_CURRENT;
    slabs->current = slab;
}

/* A list of the current slab's slots for the bin. Both ways of getting one count `need` up by its
 * length. */
static struct slot *hand_free(struct class_slabs *slabs)
{
    uint32_t old_need = slabs->current->need;
    struct slot *list = hmm_slab_take_free(slabs->current);
    slabs->handed_slots += slabs->current->need - old_need;
    return list;
}

static struct slot *hand_carved(struct class_slabs *slabs)
{
    uint32_t old_need = slabs->current->need;
    struct slot *list = hmm_slab_carve(slabs->current);
    slabs->handed_slots += slabs->current->need - old_need;
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
            slab_list_remove(&slabs->full, slab);
            slab->need += slab_slots(slab) - wake;
            (void)hmm_remote_collect(slab);
            keep_partial(slabs, slab);
        }
        slab = next;
    }
}

/* Takes what others freed of a partial slab. false: it is empty, and on no list any more. */
static bool collect_partial(struct class_slabs *slabs, struct granule *slab)
{
    if (slab_remote_count(slab) == 0) {
        return true;
    }
    slab_clear_stage(slab);
    (void)hmm_remote_collect(slab);
    if (slab->need == 0) {
        part(slabs, slab);
        return false;
    }
    slab_set_stage(slab);
    return true;
}

/* The fullest of the partial slabs that have something free: so the emptier ones become empty. */
static struct slot *refill_from_partial(struct class_slabs *slabs)
{
    struct granule *best = NULL;
    struct granule *slab = slabs->partial.first;
    for (int probes = 0; slab != NULL && probes < PARTIAL_PROBES; probes++) {
        struct granule *next = slab->next;
        if (!collect_partial(slabs, slab)) {
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
    part(slabs, best);
    return use(slabs, best);
}

/* A slab of which pages are away: what is left of the others, or else a page that comes back. */
static struct slot *refill_from_thin(struct class_slabs *slabs)
{
    struct granule *slab = slabs->thin.first;
    while (slab != NULL) {
        part(slabs, slab);
        (void)hmm_remote_collect(slab);
        if (slab->need != 0) {
            struct slot *list = use(slabs, slab);
            return list != NULL ? list : hmm_slab_carve(slab);
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
    slab_list_remove(&slabs->full, best);
    best->need += slab_slots(best) - class_wake(slab_class(best));
    (void)hmm_remote_collect(best);
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
        own_partial(slabs, slab);
        return NULL;
    }
    return use(slabs, slab);
}

static struct granule *any_partial(const struct class_slabs *slabs)
{
    return slabs->partial.first != NULL ? slabs->partial.first : slabs->thin.first;
}

/* All that a dormant thread has of the class. */
static struct slot *refill_from_dormant(struct thread *thread, struct class_slabs *slabs,
                                        unsigned size_class)
{
    if (atomic_load_explicit(&hmm_threads.dormant_count, memory_order_relaxed) == 0) {
        return NULL;
    }
    struct class_slabs found = {0};
    hmm_lock_acquire(&hmm_threads.lock);
    struct thread *dormant = hmm_threads.dormant;
    while (dormant != NULL && found.current == NULL && found.partial.first == NULL &&
           found.thin.first == NULL) {
        found = dormant->classes[size_class];
        dormant->classes[size_class] = (struct class_slabs){.handed_slots = found.handed_slots};
        dormant = dormant->next;
    }
    hmm_lock_release(&hmm_threads.lock);
    if (found.current != NULL) {
        own(&found.partial, found.current, SLAB_PARTIAL);
    }
    for (struct granule *slab = any_partial(&found); slab != NULL; slab = any_partial(&found)) {
        part(&found, slab);
        granule_set_owner(slab, thread->self);
        (void)hmm_remote_collect(slab);
        keep_partial(slabs, slab);
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
        part(slabs, slab);
        make_current(slabs, slab);
    }
    return hand_carved(slabs);
}

/* One slot of a larger class, as well aligned, for a class that has no slab yet. */
static struct slot *refill_by_borrowing(struct thread *thread, struct class_slabs *slabs,
                                        unsigned size_class)
{
    if (slabs->current != NULL || slabs->borrowed_count >= BORROW_MAX || thread_end_guard != NULL) {
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
        (void)hmm_remote_collect(current);
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
    list = batches_flush(thread) ? refill_from_partial(slabs) : NULL;
    list = list != NULL ? list : refill_from_woken(thread, slabs, size_class);
    list = list != NULL ? list : refill_from_dormant(thread, slabs, size_class);
    list = list != NULL ? list : refill_from_full(slabs);
    list = list != NULL ? list : refill_from_thin(slabs);
    list = list != NULL ? list : refill_by_carving(slabs);
    list = list != NULL ? list : refill_by_borrowing(thread, slabs, size_class);
    return list != NULL ? list : refill_from_arena(thread, slabs, size_class);
}

struct slot *hmm_thread_refill(struct thread *thread, unsigned size_class)
{
    struct class_slabs *slabs = &thread->classes[size_class];
    busy(thread, true);
    thread->refill_count++;
    struct slot *slot = refill_list(thread, slabs, size_class);
    bound_slabs(slabs);
    if (slot != NULL) {
        thread->bins[size_class] = slot_next(slot);
        if (LIKELY(thread_end_guard == NULL)) { /* which looks at what is there */
            slot->mark = 0;
        }
    }
    busy(thread, false);
    return slot;
}

/* --------------------------------------------------------------------------- dormant, and ended */

static void disown_all(struct class_slabs *slabs)
{
    if (slabs->current != NULL) {
        hmm_thread_disown(slabs->current);
        slabs->current = NULL;
    }
    for (struct granule *slab = any_partial(slabs); slab != NULL; slab = any_partial(slabs)) {
        part(slabs, slab);
        hmm_thread_disown(slab);
    }
}

static void thread_put_aside(struct thread *thread)
{
    hmm_lock_acquire(&hmm_threads.lock);
    thread_link(&hmm_threads.unused, thread);
    hmm_lock_release(&hmm_threads.lock);
}

/* Of a thread on no list. Its slabs are everybody's, and the struct the next thread's. */
static void thread_break_up(struct thread *thread)
{
    for (unsigned size_class = 0; size_class < CLASS_COUNT; size_class++) {
        disown_all(&thread->classes[size_class]);
    }
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

static void break_up_dormant(void)
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
        busy(thread, true);
        (void)batches_flush(thread);
        busy(thread, false);
    }
    break_up_dormant();
}

/* The bin's slots go back to their slab, and full slabs to sleep. */
static void class_end(struct class_slabs *slabs, struct slot **bin)
{
    if (*bin != NULL) {
        hmm_slab_put_back(slabs->current, *bin);
        *bin = NULL;
    }
    if (slabs->current != NULL) {
        (void)hmm_remote_collect(slabs->current);
        if (slabs->current->need == 0) {
            hmm_slab_release(slabs->current);
            slabs->current = NULL;
        }
    }
    while (slabs->full.first != NULL) {
        let_go_full(slabs);
    }
}

static void list_restamp(const struct slab_list *list, uintptr_t owner)
{
    for (struct granule *slab = list->first; slab != NULL; slab = slab->next) {
        granule_set_owner(slab, owner);
    }
}

static void class_restamp(struct class_slabs *slabs, uintptr_t owner)
{
    if (slabs->current != NULL) {
        granule_set_owner(slabs->current, owner);
    }
    list_restamp(&slabs->partial, owner);
    list_restamp(&slabs->thin, owner);
}

/* The thread's end, called by the system with what hmm_thread_register gave it. */
static void thread_end(void *argument)
{
    struct thread *thread = argument;
    if (UNLIKELY(thread_end_guard != NULL)) {
        thread_end_guard(thread);
    }
    hmm_thread.thread = &hmm_thread_closed;
    busy(thread, true);
    hmm_purge_count_loose(thread->loose_bytes);
    thread->loose_bytes = 0;
    (void)batches_flush(thread);
    for (unsigned size_class = 0; size_class < CLASS_COUNT; size_class++) {
        class_end(&thread->classes[size_class], &thread->bins[size_class]);
        class_restamp(&thread->classes[size_class], OWNER_DORMANT);
    }
    hmm_lock_acquire(&hmm_threads.lock);
    thread_unlink(&hmm_threads.live, thread);
    unsigned count = atomic_load_explicit(&hmm_threads.dormant_count, memory_order_relaxed);
    bool is_kept = count < DORMANT_MAX;
    thread->self = OWNER_DORMANT;
    thread->bins = NULL;
    busy(thread, false);
    if (is_kept) {
        thread_link(&hmm_threads.dormant, thread);
        atomic_store_explicit(&hmm_threads.dormant_count, count + 1, memory_order_relaxed);
    }
    hmm_lock_release(&hmm_threads.lock);
    if (!is_kept) {
        thread_break_up(thread);
    }
}

/* ------------------------------------------------------------------------------------ opening */

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

void hmm_thread_set_guard(void (*end)(struct thread *thread))
{
    thread_end_guard = end;
}

/* Where the thread's bins are, and by which name it owns slabs: the doors know neither if there is a
 * guard, so that every call arrives in a slow path. false: no memory. */
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
        thread->bins = HMM_SECURE ? hmm_thread.bins : thread->guarded->bins;
    }
    return true;
}

/* `thread` is a dormant one; NULL: there is none, or it shall not be one. */
static struct thread *thread_open(struct thread *thread)
{
    if (UNLIKELY(atomic_load_explicit(&is_keyless, memory_order_acquire))) {
        hmm_thread.thread = &hmm_thread_closed;
        return hmm_thread.thread;
    }
    thread = thread != NULL ? thread : unused_pop();
    thread = thread != NULL ? thread : hmm_arena_metadata(sizeof *thread);
    if (thread == NULL) {
        return NULL;
    }
    if (!thread_equip(thread)) {
        thread_put_aside(thread);
        return NULL;
    }
    for (unsigned size_class = 0; size_class < CLASS_COUNT; size_class++) {
        class_restamp(&thread->classes[size_class], thread->self);
    }
    hmm_lock_acquire(&hmm_threads.lock);
    thread->shard = hmm_threads.opened_count++;
    thread_link(&hmm_threads.live, thread);
    hmm_lock_release(&hmm_threads.lock);
    hmm_thread.thread = thread;
    if (atomic_load_explicit(&has_end_key, memory_order_acquire) &&
        pthread_setspecific(end_key, thread) != 0) {
        thread_end(thread);
    }
    return hmm_thread.thread;
}

struct thread *hmm_thread_open(void)
{
    return thread_open(dormant_pop());
}

/* free leaves errno alone. What dormant threads have is for those who allocate. */
static struct thread *open_to_free(void)
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
