/*
 * arena.c - takes and gives granules. See arena.h.
 *
 * One lock guards the bit sets and the frontier. A search looks at words of 64 granules, 4 MiB,
 * so that even a large heap is a few thousand words, and mostly a hint knows better where to begin.
 */
#include "arena_sets.h"
#include "huge.h"
#include "os.h"
#include "purge.h"

enum {
    COMMIT_SHARE = 8,
    /* Where the system makes huge pages by itself, it does so on the first touch of 2 MiB that are
     * all accessible: up to here they are made accessible by halves. */
    SMALL_COUNT = (8 << 20) / GRANULE_BYTES,
    SMALL_COMMIT_COUNT = COMMIT_COUNT_MIN / 2,
    PURGE_BYTES_A_CALL = 1 << 20,
    /* A free may give back so many times what it frees: with less, the last one of a process left
     * 15 MiB of `large` behind (docs/experiments.md). */
    PURGE_FREED_SHARE = 8,
    /* From here on a heap that grows gives free pages back for it: smaller ones have few. */
    OFFSET_COUNT_MIN = (8 << 20) / GRANULE_BYTES,
};

#define NOT_FOUND SIZE_MAX

struct arena hmm_arena = {.lock = LOCK_INITIALIZER(LOCK_RANK_ARENA)};

/* ------------------------------------------------------------------------------------ searching */

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

/* The granules of the set that end at the frontier begin here. */
static size_t frontier_tail(enum set set)
{
    size_t index = hmm_arena.frontier_count;
    while (index > 0 &&
           (set_word(set, (index - 1) / WORD_BITS) >> (index - 1) % WORD_BITS & 1) != 0) {
        index--;
    }
    return index;
}

/* The free granules that end at the frontier begin here; they are accessible. */
static size_t accessible_tail(void)
{
    size_t index = frontier_tail(SET_FREE_OR_HIDDEN);
    return can_access(index, hmm_arena.frontier_count - index) ? index : frontier_tail(SET_FREE);
}

/* ----------------------------------------------------------------------------------- committing */

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
    /* What is hidden can be accessed again only if something is left. */
    bool is_short = hmm_arena.hidden_count != 0 && arena_was_refused();
    size_t step_count = is_short ? 0 : size_max(least_count, old_count / COMMIT_SHARE);
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
    size_t start = align_up(count == 1 ? hmm_arena.frontier_count : accessible_tail(), align_count);
    if (start > hmm_arena.granule_count || count > hmm_arena.granule_count - start ||
        !table_commit(start + count) || !range_commit(start + count)) {
        return NOT_FOUND;
    }
    if (start > hmm_arena.frontier_count) {
        hmm_arena.free_hint = size_min(hmm_arena.free_hint, hmm_arena.frontier_count / WORD_BITS);
    }
    hmm_arena.frontier_count = size_max(hmm_arena.frontier_count, start + count);
    return start;
}

/* -------------------------------------------------------------------------------- take and give */

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

/* Granules of which some are hidden. */
static HMM_COLD size_t take_hidden(size_t count, size_t align_count)
{
    size_t index = find_run(SET_FREE_OR_HIDDEN, 0, count, align_count);
    return index != NOT_FOUND && can_access(index, count) ? index : NOT_FOUND;
}

/* Hidden granules are taken where there are no others, before more is committed. */
static size_t take_anywhere(size_t count, size_t align_count)
{
    const bool has_hidden = UNLIKELY(hmm_arena.hidden_count != 0);
    size_t index = take_index(count, align_count);
    if (index != NOT_FOUND && can_access(index, count)) {
        return index;
    }
    index = has_hidden ? take_hidden(count, align_count) : NOT_FOUND;
    index = index != NOT_FOUND ? index : take_at_frontier(count, align_count);
    if (index == NOT_FOUND && has_hidden && arena_was_refused() && hmm_arena_hide_free(count)) {
        index = take_at_frontier(count, align_count);
    }
    return index;
}

/* Whether the extent that begins here was given back as a whole, and may come again as one: what is
 * not needed of it yet would stay, and nobody else misses what is taken meanwhile. */
static bool is_gone_extent(size_t first)
{
    const size_t word = first / WORD_BITS;
    const uint64_t used = word_load(&hmm_arena.sets[word].taken) |
                          word_load(&hmm_arena.sets[word].touched) |
                          word_load(&hmm_arena.sets[word].hidden);
    return (used & word_mask(word, first, EXTENT_COUNT)) == 0 &&
           first + EXTENT_COUNT <= hmm_arena.frontier_count && hmm_huge_may_refill(first) &&
           hmm_arena.granule_count - hmm_arena.frontier_count >= EXTENT_COUNT &&
           hmm_purge_would_keep(ARENA_ALIGN_BYTES) && !arena_was_refused();
}

/* Takes the granule out of the extent, which is filled if huge.c agrees, and then what is left of
 * it is dirty. Whether it was. The lock is held, but for a while in between. */
static HMM_COLD bool take_from_gone_extent(size_t first, size_t index)
{
    const size_t before_count = index - first;
    const size_t behind_count = EXTENT_COUNT - before_count - 1;
    (void)hmm_arena_set_taken(first, EXTENT_COUNT, 0);
    hmm_lock_release(&hmm_arena.lock);
    const bool is_filled = hmm_huge_refill(first);
    hmm_lock_acquire(&hmm_arena.lock);
    hmm_arena_set_free(first, before_count, is_filled ? before_count : 0);
    hmm_arena_set_free(index + 1, behind_count, is_filled ? behind_count : 0);
    return is_filled;
}

static void note_taken_max(void)
{
    counter_set(&hmm_arena.taken_count_max,
                size_max(counter(&hmm_arena.taken_count_max), counter(&hmm_arena.taken_count)));
}

struct granule *hmm_arena_take(size_t count, size_t align_count)
{
    hmm_lock_acquire(&hmm_arena.lock);
    size_t old_frontier = hmm_arena.frontier_count;
    size_t index = count <= hmm_arena.granule_count ? take_anywhere(count, align_count) : NOT_FOUND;
    if (index == NOT_FOUND) {
        hmm_lock_release(&hmm_arena.lock);
        return NULL;
    }
    const size_t extent = align_down(index, EXTENT_COUNT);
    bool is_filled = false;
    size_t regret_count = 0;
    if (count == 1 && is_gone_extent(extent)) {
        is_filled = take_from_gone_extent(extent, index);
        regret_count = is_filled ? EXTENT_COUNT : count;
    } else {
        regret_count = hmm_arena_set_taken(index, count, old_frontier);
    }
    note_taken_max();
    hmm_lock_release(&hmm_arena.lock);
    hmm_purge_note_live();
    if (index + count > old_frontier) {
        if (index + count > OFFSET_COUNT_MIN) {
            hmm_purge_note_growth(count);
            hmm_arena_offset_growth(count, index + count - old_frontier);
        }
        hmm_huge_consider(index, count);
    }
    hmm_arena.table[index].is_populated =
        is_filled || (index >= old_frontier && index < counter(&hmm_arena.populated_count));
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
        is_free =
            (word_load(&hmm_arena.sets[word].taken) & word_mask(word, start, more_count)) == 0;
    }
    is_free = is_free && can_access(start, size_min(end, old_frontier) - start);
    if (is_free && (end <= old_frontier || (table_commit(end) && range_commit(end)))) {
        hmm_arena.frontier_count = size_max(old_frontier, end);
        regret_count = hmm_arena_set_taken(start, more_count, old_frontier);
        note_taken_max();
        is_done = true;
    }
    hmm_lock_release(&hmm_arena.lock);
    if (is_done) {
        hmm_purge_note_live();
    }
    if (regret_count != 0) {
        hmm_purge_regret(regret_count << GRANULE_SHIFT);
    }
    return is_done;
}

void hmm_arena_give(struct granule *first, size_t count, size_t touched_count)
{
    hmm_lock_acquire(&hmm_arena.lock);
    hmm_arena_set_free(granule_index(first), count, touched_count);
    hmm_lock_release(&hmm_arena.lock);
    (void)hmm_arena_purge_excess(
        size_max(PURGE_BYTES_A_CALL, PURGE_FREED_SHARE * (count << GRANULE_SHIFT)));
}

void hmm_arena_give_zero(struct granule *first, size_t count)
{
    hmm_huge_withdraw();
    hmm_lock_acquire(&hmm_arena.lock);
    hmm_arena_set_untouched(granule_index(first), count);
    hmm_arena_set_free(granule_index(first), count, 0);
    hmm_arena_lower_account();
    hmm_lock_release(&hmm_arena.lock);
}

/* On their way are granules that are taken, have no kind, and lie in no large run, nor in one that
 * was freed and waits between fences. */
void hmm_arena_reclaim(void)
{
    size_t index = 0;
    while (index < hmm_arena.frontier_count) {
        const struct granule *granule = &hmm_arena.table[index];
        uint64_t taken = word_load(&hmm_arena.sets[index / WORD_BITS].taken) >> index % WORD_BITS;
        size_t count = 1;
        enum granule_kind kind = granule_kind(granule);
        if (kind == GRANULE_LARGE || kind == GRANULE_FENCE) {
            count = size_max(granule->run.granule_count, 1);
        } else if ((taken & 1) != 0 && kind == GRANULE_FREE) {
            hmm_arena_set_free(index, 1, 1);
        }
        index += count;
    }
}
