/*
 * check.c - every invariant of the heap, checked from outside on a copy: the tables of the fast
 * engine, and what is made of one look or more. Tagged blocks are checked in check_blocks.c.
 *
 * The names are those of arena.h (A), slab.h (S), thread.h (T), remote.h (R), block.h (B), fit.h
 * (F), zone.h (Z), shard.h (M), shelf.h (K) and heap.h (H). What a thread is changing right now is
 * left out: a core may have been taken in the middle of it.
 */
#include "invariants.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum {
    /* With half as many, and a third of the two below and in copy.c, 35 of 60 checks of a process
     * that never rests saw it whole; with these 56 did. */
    COPY_TRIES_MAX = 8,
    /* At a part that changes while it is read, in one look. */
    PART_TRIES_MAX = 12,
    /* A part is called broken when so many looks in a row saw the same, and it did
     * not change meanwhile. */
    STEADY_LOOKS = 6,
    LOOKS_MAX = 168,
    /* The first pauses are short: most changes are over at once. Later ones are long enough for a
     * thread that waits for a processor in the middle of a change to get one. With 24 short ones of
     * 48 in all 53 of 80 checks of a hardened process that never rests saw it whole, with these 72,
     * in 0.9 s each. */
    SHORT_PAUSES = 144,
    SHORT_PAUSE_NS = 1000 * 1000,
    LONG_PAUSE_NS = 50 * 1000 * 1000,
};

bool check_broken(struct check *check, const char *format, ...)
{
    if (!check->is_broken) {
        va_list arguments;
        va_start(arguments, format);
        vsnprintf(check->text, CHECK_TEXT_MAX, format, arguments);
        va_end(arguments);
        check->is_broken = true;
    }
    return false;
}

static size_t start_of(const struct check *check, size_t index)
{
    return copy_granule_start(check->copy, index);
}

/* ------------------------------------------------------------------------------------ the arena */

/* What is on its way back to the arena may be hidden before it is free, as a fence or a
 * large block was. */
static bool may_be_hidden(const struct granule *granule)
{
    return granule->kind == GRANULE_FREE || granule->kind == GRANULE_LARGE ||
           granule->kind == GRANULE_FENCE;
}

/* By the sets of the arena. */
struct granule_counts {
    size_t taken;
    size_t dirty;
    size_t hidden;
};

static bool check_granule(struct check *check, size_t index, struct granule_counts *counts)
{
    const struct copy *copy = check->copy;
    const struct granule *granule = &copy->granules[index];
    bool is_taken = copy_is_taken(copy, index);
    counts->taken += is_taken;
    counts->dirty += !is_taken && copy_is_touched(copy, index);
    counts->hidden += copy_is_hidden(copy, index);
    if (!is_taken && granule->kind != GRANULE_FREE) {
        return check_broken(check, "A5: a free granule has no kind: granule 0x%zx",
                            start_of(check, index));
    }
    if (granule->kind > GRANULE_EMPTY) {
        return check_broken(check, "A5: a granule's kind is one: granule 0x%zx",
                            start_of(check, index));
    }
    if (copy_is_hidden(copy, index) && !may_be_hidden(granule)) {
        return check_broken(check, "A6: what is hidden is free: granule 0x%zx",
                            start_of(check, index));
    }
    return true;
}

static bool check_arena(struct check *check)
{
    const struct copy *copy = check->copy;
    const struct arena *arena = &copy->arena;
    struct granule_counts counts = {0};
    if (arena->frontier_count > arena->committed_count ||
        arena->committed_count > arena->granule_count) {
        return check_broken(check, "A2: the frontier lies within what is committed");
    }
    if (arena->table_committed_count < arena->frontier_count) {
        return check_broken(check, "A3: every granule has a descriptor");
    }
    for (size_t index = 0; index < arena->frontier_count; index++) {
        if (!check_granule(check, index, &counts)) {
            return false;
        }
    }
    size_t above = arena->frontier_count % WORD_BITS;
    size_t last = arena->frontier_count / WORD_BITS;
    if (((copy->sets[last].taken | copy->sets[last].touched) >> above) != 0) {
        return check_broken(check, "A1: nothing at the frontier is taken or touched");
    }
    if (copy->sets[last].hidden >> above != 0) {
        return check_broken(check, "A6: what is hidden lies below the frontier");
    }
    if (counts.taken != arena->taken_count || counts.dirty != arena->dirty_count) {
        return check_broken(check,
                            "A4: the counters agree with the sets: %zu taken and %zu dirty, "
                            "counted %zu and %zu",
                            counts.taken, counts.dirty, (size_t)arena->taken_count,
                            (size_t)arena->dirty_count);
    }
    if (counts.hidden != arena->hidden_count) {
        return check_broken(check, "A6: the counter agrees with the set: %zu hidden, counted %zu",
                            counts.hidden, arena->hidden_count);
    }
    return true;
}

/* ---------------------------------------------------------------------------------------- slabs */

static bool check_slots(struct check *check, size_t index)
{
    static uint8_t states[SLOTS_MAX];
    const char *found = NULL;
    if (copy_slot_states(check->reader, check->copy, index, states, &found)) {
        return true;
    }
    check->suspect = index;
    return check_broken(check, "%s: slab 0x%zx of class %zu", found, start_of(check, index),
                        class_bytes((unsigned)copy_class(&check->copy->granules[index])));
}

/* One slab of a list; `owner` 0: nobody's. */
static bool check_slab(struct check *check, size_t index, size_t size_class, uintptr_t owner,
                       enum slab_state state)
{
    const struct granule *slab = &check->copy->granules[index];
    if (slab->kind != GRANULE_SLAB || slab->owner != owner) {
        return check_broken(check, "S2: a thread owns the slabs on its lists: slab 0x%zx",
                            start_of(check, index));
    }
    if (slab->size_class != size_class || slab->state != state) {
        return check_broken(check, "S2: a slab is of its list's class and state: slab 0x%zx",
                            start_of(check, index));
    }
    bool is_carved = copy_carved(slab) == class_capacity((unsigned)size_class) && slab->away == 0;
    if (state == SLAB_FULL && !is_carved) {
        return check_broken(check,
                            "S3: a full slab is carved to its end, and nothing is away: slab 0x%zx",
                            start_of(check, index));
    }
    if (check->listed[index]++ != 0) {
        return check_broken(check, "S2: a slab is on one list: slab 0x%zx", start_of(check, index));
    }
    return true;
}

/* A list of slabs from its first descriptor on. `count_wanted` SIZE_MAX: it does not say. */
static bool check_slab_list(struct check *check, const struct granule *first, size_t count_wanted,
                            size_t size_class, uintptr_t owner, enum slab_state state)
{
    const struct granule *prev = NULL;
    size_t count = 0;
    for (const struct granule *at = first; at != NULL; count++) {
        size_t index = copy_granule_index(check->copy, at);
        if (index == SIZE_MAX || count > check->copy->arena.frontier_count) {
            return check_broken(check, "S2: a list of slabs leads to slabs: class %zu, link 0x%zx",
                                class_bytes((unsigned)size_class), (size_t)(uintptr_t)at);
        }
        if (!check_slab(check, index, size_class, owner, state)) {
            return false;
        }
        if (check->copy->granules[index].prev != prev) {
            return check_broken(check, "S2: a damaged list of slabs: slab 0x%zx",
                                start_of(check, index));
        }
        prev = at;
        at = check->copy->granules[index].next;
    }
    if (count_wanted != SIZE_MAX && count != count_wanted) {
        return check_broken(check, "S2: a list knows its length: class %zu",
                            class_bytes((unsigned)size_class));
    }
    return true;
}

static bool check_thread(struct check *check, const struct thread_copy *thread)
{
    const uintptr_t owner = thread->standing == THREAD_LIVE ? thread->thread.self : OWNER_DORMANT;
    for (size_t i = 0; i < CLASS_COUNT; i++) {
        const struct class_slabs *slabs = &thread->thread.classes[i];
        if (!check_slab_list(check, slabs->partial.first, slabs->partial.count, i, owner,
                             SLAB_PARTIAL) ||
            !check_slab_list(check, slabs->thin.first, slabs->thin.count, i, owner, SLAB_THIN) ||
            !check_slab_list(check, slabs->full.first, slabs->full.count, i, owner, SLAB_FULL)) {
            return false;
        }
        if (slabs->current == NULL) {
            if (thread->bins[i] != 0) {
                return check_broken(check, "T2: a bin holds slots of the current slab: class %zu",
                                    class_bytes((unsigned)i));
            }
            continue;
        }
        size_t index = copy_granule_index(check->copy, slabs->current);
        if (index == SIZE_MAX) {
            return check_broken(check, "S2: a current slab is one: class %zu",
                                class_bytes((unsigned)i));
        }
        if (!check_slab(check, index, i, owner, SLAB_CURRENT)) {
            return false;
        }
    }
    return true;
}

/* One of the two lists of a class. */
static bool check_woken_list(struct check *check, const struct granule *first, size_t size_class,
                             bool is_loose)
{
    if (!check_slab_list(check, first, SIZE_MAX, size_class, 0, SLAB_SHARED)) {
        return false;
    }
    for (const struct granule *at = first; at != NULL;) {
        size_t index = copy_granule_index(check->copy, at);
        const struct granule *slab = &check->copy->granules[index];
        if (slab->remote >> REMOTE_STATE_SHIFT != REMOTE_WOKEN + size_class ||
            (slab->loose_slots != 0) != is_loose || slab->floor_slots != 0) {
            return check_broken(check,
                                "R4: a slab on one of the class's lists is woken: slab 0x%zx",
                                start_of(check, index));
        }
        if (slab->threshold > slab->need) {
            return check_broken(check, "R6: a woken slab's need bounds its threshold: slab 0x%zx",
                                start_of(check, index));
        }
        at = slab->next;
    }
    return true;
}

static bool check_woken(struct check *check)
{
    for (size_t i = 0; i < CLASS_COUNT; i++) {
        const struct woken *woken = &check->copy->woken[i];
        if (!check_woken_list(check, woken->first, i, false) ||
            !check_woken_list(check, woken->loose, i, true)) {
            return false;
        }
    }
    return true;
}

/* Whether the slab's owner is inside a slow path, and its lists may disagree. */
static bool is_busy(const struct copy *copy, uintptr_t owner)
{
    size_t index = copy_owner_index(copy, owner);
    return index != SIZE_MAX && copy_flag(&copy->threads[index].thread.is_busy);
}

/* Each slab by itself, and that lists have missed none. */
static bool check_all_slabs(struct check *check, bool is_anybody_busy)
{
    const struct copy *copy = check->copy;
    for (size_t index = 0; index < copy->arena.frontier_count; index++) {
        const struct granule *slab = &copy->granules[index];
        if (slab->kind != GRANULE_SLAB || is_busy(copy, slab->owner)) {
            continue;
        }
        if (slab->size_class >= CLASS_COUNT || slab->state > SLAB_SHARED ||
            slab->carved_slots > class_capacity(slab->size_class)) {
            return check_broken(check, "S1: a slab carves no more slots than it has: slab 0x%zx",
                                start_of(check, index));
        }
        bool is_asleep = remote_state(slab->remote) == REMOTE_ASLEEP;
        if (is_asleep && (slab->owner != 0 || check->listed[index] != 0)) {
            return check_broken(check,
                                "R1: a sleeping slab is nobody's, and on no list: slab 0x%zx",
                                start_of(check, index));
        }
        if (!is_asleep && !is_anybody_busy && check->listed[index] == 0) {
            return check_broken(check, "T1: every slab that is awake is on a list: slab 0x%zx",
                                start_of(check, index));
        }
        if (!check_slots(check, index)) {
            return false;
        }
    }
    return true;
}

static bool check_slabs(struct check *check)
{
    const struct copy *copy = check->copy;
    bool is_anybody_busy = false;
    for (size_t i = 0; i < copy->thread_count; i++) {
        const struct thread_copy *thread = &copy->threads[i];
        if (thread->standing == THREAD_UNUSED) {
            continue;
        }
        if (copy_flag(&thread->thread.is_busy)) {
            is_anybody_busy = true;
        } else if (!check_thread(check, thread)) {
            return false;
        }
    }
    return check_woken(check) && check_all_slabs(check, is_anybody_busy);
}

bool check_tables(struct check *check)
{
    if (check->copy->trouble != NULL) {
        return check_broken(check, "%s", check->copy->trouble);
    }
    return check->copy->engine != ENGINE_FAST || (check_arena(check) && check_slabs(check));
}

/* --------------------------------------------------------------------------------------- a part */

enum heap_part { PART_TABLES, PART_SHARD, PART_HEAP };

enum part_result { PART_HOLDS, PART_BROKEN, PART_CHANGING };

static bool is_held(const struct lock *lock)
{
    return atomic_load_explicit(&lock->state, memory_order_relaxed) != LOCK_FREE;
}

/* By the lock of the heap or, where the caller guards it, by what is noted beside that. */
static bool is_heap_held(const HmmHeap *handle)
{
    return handle->locking == HANDLE_LOCK_OWN ? is_held(&handle->lock)
                                              : copy_flag((const void *)&handle->lock.is_inside);
}

static bool are_tables_held(const struct copy *copy)
{
    bool is_any_held = is_held(&copy->arena.lock);
    for (size_t i = 0; i < CLASS_COUNT; i++) {
        is_any_held |= is_held(&copy->woken[i].lock);
    }
    return is_any_held;
}

static bool tables_are_steady(const struct check *check)
{
    bool is_same = check->suspect == SIZE_MAX ||
                   copy_granule_is_current(check->reader, check->copy, check->suspect);
    return is_same && !are_tables_held(check->copy) &&
           copy_tables_are_current(check->reader, check->copy);
}

static bool shard_is_steady(const struct check *check, size_t shard)
{
    return !is_held(&check->copy->shards[shard].lock) &&
           copy_shard_is_current(check->reader, check->copy, shard);
}

static bool heap_is_steady(const struct check *check, size_t heap)
{
    return !is_heap_held(&check->copy->heaps[heap].handle) &&
           copy_heap_is_current(check->reader, check->copy, heap);
}

/* Whether everything holds in a part, `index` of its kind. */
static bool part_holds(struct check *check, enum heap_part part, size_t index)
{
    switch (part) {
    case PART_SHARD:
        return copy_refresh_shard(check->reader, check->copy, index) && check_shard(check, index);
    case PART_HEAP:
        return copy_refresh_heap(check->reader, check->copy, index) && check_heap(check, index);
    default:
        return check_tables(check);
    }
}

static bool part_is_steady(const struct check *check, enum heap_part part, size_t index)
{
    return part == PART_SHARD  ? shard_is_steady(check, index)
           : part == PART_HEAP ? heap_is_steady(check, index)
                               : tables_are_steady(check);
}

/* Tables are copied once a look, and so looked at once. */
static enum part_result part_check(struct check *check, enum heap_part part, size_t index)
{
    const int tries_max = part == PART_TABLES ? 1 : PART_TRIES_MAX;
    for (int tries = 0; tries < tries_max; tries++) {
        check->is_broken = false;
        check->suspect = SIZE_MAX;
        if (part_holds(check, part, index)) {
            return PART_HOLDS;
        }
        if (check->is_broken && part_is_steady(check, part, index)) {
            return PART_BROKEN;
        }
    }
    return PART_CHANGING;
}

/* --------------------------------------------------------------------------------------- a look */

/* The parts that have been seen whole. Each of them once is enough. */
struct progress {
    bool has_tables;
    bool has_shard[SHARD_COUNT_MAX];
    uintptr_t *heaps; /* their addresses */
    size_t heap_count;
};

static bool has_heap(const struct progress *progress, uintptr_t address)
{
    for (size_t i = 0; i < progress->heap_count; i++) {
        if (progress->heaps[i] == address) {
            return true;
        }
    }
    return false;
}

static bool part_is_done(const struct progress *progress, const struct copy *copy,
                         enum heap_part part, size_t index)
{
    return part == PART_SHARD  ? progress->has_shard[index]
           : part == PART_HEAP ? has_heap(progress, copy->heaps[index].address)
                               : progress->has_tables;
}

static void part_done(struct progress *progress, const struct copy *copy, enum heap_part part,
                      size_t index)
{
    if (part == PART_SHARD) {
        progress->has_shard[index] = true;
    } else if (part == PART_HEAP) {
        progress->heaps =
            must_grow(progress->heaps, progress->heap_count + 1, sizeof *progress->heaps);
        progress->heaps[progress->heap_count++] = copy->heaps[index].address;
    } else {
        progress->has_tables = true;
    }
}

/* What one look has found: the worst of its parts. */
struct look {
    enum part_result result;
    char text[CHECK_TEXT_MAX];
};

/* Parts of a kind, but for those that were seen whole before. What is broken counts for more
 * than what changes. */
static void parts_look(struct check *check, enum heap_part part, size_t count,
                       struct progress *progress, struct look *look)
{
    for (size_t i = 0; i < count && look->result != PART_BROKEN; i++) {
        if (part_is_done(progress, check->copy, part, i)) {
            continue;
        }
        enum part_result result = part_check(check, part, i);
        if (result == PART_HOLDS) {
            part_done(progress, check->copy, part, i);
        } else {
            look->result = result;
            memcpy(look->text, check->text, sizeof look->text);
        }
    }
}

/* false: the target has gone. */
static bool look_at(struct reader *reader, struct progress *progress, struct look *look,
                    bool *has_changed)
{
    struct copy copy;
    *look = (struct look){PART_HOLDS, ""};
    if (!copy_take(reader, &copy, COPY_TRIES_MAX)) {
        return false;
    }
    struct check check = {
        .reader = reader,
        .copy = &copy,
        .listed = must_allocate(copy.arena.frontier_count, sizeof *check.listed),
    };
    *has_changed |= copy.has_changed;
    parts_look(&check, PART_TABLES, 1, progress, look);
    if (copy.engine == ENGINE_FAST) {
        parts_look(&check, PART_SHARD, SHARD_COUNT_MAX, progress, look);
    }
    parts_look(&check, PART_HEAP, copy.heap_count, progress, look);
    free(check.listed);
    copy_free(&copy);
    return true;
}

static void look_away(int looks)
{
    const struct timespec pause = {0, looks < SHORT_PAUSES ? SHORT_PAUSE_NS : LONG_PAUSE_NS};
    (void)nanosleep(&pause, NULL);
}

/* Looks until every part was seen whole, or one is surely broken. A target that does not run is
 * looked at once. */
static enum check_result looks_take(struct reader *reader, struct progress *progress,
                                    char text[CHECK_TEXT_MAX], bool *has_changed)
{
    struct look look;
    int steady = 0;
    for (int looks = 0; looks < LOOKS_MAX && steady < STEADY_LOOKS; looks++) {
        if (looks != 0) {
            *has_changed = true;
            look_away(looks);
        }
        if (!look_at(reader, progress, &look, has_changed)) {
            return CHECK_UNREADABLE;
        }
        if (look.result == PART_HOLDS) {
            return CHECK_HOLDS;
        }
        bool is_again = look.result == PART_BROKEN && strcmp(look.text, text) == 0;
        steady = look.result != PART_BROKEN ? 0 : is_again ? steady + 1 : 1;
        memcpy(text, look.text, sizeof look.text);
        if (reader->kind != READER_PROCESS) {
            bool is_sure = look.result == PART_BROKEN && !reader->is_cut;
            return is_sure ? CHECK_BROKEN : CHECK_UNDECIDED;
        }
    }
    return steady >= STEADY_LOOKS ? CHECK_BROKEN : CHECK_UNDECIDED;
}

enum check_result reader_check(struct reader *reader, char text[CHECK_TEXT_MAX], bool *has_changed)
{
    struct progress progress = {0};
    text[0] = '\0';
    *has_changed = false;
    enum check_result result = looks_take(reader, &progress, text, has_changed);
    free(progress.heaps);
    return result;
}
