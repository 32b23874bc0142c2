/*
 * arena.c - takes and gives granules. See arena.h.
 *
 * One lock guards the two bit sets and the frontier. A search looks at words of 64 granules, 4 MiB,
 * so that even a large heap is a few thousand words, and mostly a hint knows better where to begin.
 */
#include "arena.h"
#include "huge.h"
#include "os.h"
#include "purge.h"

enum {
    /* Below this an arena of granules has too few of them for 56 classes of slots. */
    RESERVE_BYTES_MIN = 32 << 20,
    /* The frontier's memory is made accessible in steps, so that a system call is rare. */
    COMMIT_COUNT_MIN = ARENA_ALIGN_BYTES / GRANULE_BYTES,
    COMMIT_SHARE = 8,
    /* Where the system makes huge pages by itself, it does so on the first touch of 2 MiB that are all
     * accessible: up to here they are made accessible by halves. */
    SMALL_COUNT = (8 << 20) / GRANULE_BYTES,
    SMALL_COMMIT_COUNT = COMMIT_COUNT_MIN / 2,
    TABLE_COMMIT_COUNT = 512, /* 64 KiB of table */
    /* The library's own memory: one part in so many of the arena, and at most so much. */
    METADATA_SHARE = 16,
    METADATA_BYTES_MAX = 256 << 20,
    METADATA_STEP_BYTES = 64 * 1024,
    /* No address that the table could be reached from by an overflow. */
    GUARD_BYTES = 64 * 1024,
    PURGE_BYTES_A_CALL = 1 << 20,
    PURGE_COUNT_A_CALL = PURGE_BYTES_A_CALL / GRANULE_BYTES,
    /* A free may give back so many times what it frees: with less, the last one of a process left 15 MiB of
     * `large` behind (docs/experiments.md). */
    PURGE_FREED_SHARE = 8,
    /* The frontier comes down when that frees half of what is committed, and 16 MiB at least. */
    LOWER_SHARE = 2,
    LOWER_COUNT_MIN = 256,
    /* Of one call. */
    REFUSALS_MAX = 4,
};

#define NOT_FOUND SIZE_MAX

struct arena hmm_arena = {.lock = LOCK_INITIALIZER(LOCK_RANK_ARENA)};

/* ------------------------------------------------------------------------------- the bit sets */

enum set { SET_FREE, SET_DIRTY };

static uint64_t word_load(const _Atomic uint64_t *words, size_t word)
{
    return atomic_load_explicit(&words[word], memory_order_relaxed);
}

static void word_store(_Atomic uint64_t *words, size_t word, uint64_t value)
{
    atomic_store_explicit(&words[word], value, memory_order_relaxed);
}

/* Of the granules of one word those that are in the set. The frontier bounds them all. */
static uint64_t set_word(enum set set, size_t word)
{
    uint64_t free = ~word_load(hmm_arena.taken, word);
    if (set == SET_DIRTY) {
        return free & word_load(hmm_arena.touched, word);
    }
    size_t first = word * WORD_BITS;
    size_t below = hmm_arena.frontier_count - size_min(first, hmm_arena.frontier_count);
    return below >= WORD_BITS ? free : free & (((uint64_t)1 << below) - 1);
}

static size_t word_count(void)
{
    return (hmm_arena.frontier_count + WORD_BITS - 1) / WORD_BITS;
}

/* The granules of [index, index + count) that lie in one word. */
static uint64_t word_mask(size_t word, size_t index, size_t count)
{
    size_t first = word * WORD_BITS;
    size_t from = index > first ? index - first : 0;
    size_t to = size_min(index + count - first, WORD_BITS);
    uint64_t below_to = to == WORD_BITS ? UINT64_MAX : ((uint64_t)1 << to) - 1;
    return below_to & ~(((uint64_t)1 << from) - 1);
}

static size_t word_lowest(uint64_t bits)
{
    return (size_t)__builtin_ctzll(bits);
}

static size_t counter(const _Atomic size_t *value)
{
    return atomic_load_explicit(value, memory_order_relaxed);
}

static void counter_set(_Atomic size_t *value, size_t to)
{
    atomic_store_explicit(value, to, memory_order_relaxed);
}

/* Takes free granules. Returns how many of them lie below `old_frontier` and are untouched: memory
 * that had been given back. */
static size_t set_taken(size_t index, size_t count, size_t old_frontier)
{
    size_t dirty_count = 0;
    for (size_t word = index / WORD_BITS; word * WORD_BITS < index + count; word++) {
        uint64_t mask = word_mask(word, index, count);
        uint64_t taken = word_load(hmm_arena.taken, word);
        ASSERT((taken & mask) == 0);
        word_store(hmm_arena.taken, word, taken | mask);
        dirty_count += bit_count(word_load(hmm_arena.touched, word) & mask);
    }
    counter_set(&hmm_arena.dirty_count, counter(&hmm_arena.dirty_count) - dirty_count);
    counter_set(&hmm_arena.taken_count, counter(&hmm_arena.taken_count) + count);
    counter_set(&hmm_arena.taken_count_max,
                size_max(counter(&hmm_arena.taken_count_max), counter(&hmm_arena.taken_count)));
    size_t old_count = index < old_frontier ? size_min(count, old_frontier - index) : 0;
    return old_count - size_min(old_count, dirty_count);
}

/* Frees taken granules, of which the first so many are touched from now on. */
static void set_free(size_t index, size_t count, size_t touched_count)
{
    size_t dirty_count = 0;
    for (size_t word = index / WORD_BITS; word * WORD_BITS < index + count; word++) {
        uint64_t mask = word_mask(word, index, count);
        uint64_t taken = word_load(hmm_arena.taken, word);
        ASSERT((taken & mask) == mask);
        word_store(hmm_arena.taken, word, taken & ~mask);
        uint64_t touched = word_load(hmm_arena.touched, word);
        if (word * WORD_BITS < index + touched_count) {
            touched |= word_mask(word, index, touched_count);
            word_store(hmm_arena.touched, word, touched);
        }
        dirty_count += bit_count(touched & mask);
    }
    counter_set(&hmm_arena.taken_count, counter(&hmm_arena.taken_count) - count);
    counter_set(&hmm_arena.dirty_count, counter(&hmm_arena.dirty_count) + dirty_count);
    hmm_arena.free_hint = size_min(hmm_arena.free_hint, index / WORD_BITS);
    hmm_arena.dirty_low_hint = size_min(hmm_arena.dirty_low_hint, index / WORD_BITS);
    hmm_arena.dirty_high_hint =
        size_max(hmm_arena.dirty_high_hint, (index + count - 1) / WORD_BITS);
}

static void set_untouched(size_t index, size_t count)
{
    for (size_t word = index / WORD_BITS; word * WORD_BITS < index + count; word++) {
        uint64_t touched = word_load(hmm_arena.touched, word);
        word_store(hmm_arena.touched, word, touched & ~word_mask(word, index, count));
    }
}

/* --------------------------------------------------------------------------------- searching */

/* The lowest granule of the set from *hint on, which moves up. */
static size_t find_one(enum set set, size_t *hint)
{
    for (size_t word = *hint; word < word_count(); word++) {
        uint64_t bits = set_word(set, word);
        if (bits != 0) {
            *hint = word;
            return word * WORD_BITS + word_lowest(bits);
        }
    }
    *hint = word_count();
    return NOT_FOUND;
}

/* Adjacent granules of the set, seen so far. */
struct stretch {
    size_t start;
    size_t count;
};

/* The lowest run of `count` granules of the set whose first is aligned. */
static size_t find_run(enum set set, size_t hint, size_t count, size_t align_count)
{
    struct stretch stretch = {0, 0};
    for (size_t word = hint; word < word_count(); word++) {
        uint64_t bits = set_word(set, word);
        size_t position = 0;
        while (position < WORD_BITS) {
            uint64_t rest = bits >> position;
            if ((rest & 1) == 0) {
                stretch.count = 0;
                position = rest == 0 ? WORD_BITS : position + word_lowest(rest);
                continue;
            }
            size_t length = ~rest == 0 ? WORD_BITS : word_lowest(~rest);
            length = size_min(length, WORD_BITS - position);
            stretch.start = stretch.count == 0 ? word * WORD_BITS + position : stretch.start;
            stretch.count += length;
            position += length;
            size_t start = align_up(stretch.start, align_count);
            if (start + count <= stretch.start + stretch.count) {
                return start;
            }
        }
    }
    return NOT_FOUND;
}

static bool is_free_and_untouched(size_t index)
{
    uint64_t bit = (uint64_t)1 << index % WORD_BITS;
    return ((word_load(hmm_arena.taken, index / WORD_BITS) |
             word_load(hmm_arena.touched, index / WORD_BITS)) &
            bit) == 0;
}

/* The free and untouched granules that end at the frontier begin here. */
static size_t untouched_tail(void)
{
    size_t index = hmm_arena.frontier_count;
    while (index > 0 && is_free_and_untouched(index - 1)) {
        size_t word = index / WORD_BITS - 1;
        bool is_whole_word = index % WORD_BITS == 0 && (word_load(hmm_arena.taken, word) |
                                                        word_load(hmm_arena.touched, word)) == 0;
        index -= is_whole_word ? WORD_BITS : 1;
    }
    return index;
}

/* The free granules that end at the frontier begin here. */
static size_t frontier_tail(void)
{
    size_t index = hmm_arena.frontier_count;
    while (index > 0 &&
           (set_word(SET_FREE, (index - 1) / WORD_BITS) >> (index - 1) % WORD_BITS & 1) != 0) {
        index--;
    }
    return index;
}

/* -------------------------------------------------------------------------------- committing */

static bool table_commit(size_t frontier_count)
{
    if (frontier_count <= hmm_arena.table_committed_count) {
        return true;
    }
    const size_t old_count = hmm_arena.table_committed_count;
    size_t count = align_up(frontier_count, TABLE_COMMIT_COUNT);
    bool is_done =
        hmm_os_commit(&hmm_arena.table[old_count], (count - old_count) * sizeof(struct granule));
    if (is_done) {
        hmm_arena.table_committed_count = count;
    }
    return is_done;
}

static bool range_commit_to(size_t count)
{
    const size_t old_count = hmm_arena.committed_count;
    bool is_done = hmm_os_commit((void *)(hmm_arena.base + (old_count << GRANULE_SHIFT)),
                                 (count - old_count) << GRANULE_SHIFT);
    if (is_done) {
        hmm_arena.committed_count = count;
    }
    return is_done;
}

/* A large step if the system agrees, else what is needed. */
static bool range_commit(size_t frontier_count)
{
    const size_t old_count = hmm_arena.committed_count;
    if (frontier_count <= old_count) {
        return true;
    }
    size_t least_count = frontier_count <= SMALL_COUNT ? SMALL_COMMIT_COUNT : COMMIT_COUNT_MIN;
    size_t step_count = size_max(least_count, old_count / COMMIT_SHARE);
    size_t wanted_count = align_up(size_max(frontier_count, old_count + step_count), least_count);
    wanted_count = size_min(wanted_count, hmm_arena.granule_count);
    bool is_done = range_commit_to(wanted_count) ||
                   (wanted_count > frontier_count && range_commit_to(frontier_count));
    if (!is_done) {
        atomic_store_explicit(&hmm_arena.was_refused, true, memory_order_relaxed);
    }
    return is_done;
}

/* Moves the frontier so that `count` granules fit from an aligned one on. */
static size_t take_at_frontier(size_t count, size_t align_count)
{
    size_t start = align_up(count == 1 ? hmm_arena.frontier_count : frontier_tail(), align_count);
    if (start > hmm_arena.granule_count || count > hmm_arena.granule_count - start ||
        !table_commit(start + count) || !range_commit(start + count)) {
        return NOT_FOUND;
    }
    if (start > hmm_arena.frontier_count) {
        hmm_arena.free_hint = size_min(hmm_arena.free_hint, hmm_arena.frontier_count / WORD_BITS);
    }
    hmm_arena.frontier_count = start + count;
    return start;
}

/* ------------------------------------------------------------------------------ take and give */

static size_t take_index(size_t count, size_t align_count)
{
    size_t index = NOT_FOUND;
    if (count == 1 && align_count == 1) {
        if (counter(&hmm_arena.dirty_count) > 0) {
            index = find_one(SET_DIRTY, &hmm_arena.dirty_low_hint);
        }
        if (index == NOT_FOUND && counter(&hmm_arena.taken_count) < hmm_arena.frontier_count) {
            index = find_one(SET_FREE, &hmm_arena.free_hint);
        }
        return index;
    }
    if (counter(&hmm_arena.dirty_count) >= count) {
        index = find_run(SET_DIRTY, hmm_arena.dirty_low_hint, count, align_count);
    }
    if (index == NOT_FOUND && hmm_arena.frontier_count - counter(&hmm_arena.taken_count) >= count) {
        index = find_run(SET_FREE, hmm_arena.free_hint, count, align_count);
    }
    return index;
}

struct granule *hmm_arena_take(size_t count, size_t align_count)
{
    hmm_lock_acquire(&hmm_arena.lock);
    size_t old_frontier = hmm_arena.frontier_count;
    size_t index = count <= hmm_arena.granule_count ? take_index(count, align_count) : NOT_FOUND;
    if (index == NOT_FOUND) {
        index = take_at_frontier(count, align_count);
    }
    size_t regret_count = index != NOT_FOUND ? set_taken(index, count, old_frontier) : 0;
    hmm_lock_release(&hmm_arena.lock);
    hmm_purge_note_live();
    if (index == NOT_FOUND) {
        return NULL;
    }
    if (index + count > old_frontier) {
        hmm_huge_consider(index, count);
    }
    hmm_arena.table[index].is_populated =
        index >= old_frontier && index < counter(&hmm_arena.populated_count);
    if (regret_count != 0) {
        hmm_purge_regret(regret_count << GRANULE_SHIFT);
    }
    return &hmm_arena.table[index];
}

bool hmm_arena_extend(struct granule *first, size_t count, size_t more_count)
{
    size_t start = granule_index(first) + count;
    bool is_done = false;
    size_t regret_count = 0;
    hmm_lock_acquire(&hmm_arena.lock);
    size_t old_frontier = hmm_arena.frontier_count;
    size_t end = start + more_count;
    bool is_free = more_count <= hmm_arena.granule_count - start;
    for (size_t word = start / WORD_BITS; is_free && word * WORD_BITS < size_min(end, old_frontier);
         word++) {
        is_free = (word_load(hmm_arena.taken, word) & word_mask(word, start, more_count)) == 0;
    }
    if (is_free && (end <= old_frontier || (table_commit(end) && range_commit(end)))) {
        hmm_arena.frontier_count = size_max(old_frontier, end);
        regret_count = set_taken(start, more_count, old_frontier);
        is_done = true;
    }
    hmm_lock_release(&hmm_arena.lock);
    if (regret_count != 0) {
        hmm_purge_regret(regret_count << GRANULE_SHIFT);
    }
    return is_done;
}

void hmm_arena_give(struct granule *first, size_t count, size_t touched_count)
{
    hmm_lock_acquire(&hmm_arena.lock);
    set_free(granule_index(first), count, touched_count);
    hmm_lock_release(&hmm_arena.lock);
    size_t excess_bytes = hmm_purge_excess_bytes();
    if (UNLIKELY(excess_bytes != 0)) {
        size_t dirty_bytes = hmm_purge_dirty_bytes();
        size_t budget_bytes =
            size_max(PURGE_BYTES_A_CALL, PURGE_FREED_SHARE * (count << GRANULE_SHIFT));
        (void)hmm_arena_purge(dirty_bytes - size_min(dirty_bytes, excess_bytes), budget_bytes);
    }
}

void hmm_arena_give_zero(struct granule *first, size_t count)
{
    hmm_lock_acquire(&hmm_arena.lock);
    set_untouched(granule_index(first), count);
    set_free(granule_index(first), count, 0);
    hmm_lock_release(&hmm_arena.lock);
}

/* On their way are granules that are taken, have no kind, and lie in no large run, nor in one that was
 * freed and waits between fences. */
void hmm_arena_reclaim(void)
{
    size_t index = 0;
    while (index < hmm_arena.frontier_count) {
        const struct granule *granule = &hmm_arena.table[index];
        uint64_t taken = word_load(hmm_arena.taken, index / WORD_BITS) >> index % WORD_BITS;
        size_t count = 1;
        enum granule_kind kind = granule_kind(granule);
        if (kind == GRANULE_LARGE || kind == GRANULE_FENCE) {
            count = size_max(granule->run.granule_count, 1);
        } else if ((taken & 1) != 0 && kind == GRANULE_FREE) {
            set_free(index, 1, 1);
        }
        index += count;
    }
}

/* ----------------------------------------------------------------------------------- purging */

/* The highest dirty granules, adjacent within one word and `count_max` at most. */
static struct stretch highest_dirty(size_t count_max)
{
    size_t word = size_min(hmm_arena.dirty_high_hint + 1, word_count());
    uint64_t bits = 0;
    while (word > 0 && bits == 0) {
        word--;
        bits = set_word(SET_DIRTY, word);
    }
    hmm_arena.dirty_high_hint = word;
    if (bits == 0) {
        return (struct stretch){0, 0};
    }
    size_t top = (size_t)(WORD_BITS - 1 - __builtin_clzll(bits));
    uint64_t above_ones = ~bits << (WORD_BITS - 1 - top);
    size_t length = above_ones == 0 ? top + 1 : (size_t)__builtin_clzll(above_ones);
    length = size_min(size_min(length, top + 1), count_max);
    return (struct stretch){word * WORD_BITS + top + 1 - length, length};
}

/* The granules are nobody's while the system takes their pages. */
static size_t purge_some(size_t count_max)
{
    hmm_lock_acquire(&hmm_arena.lock);
    struct stretch stretch = highest_dirty(count_max);
    if (stretch.count != 0) {
        (void)set_taken(stretch.start, stretch.count, 0);
    }
    hmm_lock_release(&hmm_arena.lock);
    if (stretch.count == 0) {
        return 0;
    }
    bool is_done = hmm_purge_pages(hmm_arena.base + (stretch.start << GRANULE_SHIFT),
                                   stretch.count << GRANULE_SHIFT);
    hmm_lock_acquire(&hmm_arena.lock);
    if (is_done) {
        set_untouched(stretch.start, stretch.count);
    }
    set_free(stretch.start, stretch.count, 0);
    if (!is_done) {
        /* Somebody has locked a page of it: the next look begins below. */
        hmm_arena.dirty_high_hint = stretch.start / WORD_BITS - (stretch.start >= WORD_BITS);
    }
    hmm_lock_release(&hmm_arena.lock);
    return is_done ? stretch.count << GRANULE_SHIFT : 0;
}

bool hmm_arena_wants_back(const struct granule *granule)
{
    size_t index = granule_index(granule);
    return atomic_load_explicit(&hmm_arena.was_refused, memory_order_relaxed) ||
           (index >= LOWER_COUNT_MIN && index / LOWER_SHARE >= counter(&hmm_arena.taken_count));
}

void hmm_arena_note_populated(size_t index, size_t count)
{
    hmm_lock_acquire(&hmm_arena.lock);
    counter_set(&hmm_arena.populated_count,
                size_max(counter(&hmm_arena.populated_count), index + count));
    hmm_lock_release(&hmm_arena.lock);
}

/* Memory above the frontier that huge pages brought, once the heap has shrunk. */
static void drop_populated(void)
{
    size_t frontier = hmm_arena.frontier_count;
    size_t populated = counter(&hmm_arena.populated_count);
    if (populated > frontier &&
        counter(&hmm_arena.taken_count) < counter(&hmm_arena.taken_count_max) / LOWER_SHARE) {
        size_t end = size_min(populated, hmm_arena.committed_count);
        if (end > frontier) {
            (void)hmm_os_purge((void *)(hmm_arena.base + (frontier << GRANULE_SHIFT)),
                               (end - frontier) << GRANULE_SHIFT);
        }
        counter_set(&hmm_arena.populated_count, frontier);
    }
}

/* The frontier comes down over memory that is free and untouched, if that is much: it is accounted to
 * the process even so. Rare enough to be done under the lock. */
static void lower_frontier(void)
{
    hmm_lock_acquire(&hmm_arena.lock);
    size_t index = align_up(untouched_tail(), COMMIT_COUNT_MIN);
    size_t committed = hmm_arena.committed_count;
    size_t worth_count = size_max(LOWER_COUNT_MIN, committed / LOWER_SHARE);
    if (index < committed && committed - index >= worth_count &&
        hmm_os_decommit((void *)(hmm_arena.base + (index << GRANULE_SHIFT)),
                        (committed - index) << GRANULE_SHIFT)) {
        hmm_arena.frontier_count = size_min(hmm_arena.frontier_count, index);
        hmm_arena.committed_count = index;
        hmm_os_name((void *)(hmm_arena.base + (index << GRANULE_SHIFT)),
                    (committed - index) << GRANULE_SHIFT, ARENA_NAME);
    }
    drop_populated();
    hmm_lock_release(&hmm_arena.lock);
}

size_t hmm_arena_purge(size_t keep_bytes, size_t budget_bytes)
{
    size_t purged_bytes = 0;
    int refusals = 0;
    while (purged_bytes < budget_bytes && refusals < REFUSALS_MAX) {
        size_t dirty_bytes = hmm_purge_dirty_bytes();
        if (dirty_bytes <= keep_bytes || counter(&hmm_arena.dirty_count) == 0) {
            break;
        }
        size_t wanted_bytes = size_min(dirty_bytes - keep_bytes, budget_bytes - purged_bytes);
        size_t count = (wanted_bytes + GRANULE_BYTES - 1) >> GRANULE_SHIFT;
        size_t bytes = purge_some(count);
        refusals += bytes == 0;
        purged_bytes += bytes;
    }
    if (purged_bytes != 0) {
        lower_frontier();
    }
    return purged_bytes;
}

/* ----------------------------------------------------------------------------------- opening */

/* Sizes of what lies apart from the blocks: [guard | table | bit sets | metadata | guard]. */
struct layout {
    size_t table_bytes;
    size_t set_bytes;
    size_t metadata_bytes;
    size_t bytes;
};

static struct layout layout_for(size_t arena_bytes)
{
    size_t count = arena_bytes >> GRANULE_SHIFT;
    struct layout layout = {
        .table_bytes =
            align_up(align_up(count, TABLE_COMMIT_COUNT) * sizeof(struct granule), GUARD_BYTES),
        .set_bytes = align_up(count / CHAR_BIT + sizeof(uint64_t), GUARD_BYTES),
        .metadata_bytes = size_min(arena_bytes / METADATA_SHARE, METADATA_BYTES_MAX),
    };
    layout.bytes =
        layout.table_bytes + 2 * layout.set_bytes + layout.metadata_bytes + 2 * GUARD_BYTES;
    return layout;
}

/* Both reservations, or none. */
static bool open_with(size_t arena_bytes)
{
    struct layout layout = layout_for(arena_bytes);
    void *range = hmm_os_reserve(arena_bytes + ARENA_ALIGN_BYTES);
    void *beside = range != NULL ? hmm_os_reserve(layout.bytes) : NULL;
    uintptr_t table = (uintptr_t)beside + GUARD_BYTES;
    uintptr_t sets = table + layout.table_bytes;
    if (beside == NULL || !hmm_os_show((void *)table, layout.table_bytes) ||
        !hmm_os_commit((void *)sets, 2 * layout.set_bytes)) {
        if (beside != NULL) {
            hmm_os_release(beside, layout.bytes);
        }
        if (range != NULL) {
            hmm_os_release(range, arena_bytes + ARENA_ALIGN_BYTES);
        }
        return false;
    }
    hmm_arena.taken = (_Atomic uint64_t *)sets;
    hmm_arena.touched = (_Atomic uint64_t *)(sets + layout.set_bytes);
    hmm_arena.metadata = hmm_arena.metadata_committed = sets + 2 * layout.set_bytes;
    hmm_arena.metadata_end = hmm_arena.metadata + layout.metadata_bytes;
    hmm_arena.granule_count = arena_bytes >> GRANULE_SHIFT;
    hmm_arena.table = (struct granule *)table;
    hmm_os_name(range, arena_bytes + ARENA_ALIGN_BYTES, ARENA_NAME);
    hmm_os_name(beside, layout.bytes, "hmm metadata");
    hmm_arena.base = align_up((uintptr_t)range, ARENA_ALIGN_BYTES);
    hmm_arena.bytes = arena_bytes;
    hmm_huge_init();
    return true;
}

/* Whether the system would agree, for now. */
static bool can_open_with(size_t arena_bytes)
{
    size_t bytes = arena_bytes + layout_for(arena_bytes).bytes + ARENA_ALIGN_BYTES;
    void *probe = hmm_os_reserve(bytes);
    if (probe != NULL) {
        hmm_os_release(probe, bytes);
    }
    return probe != NULL;
}

/* Halved until the system agrees, and once more then, so that a tight limit leaves room for others. */
bool hmm_arena_open(size_t limit_bytes)
{
    if (limit_bytes != 0) {
        size_t bytes = align_down(limit_bytes, GRANULE_BYTES);
        return bytes >= RESERVE_BYTES_MIN && open_with(bytes);
    }
    size_t bytes = hmm_os_range_bytes();
    if (open_with(bytes)) {
        return true;
    }
    do {
        bytes /= 2;
    } while (bytes >= RESERVE_BYTES_MIN && !can_open_with(bytes));
    return bytes / 2 >= RESERVE_BYTES_MIN && open_with(bytes / 2);
}

void *hmm_arena_metadata(size_t bytes)
{
    void *memory = NULL;
    bytes = align_up(bytes, LINE_BYTES);
    hmm_lock_acquire(&hmm_arena.lock);
    if (bytes <= hmm_arena.metadata_end - hmm_arena.metadata) {
        uintptr_t end = hmm_arena.metadata + bytes;
        uintptr_t committed = align_up(end, METADATA_STEP_BYTES);
        committed =
            size_min(size_max(committed, hmm_arena.metadata_committed), hmm_arena.metadata_end);
        if (committed == hmm_arena.metadata_committed ||
            hmm_os_commit((void *)hmm_arena.metadata_committed,
                          committed - hmm_arena.metadata_committed)) {
            hmm_arena.metadata_committed = committed;
            memory = (void *)hmm_arena.metadata;
            hmm_arena.metadata = end;
        }
    }
    hmm_lock_release(&hmm_arena.lock);
    return memory;
}

/* ------------------------------------------------------------------------------------- audit */

const char *hmm_arena_audit(void)
{
    size_t taken_count = 0;
    size_t dirty_count = 0;
    if (hmm_arena.frontier_count > hmm_arena.committed_count ||
        hmm_arena.committed_count > hmm_arena.granule_count) {
        return "A2: the frontier lies within what is committed";
    }
    if (hmm_arena.table_committed_count < hmm_arena.frontier_count) {
        return "A3: every granule has a descriptor";
    }
    for (size_t index = 0; index < hmm_arena.frontier_count; index++) {
        uint64_t bit = (uint64_t)1 << index % WORD_BITS;
        bool is_taken = (word_load(hmm_arena.taken, index / WORD_BITS) & bit) != 0;
        bool is_touched = (word_load(hmm_arena.touched, index / WORD_BITS) & bit) != 0;
        taken_count += is_taken;
        dirty_count += !is_taken && is_touched;
        if (!is_taken && granule_kind(&hmm_arena.table[index]) != GRANULE_FREE) {
            return "A5: a free granule has no kind";
        }
    }
    if (taken_count != counter(&hmm_arena.taken_count) ||
        dirty_count != counter(&hmm_arena.dirty_count)) {
        return "A4: the counters agree with the sets";
    }
    return NULL;
}
