/*
 * remote.c - the word that slabs share, and the lists of woken slabs. See remote.h.
 */
#include "remote.h"

struct woken {
    struct lock lock;
    _Atomic(struct granule *) first; /* written under the lock, looked at without */
};

#define WOKEN_1                                                                                    \
    {                                                                                              \
        LOCK_INITIALIZER(LOCK_RANK_CLASS), NULL                                                    \
    }
#define WOKEN_4  WOKEN_1, WOKEN_1, WOKEN_1, WOKEN_1
#define WOKEN_16 WOKEN_4, WOKEN_4, WOKEN_4, WOKEN_4

static struct woken woken_slabs[] = {WOKEN_16, WOKEN_16, WOKEN_16, WOKEN_4,
                                     WOKEN_4,  WOKEN_1,  WOKEN_1,  WOKEN_1};

static_assert(sizeof woken_slabs == CLASS_COUNT * sizeof(struct woken), "one for each class");

/* -------------------------------------------------------------------------------- the word */

/* `state`: an enum remote_state, or REMOTE_WOKEN and the class on top of it. */
static uint64_t remote_word(uint64_t state, uint64_t head, uint64_t count, uint64_t tail)
{
    return head | count << REMOTE_COUNT_SHIFT | tail << REMOTE_TAIL_SHIFT |
           state << REMOTE_STATE_SHIFT;
}

static struct slot *slot_at(const struct granule *slab, uint64_t units)
{
    return (struct slot *)(granule_start(slab) +
                           ((uintptr_t)(units & REMOTE_FIELD_MASK) << SLOT_UNIT_SHIFT));
}

/* Release: what was written to slots and line 0 is seen by whoever takes the list or the slab.
 * Acquire: R3, R6. */
static bool word_exchange(struct granule *slab, uint64_t *old, uint64_t new)
{
    if (__libc_single_threaded) {
        atomic_store_explicit(&slab->remote, new, memory_order_relaxed);
        return true;
    }
    return atomic_compare_exchange_weak_explicit(&slab->remote, old, new, memory_order_acq_rel,
                                                 memory_order_acquire);
}

static uint64_t word_load(const struct granule *slab)
{
    return atomic_load_explicit(&slab->remote, memory_order_acquire);
}

/* The list that the word names becomes part of the slab's own. The slab is the caller's. */
static void word_splice(struct granule *slab, uint64_t word)
{
    if (remote_count(word) != 0) {
        slot_link(slot_at(slab, word >> REMOTE_TAIL_SHIFT), slab->free);
        slab->free = slot_at(slab, word);
        slab->need -= remote_count(word);
    }
}

/* Takes the list and leaves the slab in `state`. Returns the word before. */
static uint64_t word_take(struct granule *slab, enum remote_state state)
{
    uint64_t word = word_load(slab);
    while (!word_exchange(slab, &word, remote_word(state, 0, 0, 0))) {
    }
    return word;
}

static void word_wake(struct granule *slab)
{
    const uint64_t list_mask = ((uint64_t)1 << REMOTE_STATE_SHIFT) - 1;
    const uint64_t woken = remote_word(REMOTE_WOKEN + slab_class(slab), 0, 0, 0);
    uint64_t word = word_load(slab);
    while (!word_exchange(slab, &word, (word & list_mask) | woken)) {
    }
}

static uint32_t slab_threshold(const struct granule *slab)
{
    return atomic_load_explicit(&slab->threshold, memory_order_relaxed);
}

static void slab_set_threshold(struct granule *slab, uint32_t count)
{
    atomic_store_explicit(&slab->threshold, count, memory_order_relaxed);
}

/* ------------------------------------------------------------------------------ woken slabs */

static void woken_push(struct woken *woken, struct granule *slab)
{
    struct granule *first = atomic_load_explicit(&woken->first, memory_order_relaxed);
    slab->prev = NULL;
    slab->next = first;
    if (first != NULL) {
        first->prev = slab;
    }
    atomic_store_explicit(&woken->first, slab, memory_order_relaxed);
}

static void woken_remove(struct woken *woken, struct granule *slab)
{
    if (slab->prev != NULL) {
        slab->prev->next = slab->next;
    } else {
        atomic_store_explicit(&woken->first, slab->next, memory_order_relaxed);
    }
    if (slab->next != NULL) {
        slab->next->prev = slab->prev;
    }
}

/* Under the class's lock: takes a woken slab of the class off the list if all its slots are free. */
static bool woken_complete(struct woken *woken, struct granule *slab)
{
    const uint64_t size_class = (uint64_t)(woken - woken_slabs);
    uint64_t word = word_load(slab);
    if (word >> REMOTE_STATE_SHIFT != REMOTE_WOKEN + size_class ||
        remote_count(word) != slab->need) {
        return false;
    }
    woken_remove(woken, slab);
    (void)word_take(slab, REMOTE_OWNED);
    return true;
}

static void woken_release(struct granule *slab)
{
    struct woken *woken = &woken_slabs[slab_class(slab)];
    hmm_lock_acquire(&woken->lock);
    bool is_complete = woken_complete(woken, slab);
    hmm_lock_release(&woken->lock);
    if (is_complete) {
        hmm_slab_release(slab);
    }
}

/* ------------------------------------------------------------------------------------ calls */

static bool remote_claim(struct granule *slab, uint64_t word)
{
    do {
        if (remote_state(word) != REMOTE_ASLEEP || remote_count(word) < slab_threshold(slab)) {
            return false;
        }
    } while (!word_exchange(slab, &word, remote_word(REMOTE_OWNED, 0, 0, 0)));
    word_splice(slab, word);
    slab_set_threshold(slab, class_wake(slab_class(slab)));
    slab->state = SLAB_PARTIAL;
    return true;
}

/* What the word, after a push, asks for (R6). */
static enum remote_event remote_react(struct granule *slab, uint64_t word)
{
    if (LIKELY(remote_count(word) < slab_threshold(slab))) {
        return REMOTE_NOTHING;
    }
    switch (remote_state(word)) {
    case REMOTE_ASLEEP:
        return remote_claim(slab, word) ? REMOTE_CLAIMED : REMOTE_NOTHING;
    case REMOTE_WOKEN:
        woken_release(slab);
        return REMOTE_NOTHING;
    default:
        return granule_owner(slab) == OWNER_DORMANT ? REMOTE_DORMANT : REMOTE_NOTHING;
    }
}

enum remote_event hmm_remote_push(struct granule *slab, struct slot_chain chain)
{
    uint64_t head = slot_units(chain.head);
    uint64_t tail = slot_units(chain.tail);
    uint64_t old = word_load(slab);
    uint64_t new;
    do {
        bool is_first = remote_count(old) == 0;
        slot_link(chain.tail, is_first ? NULL : slot_at(slab, old));
        new = remote_word(old >> REMOTE_STATE_SHIFT, head, remote_count(old) + chain.count,
                          is_first ? tail : old >> REMOTE_TAIL_SHIFT & REMOTE_FIELD_MASK);
    } while (!word_exchange(slab, &old, new));
    return remote_react(slab, new);
}

enum remote_event hmm_remote_settle(struct granule *slab)
{
    return remote_react(slab, word_load(slab));
}

bool hmm_remote_collect(struct granule *slab)
{
    if (slab_remote_count(slab) == 0) {
        return false;
    }
    word_splice(slab, word_take(slab, REMOTE_OWNED));
    return true;
}

bool hmm_remote_sleep(struct granule *slab)
{
    uint32_t free_count = class_wake(slab_class(slab)) - slab->need;
    uintptr_t owner = granule_owner(slab);
    slab->need = slab_slots(slab) - free_count;
    slab->state = SLAB_SHARED;
    granule_set_owner(slab, 0);
    uint32_t threshold = class_wake(slab_class(slab)) - free_count;
    slab_set_threshold(slab, threshold);

    const uint64_t list_mask = ((uint64_t)1 << REMOTE_STATE_SHIFT) - 1;
    uint64_t word = word_load(slab);
    bool is_asleep = false;
    while (remote_count(word) < threshold && !is_asleep) {
        is_asleep =
            word_exchange(slab, &word, (word & list_mask) | remote_word(REMOTE_ASLEEP, 0, 0, 0));
    }
    if (!is_asleep) {
        slab_set_threshold(slab, class_wake(slab_class(slab)));
        slab->state = SLAB_PARTIAL;
        granule_set_owner(slab, owner);
        (void)hmm_remote_collect(slab);
    }
    return is_asleep;
}

void hmm_remote_publish(struct granule *slab)
{
    struct woken *woken = &woken_slabs[slab_class(slab)];
    hmm_lock_acquire(&woken->lock);
    slab->state = SLAB_SHARED;
    granule_set_owner(slab, 0);
    slab_set_threshold(slab, slab->need);
    woken_push(woken, slab);
    word_wake(slab);
    bool is_complete = woken_complete(woken, slab);
    hmm_lock_release(&woken->lock);
    if (is_complete) {
        hmm_slab_release(slab);
    }
}

struct granule *hmm_remote_adopt(unsigned size_class, uintptr_t owner)
{
    struct woken *woken = &woken_slabs[size_class];
    if (atomic_load_explicit(&woken->first, memory_order_relaxed) == NULL) {
        return NULL;
    }
    hmm_lock_acquire(&woken->lock);
    struct granule *slab = atomic_load_explicit(&woken->first, memory_order_relaxed);
    if (slab != NULL) {
        woken_remove(woken, slab);
        word_splice(slab, word_take(slab, REMOTE_OWNED));
        slab_set_threshold(slab, class_wake(size_class));
        slab->state = SLAB_PARTIAL;
        granule_set_owner(slab, owner);
    }
    hmm_lock_release(&woken->lock);
    return slab;
}

void hmm_remote_lock_all(void)
{
    for (unsigned size_class = 0; size_class < CLASS_COUNT; size_class++) {
        hmm_lock_acquire_for_fork(&woken_slabs[size_class].lock);
    }
}

void hmm_remote_unlock_all(void)
{
    for (unsigned size_class = 0; size_class < CLASS_COUNT; size_class++) {
        hmm_lock_release_after_fork(&woken_slabs[size_class].lock);
    }
}

const char *hmm_remote_audit(void)
{
    for (unsigned size_class = 0; size_class < CLASS_COUNT; size_class++) {
        const struct granule *slab =
            atomic_load_explicit(&woken_slabs[size_class].first, memory_order_relaxed);
        for (; slab != NULL; slab = slab->next) {
            if (remote_state(word_load(slab)) != REMOTE_WOKEN || slab_class(slab) != size_class ||
                granule_owner(slab) != 0 || granule_kind(slab) != GRANULE_SLAB) {
                return "R4: a slab on the class's list is woken";
            }
            if (slab_threshold(slab) != slab->need || slab_remote_count(slab) >= slab->need) {
                return "R6: a woken slab is not complete, and its threshold is its need";
            }
        }
    }
    return NULL;
}
