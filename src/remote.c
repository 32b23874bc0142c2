/*
 * remote.c - the word that slabs share, and the lists of woken slabs. See remote.h.
 */
#include "remote.h"
#include "huge.h"
#include "purge.h"
#include "thread.h"

#define WOKEN_1                                                                                    \
    {                                                                                              \
        LOCK_INITIALIZER(LOCK_RANK_CLASS), NULL, NULL                                              \
    }
#define WOKEN_4  WOKEN_1, WOKEN_1, WOKEN_1, WOKEN_1
#define WOKEN_16 WOKEN_4, WOKEN_4, WOKEN_4, WOKEN_4

struct woken hmm_woken_slabs[] = {WOKEN_16, WOKEN_16, WOKEN_16, WOKEN_4,
                                  WOKEN_4,  WOKEN_1,  WOKEN_1,  WOKEN_1};

static_assert(sizeof hmm_woken_slabs == CLASS_COUNT * sizeof(struct woken), "one for each class");

/* ------------------------------------------------------------------------------------- the word */

/* Nothing in the list, and somebody has the slab. */
#define WORD_OWNED ((uint64_t)REMOTE_OWNED << REMOTE_STATE_SHIFT)

/* The same list in another state: an enum remote_state, or REMOTE_WOKEN and the class on top of
 * it. */
static uint64_t word_in_state(uint64_t word, uint64_t state)
{
    const uint64_t list_mask = ((uint64_t)1 << REMOTE_STATE_SHIFT) - 1;
    return (word & list_mask) | state << REMOTE_STATE_SHIFT;
}

static struct slot *slot_at(const struct granule *slab, uint32_t units)
{
    return (struct slot *)(granule_start(slab) + ((uintptr_t)units << SLOT_UNIT_SHIFT));
}

/* NULL: the list is empty. */
static struct slot *word_first(const struct granule *slab, uint64_t word)
{
    return remote_head(word) != 0 ? slot_at(slab, remote_head(word) - 1) : NULL;
}

/* Release: what was written to slots and the descriptor is seen by whoever takes the list or the
 * slab. Acquire: R3, R6. */
static bool word_exchange(struct granule *slab, uint64_t *old, uint64_t new)
{
    if (process_has_one_thread()) {
        atomic_store_explicit(&slab->remote, new, memory_order_relaxed);
        return true;
    }
    return atomic_compare_exchange_weak_explicit(&slab->remote, old, new, memory_order_acq_rel,
                                                 memory_order_acquire);
}

/* Whether so many slots on the list of an owned slab are loose (R12): fewer are not worth an
 * account at each push (docs/experiments.md). */
static inline bool is_loose(const struct granule *slab, uint32_t count)
{
    enum { LOOSE_BYTES_MIN = GRANULE_BYTES / 2 };
    return UNLIKELY((size_t)count * slab->slot_bytes >= LOOSE_BYTES_MIN);
}

/* How much the word's list makes loose. */
static HMM_NOINLINE size_t loose_bytes_of(const struct granule *slab, uint64_t word)
{
    if (!is_loose(slab, remote_count(word)) || remote_state(word) != REMOTE_OWNED) {
        return 0;
    }
    const size_t bytes = (size_t)remote_count(word) * slab->slot_bytes;
    const unsigned thin = remote_thin(word);
    return size_less(bytes, thin != 0 ? bit_count(thin) * hmm_os_page_bytes() : 0);
}

/* The word's list has been taken, or the slab is not owned any more. */
static inline void word_tighten(const struct granule *slab, uint64_t word)
{
    if (is_loose(slab, remote_count(word))) {
        (void)hmm_thread_count_loose(-(ptrdiff_t)loose_bytes_of(slab, word));
    }
}

static uint64_t word_load(const struct granule *slab)
{
    return atomic_load_explicit(&slab->remote, memory_order_acquire);
}

/* The list that the word names becomes part of the slab's own. The slab is the caller's. */
static void word_splice(struct granule *slab, uint64_t word)
{
    struct slot *first = word_first(slab, word);
    if (first != NULL) {
        slot_link(slot_at(slab, remote_tail(word)), slab->free);
        slab->free = first;
    }
    slab->need -= remote_count(word);
    if (UNLIKELY(remote_thin(word) != 0)) {
        ASSERT((slab_away(slab) & remote_thin(word)) == 0);
        const unsigned away = slab_away(slab) | remote_thin(word);
        atomic_store_explicit(&slab->away, (uint16_t)away, memory_order_relaxed);
    }
}

/* Takes the list, and the slab has its owner. Returns the word before. */
static uint64_t word_take(struct granule *slab)
{
    uint64_t word = word_load(slab);
    while (!word_exchange(slab, &word, WORD_OWNED)) {
    }
    word_tighten(slab, word);
    return word;
}

static void word_wake(struct granule *slab)
{
    uint64_t word = word_load(slab);
    while (!word_exchange(slab, &word, word_in_state(word, REMOTE_WOKEN + slab_class(slab)))) {
    }
    word_tighten(slab, word);
}

static uint32_t slab_threshold(const struct granule *slab)
{
    return atomic_load_explicit(&slab->threshold, memory_order_relaxed);
}

static void slab_set_threshold(struct granule *slab, uint32_t count)
{
    atomic_store_explicit(&slab->threshold, count, memory_order_relaxed);
}

/* ---------------------------------------------------------------------------------- woken slabs */

static struct granule *woken_peek(const _Atomic(struct granule *) *list)
{
    return atomic_load_explicit(list, memory_order_relaxed);
}

static bool woken_is_empty(const struct woken *woken)
{
    return woken_peek(&woken->loose) == NULL && woken_peek(&woken->first) == NULL;
}

static _Atomic(struct granule *) *woken_list(struct woken *woken, const struct granule *slab)
{
    return slab->loose_slots != 0 ? &woken->loose : &woken->first;
}

static void woken_push(struct woken *woken, struct granule *slab)
{
    _Atomic(struct granule *) *list = woken_list(woken, slab);
    struct granule *first = woken_peek(list);
    slab->prev = NULL;
    slab->next = first;
    if (first != NULL) {
        first->prev = slab;
    }
    atomic_store_explicit(list, slab, memory_order_relaxed);
}

static void woken_remove(struct woken *woken, struct granule *slab)
{
    if (slab->prev != NULL) {
        slab->prev->next = slab->next;
    } else {
        atomic_store_explicit(woken_list(woken, slab), slab->next, memory_order_relaxed);
    }
    if (slab->next != NULL) {
        slab->next->prev = slab->prev;
    }
}

/* Of a slab that is on no list. */
static void set_loose(struct granule *slab, uint32_t slots)
{
    ptrdiff_t more = (ptrdiff_t)slots - slab->loose_slots;
    slab->loose_slots = (uint16_t)slots;
    if (more != 0) {
        hmm_purge_count_loose(more * (ptrdiff_t)class_bytes(slab_class(slab)));
    }
}

/* A stage of a slab that nobody has is a quarter of others': no owner will look at the rest. */
static uint32_t woken_stage_slots(const struct granule *slab)
{
    enum { WOKEN_STAGE_SHARE = 4 };
    return (slab_stage_slots(slab) + WOKEN_STAGE_SHARE - 1) / WOKEN_STAGE_SHARE;
}

/* Of `count` slots that are in the list of the word, the next time that somebody looks. */
static void set_stage(struct granule *slab, uint32_t count)
{
    uint32_t threshold = count + woken_stage_slots(slab);
    slab_set_threshold(slab, threshold < slab->need ? threshold : slab->need);
}

/* A slab that was nobody's is the caller's, and the list of the word. */
static void receive(struct granule *slab, uint64_t word)
{
    word_splice(slab, word);
    slab_set_threshold(slab, class_wake(slab_class(slab)));
    slab->state = SLAB_PARTIAL;
}

/* Under the class's lock: the slab, off its list, is the caller's with all its free slots (R4). */
static void woken_take(struct woken *woken, struct granule *slab)
{
    woken_remove(woken, slab);
    set_loose(slab, 0);
    receive(slab, word_take(slab));
}

enum woken_news { WOKEN_NOTHING, WOKEN_COMPLETE, WOKEN_LOOSE };

/* Under the class's lock: takes a woken slab of the class off the list if all its slots are free,
 * and sets the next stage if it has become emptier by one. */
static enum woken_news woken_look(struct woken *woken, struct granule *slab)
{
    const uint64_t size_class = (uint64_t)(woken - hmm_woken_slabs);
    uint64_t word = word_load(slab);
    if (word >> REMOTE_STATE_SHIFT != REMOTE_WOKEN + size_class ||
        remote_count(word) < slab_threshold(slab)) {
        return WOKEN_NOTHING;
    }
    if (remote_count(word) == slab->need) {
        woken_take(woken, slab);
        return WOKEN_COMPLETE;
    }
    woken_remove(woken, slab);
    set_loose(slab, slab->loose_slots + woken_stage_slots(slab) + remote_count(word) -
                        slab_threshold(slab));
    woken_push(woken, slab);
    set_stage(slab, remote_count(word));
    return WOKEN_LOOSE;
}

/* Gives the class's lock back after a look, and then the granule, if that is free. */
static enum remote_event woken_leave(struct woken *woken, struct granule *slab)
{
    enum woken_news news = woken_look(woken, slab);
    hmm_lock_release(&woken->lock);
    if (news == WOKEN_COMPLETE) {
        hmm_slab_release(slab);
    }
    return news == WOKEN_LOOSE ? REMOTE_LOOSE : REMOTE_NOTHING;
}

static enum remote_event woken_respond(struct granule *slab)
{
    struct woken *woken = &hmm_woken_slabs[slab_class(slab)];
    hmm_lock_acquire(&woken->lock);
    return woken_leave(woken, slab);
}

/* -------------------------------------------------------------------------------------- pushing */

static bool remote_claim(struct granule *slab, uint64_t word)
{
    do {
        if (remote_state(word) != REMOTE_ASLEEP || remote_count(word) < slab_threshold(slab)) {
            return false;
        }
    } while (!word_exchange(slab, &word, WORD_OWNED));
    receive(slab, word);
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
        return woken_respond(slab);
    default:
        return granule_owner(slab) == OWNER_DORMANT ? REMOTE_DORMANT : REMOTE_NOTHING;
    }
}

/* The word with the chain in front of its list, to which the chain is linked. */
static uint64_t word_push(struct granule *slab, uint64_t word, struct slot_chain chain)
{
    const uint64_t list_mask = ((uint64_t)1 << REMOTE_THIN_SHIFT) - 1;
    const bool is_first = remote_head(word) == 0;
    const uint64_t tail = is_first ? slot_units(chain.tail) : remote_tail(word);
    slot_link(chain.tail, word_first(slab, word));
    return (word & ~list_mask) | (slot_units(chain.head) + 1) |
           (uint64_t)(remote_count(word) + chain.count) << REMOTE_COUNT_SHIFT |
           tail << REMOTE_TAIL_SHIFT;
}

/* The same of a chain that has been thinned. */
static uint64_t word_push_thin(struct granule *slab, uint64_t word, struct slot_chain chain)
{
    const uint64_t count = (uint64_t)chain.count << REMOTE_COUNT_SHIFT;
    const uint64_t thin = (uint64_t)chain.thin_pages << REMOTE_THIN_SHIFT;
    return (chain.head != NULL ? word_push(slab, word, chain) : word + count) | thin;
}

/* The slab's list and thin pages become part of the chain, which ends with NULL then. */
static void take_into_chain(struct granule *slab, struct slot_chain *chain)
{
    uint64_t word = word_load(slab);
    slot_link(chain->tail, NULL);
    do {
        if (remote_state(word) != REMOTE_OWNED) {
            return;
        }
    } while (!word_exchange(slab, &word, WORD_OWNED));
    word_tighten(slab, word);
    if (remote_head(word) != 0) {
        slot_link(chain->tail, word_first(slab, word));
        chain->tail = slot_at(slab, remote_tail(word));
    }
    chain->count += remote_count(word);
    chain->thin_pages |= remote_thin(word);
}

/* Of a chain that may make much of the slab loose, and may have been thinned. It is in use until
 * the word is exchanged, and the slab with it. Returns the new word. */
static uint64_t push_counting(struct granule *slab, struct slot_chain chain)
{
    uint64_t old = word_load(slab);
    uint64_t new;
    size_t loose_bytes, new_loose_bytes;
    do {
        new = word_push_thin(slab, old, chain);
        loose_bytes = loose_bytes_of(slab, old);
        new_loose_bytes = loose_bytes_of(slab, new);
    } while (!word_exchange(slab, &old, new));
    (void)hmm_thread_count_loose((ptrdiff_t)(new_loose_bytes - loose_bytes));
    return new;
}

/* R10. Returns the new word. */
static HMM_COLD uint64_t push_thinning(struct granule *slab, struct slot_chain chain)
{
    struct lock *lock = &hmm_woken_slabs[slab_class(slab)].lock;
    hmm_huge_withdraw();
    hmm_lock_acquire(lock);
    take_into_chain(slab, &chain);
    hmm_slab_thin(slab, &chain);
    const uint64_t word = push_counting(slab, chain);
    hmm_lock_release(lock);
    return word;
}

/* Whether with so many more slots on its list another stage of somebody's slab is loose, and that
 * is too much: an owner who is idle would keep it. What dormant threads have is given back
 * otherwise. */
static bool wants_thinning(const struct granule *slab, uint64_t word, uint32_t more)
{
    const size_t stages = loose_bytes_of(slab, word) / STAGE_BYTES;
    const uint64_t new = word + ((uint64_t)more << REMOTE_COUNT_SHIFT);
    return loose_bytes_of(slab, new) / STAGE_BYTES != stages &&
           granule_owner(slab) != OWNER_DORMANT && hmm_purge_may_thin();
}

static HMM_NOINLINE uint64_t push_much(struct granule *slab, uint64_t word, struct slot_chain chain)
{
    return wants_thinning(slab, word, chain.count) ? push_thinning(slab, chain)
                                                   : push_counting(slab, chain);
}

enum remote_event hmm_remote_push(struct granule *slab, struct slot_chain chain)
{
    uint64_t old = word_load(slab);
    uint64_t new;
    do {
        if (is_loose(slab, remote_count(old) + chain.count)) {
            return remote_react(slab, push_much(slab, old, chain));
        }
        new = word_push(slab, old, chain);
    } while (!word_exchange(slab, &old, new));
    return remote_react(slab, new);
}

enum remote_event hmm_remote_settle(struct granule *slab)
{
    return remote_react(slab, word_load(slab));
}

/* -------------------------------------------------------------------------- from owner to owner */

void hmm_remote_collect(struct granule *slab)
{
    if (slab_remote_count(slab) != 0) {
        word_splice(slab, word_take(slab));
    }
}

bool hmm_remote_sleep(struct granule *slab)
{
    const uint32_t threshold = slab->need; /* what is missing to class_wake */
    uintptr_t owner = granule_owner(slab);
    slab->need += slab_unawaited_slots(slab);
    slab->state = SLAB_SHARED;
    granule_set_owner(slab, 0);
    slab_set_threshold(slab, threshold);

    uint64_t word = word_load(slab);
    bool is_asleep = false;
    while (remote_count(word) < threshold && !is_asleep) {
        is_asleep = word_exchange(slab, &word, word_in_state(word, REMOTE_ASLEEP));
    }
    if (!is_asleep) {
        slab_set_threshold(slab, class_wake(slab_class(slab)));
        slab->state = SLAB_PARTIAL;
        granule_set_owner(slab, owner);
        hmm_remote_collect(slab);
    }
    return is_asleep;
}

void hmm_remote_publish(struct granule *slab, uint32_t loose_slots)
{
    struct woken *woken = &hmm_woken_slabs[slab_class(slab)];
    hmm_lock_acquire(&woken->lock);
    slab->state = SLAB_SHARED;
    granule_set_owner(slab, 0);
    set_stage(slab, 0);
    set_loose(slab, loose_slots);
    woken_push(woken, slab);
    word_wake(slab);
    (void)woken_leave(woken, slab);
}

struct granule *hmm_remote_adopt(unsigned size_class, uintptr_t owner)
{
    struct woken *woken = &hmm_woken_slabs[size_class];
    if (woken_is_empty(woken)) {
        return NULL;
    }
    hmm_lock_acquire(&woken->lock);
    struct granule *slab = woken_peek(&woken->loose);
    slab = slab != NULL ? slab : woken_peek(&woken->first);
    if (slab != NULL) {
        woken_take(woken, slab);
        granule_set_owner(slab, owner);
    }
    hmm_lock_release(&woken->lock);
    return slab;
}

/* ---------------------------------------------------------------------------- giving pages back */

/* What was done to a slab. */
struct woken_purge {
    size_t loose_bytes;  /* so much less is loose; 0: nothing is */
    size_t purged_bytes; /* so much went */
};

static bool is_any(const struct granule *slab)
{
    return slab != NULL;
}

/* Gives free pages of one of the class's slabs with loose slots back that is wanted, if they are so
 * many bytes. */
static struct woken_purge purge_woken(struct woken *woken,
                                      bool (*is_wanted)(const struct granule *), size_t least_bytes)
{
    if (woken_peek(&woken->loose) == NULL) {
        return (struct woken_purge){0};
    }
    hmm_lock_acquire(&woken->lock);
    struct granule *slab = woken_peek(&woken->loose);
    for (int probes = 0; slab != NULL && !is_wanted(slab); probes++) {
        slab = probes < LOOSE_PROBES ? slab->next : NULL;
    }
    size_t loose_slots = 0;
    if (slab != NULL) {
        loose_slots = slab->loose_slots;
        woken_take(woken, slab);
    }
    hmm_lock_release(&woken->lock);
    if (slab == NULL) {
        return (struct woken_purge){0};
    }
    struct woken_purge done = {.loose_bytes = loose_slots * class_bytes(slab_class(slab))};
    if (slab->need == 0) {
        hmm_slab_release(slab);
    } else {
        done.purged_bytes = hmm_slab_purge(slab, least_bytes);
        hmm_remote_publish(slab, 0);
    }
    return done;
}

bool hmm_remote_purge_sparse(unsigned size_class)
{
    return purge_woken(&hmm_woken_slabs[size_class], slab_is_sparse, STAGE_BYTES).loose_bytes != 0;
}

void hmm_remote_purge(unsigned size_class, int looks_max)
{
    size_t excess_bytes = hmm_purge_excess_bytes();
    struct woken *woken = &hmm_woken_slabs[size_class];
    struct woken *other = hmm_woken_slabs;
    for (int looks = 0; excess_bytes != 0 && looks < looks_max; looks++) {
        size_t loose_bytes = purge_woken(woken, is_any, STAGE_BYTES).loose_bytes;
        while (loose_bytes == 0 && other < hmm_woken_slabs + CLASS_COUNT) {
            loose_bytes = purge_woken(other, is_any, STAGE_BYTES).loose_bytes;
            other += loose_bytes == 0;
        }
        if (loose_bytes == 0) {
            return;
        }
        excess_bytes -= size_min(excess_bytes, loose_bytes);
    }
}

/* Every woken slab of the class counts as if a stage of it were loose, so that somebody looks. How
 * many there are. */
static size_t woken_loosen(struct woken *woken)
{
    size_t count = 0;
    hmm_lock_acquire(&woken->lock);
    struct granule *slab = woken_peek(&woken->first);
    while (slab != NULL) {
        struct granule *next = slab->next;
        woken_remove(woken, slab);
        set_loose(slab, woken_stage_slots(slab));
        woken_push(woken, slab);
        slab = next;
    }
    for (slab = woken_peek(&woken->loose); slab != NULL; slab = slab->next) {
        count++;
    }
    hmm_lock_release(&woken->lock);
    return count;
}

/* A sleeper of which anything is free becomes the caller's, with all that is. */
static bool sleeper_take(struct granule *slab)
{
    uint64_t word = word_load(slab);
    do {
        bool has_free =
            remote_count(word) != 0 || slab_threshold(slab) < class_wake(slab_class(slab));
        if (remote_state(word) != REMOTE_ASLEEP || !has_free) {
            return false;
        }
    } while (!word_exchange(slab, &word, WORD_OWNED));
    receive(slab, word);
    return true;
}

/* It sleeps again, if it has no more to offer than other sleepers. */
static void sleeper_leave(struct granule *slab)
{
    const uint32_t unawaited_slots = slab_unawaited_slots(slab);
    if (slab->need > unawaited_slots && slab_away(slab) == 0) {
        slab->need -= unawaited_slots;
        if (hmm_remote_sleep(slab)) {
            return;
        }
    }
    if (slab->need == 0) {
        hmm_slab_release(slab);
    } else {
        hmm_remote_publish(slab, 0);
    }
}

static size_t purge_sleeper(struct granule *slab)
{
    if (slab->need == 0) {
        hmm_slab_release(slab);
        return 0;
    }
    size_t purged_bytes = hmm_slab_purge(slab, 1);
    if (purged_bytes != 0) {
        hmm_remote_publish(slab, 0);
    } else {
        sleeper_leave(slab);
    }
    return purged_bytes;
}

/* Slabs that are made meanwhile may be missed. */
HMM_RACY static size_t trim_sleepers(size_t budget_bytes)
{
    const size_t count = size_min(hmm_arena.frontier_count, hmm_arena.granule_count);
    size_t purged_bytes = 0;
    for (size_t index = 0; index < count && purged_bytes < budget_bytes; index++) {
        struct granule *slab = &hmm_arena.table[index];
        if (granule_kind(slab) == GRANULE_SLAB && sleeper_take(slab)) {
            purged_bytes += purge_sleeper(slab);
        }
    }
    return purged_bytes;
}

size_t hmm_remote_trim(size_t budget_bytes)
{
    size_t purged_bytes = trim_sleepers(budget_bytes);
    for (struct woken *woken = hmm_woken_slabs;
         woken < hmm_woken_slabs + CLASS_COUNT && purged_bytes < budget_bytes; woken++) {
        size_t left = woken_is_empty(woken) ? 0 : woken_loosen(woken);
        for (; left > 0 && purged_bytes < budget_bytes; left--) {
            purged_bytes += purge_woken(woken, is_any, 1).purged_bytes;
        }
    }
    return purged_bytes;
}

/* ------------------------------------------------------------------------------- fork and audit */

void hmm_remote_lock_all(void)
{
    for (unsigned size_class = 0; size_class < CLASS_COUNT; size_class++) {
        hmm_lock_acquire_for_fork(&hmm_woken_slabs[size_class].lock);
    }
}

void hmm_remote_unlock_all(void)
{
    for (unsigned size_class = 0; size_class < CLASS_COUNT; size_class++) {
        hmm_lock_release_after_fork(&hmm_woken_slabs[size_class].lock);
    }
}

static const char *audit_list(const struct granule *slab, unsigned size_class, bool is_loose)
{
    for (; slab != NULL; slab = slab->next) {
        if (remote_state(word_load(slab)) != REMOTE_WOKEN || slab_class(slab) != size_class ||
            granule_owner(slab) != 0 || granule_kind(slab) != GRANULE_SLAB ||
            (slab->loose_slots != 0) != is_loose || slab->floor_slots != 0) {
            return "R4: a slab on one of the class's lists is woken";
        }
        if (slab_threshold(slab) > slab->need || slab_remote_count(slab) >= slab_threshold(slab)) {
            return "R6: a woken slab has not got its threshold back, which its need bounds";
        }
    }
    return NULL;
}

const char *hmm_remote_audit(void)
{
    const char *broken = NULL;
    for (unsigned size_class = 0; broken == NULL && size_class < CLASS_COUNT; size_class++) {
        const struct woken *woken = &hmm_woken_slabs[size_class];
        broken = audit_list(woken_peek(&woken->loose), size_class, true);
        broken = broken != NULL ? broken : audit_list(woken_peek(&woken->first), size_class, false);
    }
    return broken;
}
