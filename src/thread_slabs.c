/*
 * thread_slabs.c - the slabs of a thread, and the lists on which they are. See thread.h and slab.h.
 *
 * A slab comes to a list when it is current no longer, when it was full and has got enough back, or
 * when nobody owned it; and it leaves when it is empty, when there are more of its kind than the
 * thread may keep, or when the thread ends. Who takes one off its list has it to himself.
 */
#include "purge.h"
#include "thread_room.h"

enum {
    /* When a process becomes threaded its first thread may own thousands of slabs. So many of a
     * class go a refill, so that no call takes long. */
    LET_GO_MAX = 4,
    /* How many classes a call looks at where a heap has grown, and how many slabs it purges: few,
     * so that no call takes long. */
    SPARSE_CLASSES = 16,
    SPARSE_PURGED_MAX = 4,
    /* From so large slots on bins are short, and it is worth counting them at a thread's end
     * whether their slab is empty. */
    COUNTED_BYTES_MIN = 512,
};

_Atomic bool hmm_thread_has_shared;

HMM_NOINLINE bool hmm_thread_count_loose(ptrdiff_t bytes)
{
    struct thread *thread = hmm_thread.thread;
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

void hmm_thread_part_full(struct class_slabs *slabs, struct granule *slab)
{
    slab_list_remove(&slabs->full, slab);
    slab->need += slab_unawaited_slots(slab);
    hmm_remote_collect(slab);
}

/* A slab with free slots, some to carve, or pages away, on no list. */
static void own_partial(struct class_slabs *slabs, struct granule *slab)
{
    const bool is_thin = slab_away(slab) != 0;
    slab_own(is_thin ? &slabs->thin : &slabs->partial, slab, is_thin ? SLAB_THIN : SLAB_PARTIAL);
    slab_set_stage(slab);
}

void hmm_thread_keep_partial(struct class_slabs *slabs, struct granule *slab)
{
    if (slab->need == 0) {
        hmm_slab_release(slab);
    } else {
        own_partial(slabs, slab);
    }
}

/* So many more slots of the slab, which is on no list, are loose. Whether that is much. */
static bool own_loose(struct class_slabs *slabs, struct granule *slab, uint32_t loose_slots)
{
    slab->state = SLAB_PARTIAL;
    slab->loose_slots = (uint16_t)loose_slots;
    slab_list_append(&slabs->partial, slab);
    slab_set_stage(slab);
    return hmm_thread_count_loose((ptrdiff_t)(loose_slots * class_bytes(slab_class(slab))));
}

static bool is_loose(const struct granule *slab)
{
    return slab != NULL && slab->loose_slots != 0;
}

/* The current slab is so no more, with what was in the bin on its list. */
static struct granule *part_current(struct thread *thread, struct class_slabs *slabs)
{
    struct granule *slab = slabs->current;
    slab_tighten(slab);
    slabs_put_back(slabs, &thread->bins[slabs - thread->classes]);
    hmm_remote_collect(slab);
    slabs->current = NULL;
    return slab;
}

/* Gives free pages of one of the class's slabs back. How much less is loose; 0: nothing is. */
static size_t purge_loose_slab(struct thread *thread, struct class_slabs *slabs)
{
    struct granule *slab = is_loose(slabs->partial.last) ? slabs->partial.last : slabs->current;
    if (!is_loose(slab)) {
        return 0;
    }
    size_t loose_bytes = slab->loose_slots * class_bytes(slab_class(slab));
    if (slab == slabs->current) {
        (void)part_current(thread, slabs);
    } else {
        slabs_part(slabs, slab);
    }
    if (slab->need == 0) {
        hmm_slab_release(slab);
    } else {
        (void)hmm_slab_purge(slab, STAGE_BYTES);
        own_partial(slabs, slab);
    }
    return loose_bytes;
}

/* What exceeds the bound goes back, as far as the thread's slabs have it, those of the class at
 * hand first; then nobody's. */
static void purge_loose(struct thread *thread, struct class_slabs *slabs, int looks_max)
{
    size_t excess_bytes = hmm_purge_excess_bytes();
    struct class_slabs *other = thread->classes;
    for (int looks = 0; excess_bytes != 0 && looks < looks_max; looks++) {
        size_t loose_bytes = purge_loose_slab(thread, slabs);
        while (loose_bytes == 0 && other < thread->classes + CLASS_COUNT) {
            loose_bytes = purge_loose_slab(thread, other);
            other += loose_bytes == 0;
        }
        if (loose_bytes == 0) {
            hmm_remote_purge((unsigned)(slabs - thread->classes), looks_max);
            return;
        }
        excess_bytes -= size_min(excess_bytes, loose_bytes);
    }
}

static bool purge_sparse(struct thread *thread, unsigned size_class)
{
    struct class_slabs *slabs = &thread->classes[size_class];
    const struct granule *slab = slabs->partial.last;
    return is_loose(slab) && slab_is_sparse(slab) ? purge_loose_slab(thread, slabs) != 0
                                                  : hmm_remote_purge_sparse(size_class);
}

/* A slab for each granule. Where none is found, half of the rest is forgotten: each call costs a
 * look at some classes. */
void hmm_thread_offset_growth(struct thread *thread)
{
    static _Atomic unsigned next_class; /* an opinion: all classes have their turn */
    unsigned size_class = atomic_load_explicit(&next_class, memory_order_relaxed);
    size_t growth = atomic_load_explicit(&hmm_purge_growth, memory_order_relaxed);
    const size_t purged_max = size_min(growth, SPARSE_PURGED_MAX);
    size_t purged_count = 0;
    thread_set_busy(thread, true);
    for (int looks = 0; looks < SPARSE_CLASSES && purged_count < purged_max;) {
        if (purge_sparse(thread, size_class)) {
            purged_count++;
        } else {
            size_class = (size_class + 1) % CLASS_COUNT;
            looks++;
        }
    }
    thread_set_busy(thread, false);
    growth = purged_count != 0 ? growth - purged_count : growth / 2;
    atomic_store_explicit(&hmm_purge_growth, growth, memory_order_relaxed);
    atomic_store_explicit(&next_class, size_class, memory_order_relaxed);
}

/* Of what is free nobody has looked at anything, unless pages are away. */
static void publish(struct granule *slab)
{
    uint32_t free_slots = slab_slots(slab) - slab->need;
    hmm_remote_publish(slab, slab_away(slab) == 0 ? free_slots : 0);
}

void hmm_thread_disown(struct granule *slab)
{
    ASSERT(slab->floor_slots == 0 && slab->loose_slots == 0);
    hmm_remote_collect(slab);
    if (slab->need == 0) {
        hmm_slab_release(slab);
        return;
    }
    if (slab_is_used_up(slab)) {
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
    slabs_part(slabs, slab);
    hmm_thread_disown(slab);
}

static void let_go_full(struct class_slabs *slabs)
{
    struct granule *slab = slabs->full.last;
    slab_list_remove(&slabs->full, slab);
    if (!hmm_remote_sleep(slab)) {
        hmm_thread_keep_partial(slabs, slab);
    }
}

/* So many full ones stay, and so many of each of the others. No more than `gone_max` of a list
 * go. */
static void let_go(struct class_slabs *slabs, uint32_t full_max, uint32_t partial_max,
                   uint32_t gone_max)
{
    for (uint32_t gone = 0; slabs->full.count > full_max && gone < gone_max; gone++) {
        let_go_full(slabs);
    }
    for (uint32_t gone = 0; slabs->partial.count > partial_max && gone < gone_max; gone++) {
        let_go_last(slabs, &slabs->partial);
    }
    for (uint32_t gone = 0; slabs->thin.count > partial_max && gone < gone_max; gone++) {
        let_go_last(slabs, &slabs->thin);
    }
}

void hmm_thread_bound_slabs(struct class_slabs *slabs)
{
    if (!process_has_one_thread()) {
        let_go(slabs, slabs_full_max(slabs), PARTIAL_MAX, LET_GO_MAX);
    }
}

/* Another number after nearly every use of the bin. */
static uint32_t class_seen(const struct class_slabs *slabs, const struct slot *bin)
{
    return (uint32_t)slabs->handed_slots + (uint32_t)((uintptr_t)bin >> SLOT_UNIT_SHIFT);
}

void hmm_thread_let_go_quiet(struct thread *thread, unsigned size_class)
{
    struct class_slabs *slabs = &thread->classes[size_class];
    const uint32_t seen = class_seen(slabs, thread->bins[size_class]);
    if (slabs->seen != seen) {
        slabs->seen = seen;
        return;
    }
    if (slabs->current != NULL) {
        hmm_thread_disown(part_current(thread, slabs));
    }
    let_go(slabs, 0, 0, UINT32_MAX);
}

void hmm_thread_share(void)
{
    struct thread *thread = hmm_thread.thread;
    atomic_store_explicit(&hmm_thread_has_shared, true, memory_order_relaxed);
    if (!thread_is_open(thread)) {
        return;
    }
    ASSERT(!atomic_load_explicit(&thread->is_busy, memory_order_relaxed));
    thread_set_busy(thread, true);
    for (unsigned size_class = 0; size_class < CLASS_COUNT; size_class++) {
        let_go(&thread->classes[size_class], 0, PARTIAL_MAX, UINT32_MAX);
    }
    thread_set_busy(thread, false);
}

void hmm_thread_adopt(struct thread *thread, struct granule *slab)
{
    if (slab->need == 0) {
        hmm_slab_release(slab);
    } else if (thread_is_open(thread)) {
        struct class_slabs *slabs = &thread->classes[slab_class(slab)];
        granule_set_owner(slab, thread->self);
        const uint32_t loose_slots = slab_slots(slab) - slab->need - hmm_slab_away_slots(slab);
        if (loose_slots != 0) {
            (void)own_loose(slabs, slab, loose_slots);
        } else {
            own_partial(slabs, slab); /* all that is free of it is away */
        }
        if (slabs->partial.count > PARTIAL_MAX) {
            let_go_last(slabs, &slabs->partial);
        }
    } else {
        publish(slab);
    }
}

/* --------------------------------------------------------------------------------------- events */

/* A full slab has got enough back. All that is free of it is loose. */
static void full_event(struct thread *thread, struct class_slabs *slabs, struct granule *slab)
{
    slab->need = slab_unawaited_slots(slab);
    slabs_note_own(slabs);
    slab_list_remove(&slabs->full, slab);
    if (slab->need == 0) {
        hmm_slab_release(slab);
        return;
    }
    if (own_loose(slabs, slab, class_wake(slab_class(slab)))) {
        purge_loose(thread, slabs, LOOSE_LOOKS_MAX);
    }
    hmm_thread_bound_slabs(slabs);
}

/* A partial or thin slab is empty, or emptier by a stage. */
static void partial_event(struct thread *thread, struct class_slabs *slabs, struct granule *slab)
{
    uint32_t loose_slots = slab->loose_slots + slab_stage_slots(slab);
    slabs_part(slabs, slab);
    if (slab->need == 0) {
        hmm_slab_release(slab);
        return;
    }
    if (own_loose(slabs, slab, loose_slots)) {
        purge_loose(thread, slabs, LOOSE_LOOKS_MAX);
    }
}

/* Whether nothing needs to be done. A slab of which little is carved is empty all the time where
 * few blocks are alive. */
static bool current_is_left(const struct granule *slab)
{
    return slab->floor_slots == 0 && !hmm_arena_wants_back(slab) &&
           (process_has_one_thread() || slab_slots(slab) < STAGE_SLOTS_MIN);
}

/* The current slab is empty, or emptier by a stage. */
static void current_event(struct thread *thread, struct class_slabs *slabs, struct granule *slab)
{
    slab_clear_stage(slab);
    if (slab->need == 0 && hmm_arena_wants_back(slab)) {
        slab_tighten(slab);
        slabs->current = NULL;
        hmm_slab_release(slab);
        return;
    }
    const uint32_t loose_slots = slab->need == 0 ? slab_slots(slab) - hmm_slab_away_slots(slab)
                                                 : slab->loose_slots + slab_stage_slots(slab);
    const uint32_t more_slots = loose_slots - slab->loose_slots;
    slab->loose_slots = (uint16_t)loose_slots;
    slab_stage_current(slab);
    if (hmm_thread_count_loose((ptrdiff_t)(more_slots * class_bytes(slab_class(slab))))) {
        purge_loose(thread, slabs, LOOSE_LOOKS_MAX);
    }
}

void hmm_thread_slab_event(struct thread *thread, struct granule *slab)
{
    struct class_slabs *slabs = &thread->classes[slab_class(slab)];
    if (slab->state == SLAB_CURRENT && current_is_left(slab)) {
        return;
    }
    thread_set_busy(thread, true);
    switch (slab->state) {
    case SLAB_FULL:
        full_event(thread, slabs, slab);
        break;
    case SLAB_PARTIAL:
    case SLAB_THIN:
        partial_event(thread, slabs, slab);
        break;
    default:
        current_event(thread, slabs, slab);
        break;
    }
    thread_set_busy(thread, false);
}

/* ------------------------------------------------------------------------------------- trimming */

static void flush_current(struct class_slabs *slabs, struct slot **bin)
{
    struct granule *slab = slabs->current;
    if (slab == NULL) {
        return;
    }
    slab_tighten(slab);
    slabs_put_back(slabs, bin);
    hmm_remote_collect(slab);
    if (slab->need == 0) {
        slabs->current = NULL;
        hmm_slab_release(slab);
    } else {
        slab_stage_current(slab);
    }
}

static void flush_partial(struct class_slabs *slabs, struct granule *slab)
{
    while (slab != NULL) {
        struct granule *next = slab->next;
        if (!slabs_collect_partial(slabs, slab)) {
            hmm_slab_release(slab);
        }
        slab = next;
    }
}

static void flush_full(struct class_slabs *slabs)
{
    struct granule *slab = slabs->full.first;
    while (slab != NULL) {
        struct granule *next = slab->next;
        if (slab_remote_count(slab) != 0) {
            hmm_thread_part_full(slabs, slab);
            hmm_thread_keep_partial(slabs, slab);
        }
        slab = next;
    }
}

void hmm_thread_flush_slabs(struct thread *thread)
{
    for (unsigned size_class = 0; size_class < CLASS_COUNT; size_class++) {
        struct class_slabs *slabs = &thread->classes[size_class];
        flush_current(slabs, &thread->bins[size_class]);
        flush_partial(slabs, slabs->partial.first);
        flush_partial(slabs, slabs->thin.first);
        flush_full(slabs);
        hmm_thread_bound_slabs(slabs);
    }
}

/* After a flush: nothing is in the bin. */
static void trim_current(struct class_slabs *slabs)
{
    struct granule *slab = slabs->current;
    if (slab == NULL) {
        return;
    }
    slabs->current = NULL;
    slab_tighten(slab);
    if (slab_is_used_up(slab)) {
        slabs_own_full(slabs, slab);
    } else {
        own_partial(slabs, slab);
    }
}

/* Of the last slab of a list. How many bytes went. */
static size_t trim_partial(struct class_slabs *slabs, const struct slab_list *list)
{
    struct granule *slab = list->last;
    size_t purged_bytes = 0;
    slabs_part(slabs, slab);
    hmm_remote_collect(slab);
    if (slab->need == 0) {
        hmm_slab_release(slab);
    } else {
        purged_bytes = hmm_slab_purge(slab, 1);
        own_partial(slabs, slab);
    }
    return purged_bytes;
}

/* Of the last full slab. One that keeps its pages, and has too little to be woken, stays full. */
static size_t trim_full(struct class_slabs *slabs)
{
    struct granule *slab = slabs->full.last;
    hmm_thread_part_full(slabs, slab);
    if (slab->need == 0) {
        hmm_slab_release(slab);
        return 0;
    }
    size_t purged_bytes = hmm_slab_purge(slab, 1);
    const uint32_t unawaited_slots = slab_unawaited_slots(slab);
    if (slab_away(slab) == 0 && slab->need > unawaited_slots) {
        slab->need -= unawaited_slots;
        slab_own(&slabs->full, slab, SLAB_FULL);
    } else {
        own_partial(slabs, slab);
    }
    return purged_bytes;
}

/* Slabs that were looked at go to the front of a list: each is looked at once. */
static size_t class_trim(struct thread *thread, unsigned size_class, size_t budget_bytes)
{
    struct class_slabs *slabs = &thread->classes[size_class];
    size_t purged_bytes = 0;
    trim_current(slabs);
    for (uint32_t left = slabs->thin.count; left > 0 && purged_bytes < budget_bytes; left--) {
        purged_bytes += trim_partial(slabs, &slabs->thin);
    }
    for (uint32_t left = slabs->partial.count; left > 0 && purged_bytes < budget_bytes; left--) {
        purged_bytes += trim_partial(slabs, &slabs->partial);
    }
    for (uint32_t left = slabs->full.count; left > 0 && purged_bytes < budget_bytes; left--) {
        purged_bytes += trim_full(slabs);
    }
    hmm_thread_bound_slabs(slabs);
    return purged_bytes;
}

size_t hmm_thread_trim(struct thread *thread, size_t budget_bytes)
{
    size_t purged_bytes = 0;
    if (!thread_is_open(thread)) {
        return 0;
    }
    thread_set_busy(thread, true);
    for (unsigned size_class = 0; size_class < CLASS_COUNT && purged_bytes < budget_bytes;
         size_class++) {
        purged_bytes += class_trim(thread, size_class, budget_bytes - purged_bytes);
    }
    thread_set_busy(thread, false);
    return purged_bytes;
}

void hmm_thread_purge_excess(struct thread *thread)
{
    if (thread_is_open(thread)) {
        thread_set_busy(thread, true);
        purge_loose(thread, thread->classes, LOOSE_LOOKS_MANY);
        thread_set_busy(thread, false);
    } else {
        hmm_remote_purge(0, LOOSE_LOOKS_MANY);
    }
}

/* ------------------------------------------------------------ a thread ends, and another begins */

/* Full slabs go to sleep, and a current one that is seen to be empty goes back. */
static void class_end(struct class_slabs *slabs, struct slot **bin)
{
    if (slabs->current != NULL) {
        slab_tighten(slabs->current);
        if (slabs->current->slot_bytes >= COUNTED_BYTES_MIN) {
            slabs_put_back(slabs, bin);
        }
        hmm_remote_collect(slabs->current);
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

void hmm_thread_retire_slabs(struct thread *thread)
{
    for (unsigned size_class = 0; size_class < CLASS_COUNT; size_class++) {
        class_end(&thread->classes[size_class], &thread->bins[size_class]);
        class_restamp(&thread->classes[size_class], OWNER_DORMANT);
        thread->kept_bins[size_class] = thread->bins[size_class];
        thread->bins[size_class] = NULL;
    }
}

void hmm_thread_claim_slabs(struct thread *thread)
{
    for (unsigned size_class = 0; size_class < CLASS_COUNT; size_class++) {
        class_restamp(&thread->classes[size_class], thread->self);
        thread->bins[size_class] = thread->kept_bins[size_class];
        thread->kept_bins[size_class] = NULL;
    }
}

void hmm_thread_put_back_kept(struct thread *thread)
{
    for (unsigned size_class = 0; size_class < CLASS_COUNT; size_class++) {
        slabs_put_back(&thread->classes[size_class], &thread->kept_bins[size_class]);
    }
}

static void class_disown(struct class_slabs *slabs)
{
    if (slabs->current != NULL) {
        hmm_thread_disown(slabs->current);
        slabs->current = NULL;
    }
    for (struct granule *slab = slabs_any_partial(slabs); slab != NULL;
         slab = slabs_any_partial(slabs)) {
        slabs_part(slabs, slab);
        hmm_thread_disown(slab);
    }
}

void hmm_thread_disown_slabs(struct thread *thread)
{
    hmm_thread_put_back_kept(thread);
    for (unsigned size_class = 0; size_class < CLASS_COUNT; size_class++) {
        class_disown(&thread->classes[size_class]);
    }
}
