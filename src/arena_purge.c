/*
 * arena_purge.c - free granules go back to the system, the highest first, and so does what is
 * accounted for them. See arena.h and purge.h.
 */
#include "arena_sets.h"
#include "huge.h"
#include "os.h"
#include "purge.h"

enum {
    /* The frontier comes down when that frees half of what is committed, and 16 MiB at least;
     * granules below it are hidden when half of what is accounted is idle, and so much at least. */
    LOWER_SHARE = 2,
    LOWER_COUNT_MIN = 256,
    /* What could not be hidden is looked at again when there is about so much more. */
    LOOK_AGAIN_SHARE = 8,
    /* Of one call. */
    REFUSALS_MAX = 4,
};

/* The highest dirty granules, adjacent within one word and `count_max` at most. */
static struct stretch highest_dirty(size_t count_max)
{
    size_t word = size_min(hmm_arena.dirty_high_hint + 1, word_count());
    uint64_t bits = 0;
    while (word > 0 && bits == 0) {
        word--;
        bits = set_word(SET_DIRTY, word);
    }
    if (bits == 0) {
        hmm_arena.dirty_high_hint = word_count(); /* what was refused further up may go now */
        return (struct stretch){0, 0};
    }
    hmm_arena.dirty_high_hint = word;
    struct stretch stretch = word_highest(bits, count_max);
    stretch.start += word * WORD_BITS;
    return stretch;
}

/* The granules are nobody's while the system takes their pages. */
static size_t purge_some(size_t count_max)
{
    hmm_lock_acquire(&hmm_arena.lock);
    struct stretch stretch = highest_dirty(count_max);
    if (stretch.count != 0) {
        (void)hmm_arena_set_taken(stretch.start, stretch.count, 0);
    }
    hmm_lock_release(&hmm_arena.lock);
    if (stretch.count == 0) {
        return 0;
    }
    hmm_huge_withdraw();
    bool is_done = hmm_purge_pages(hmm_arena.base + (stretch.start << GRANULE_SHIFT),
                                   stretch.count << GRANULE_SHIFT);
    hmm_lock_acquire(&hmm_arena.lock);
    if (is_done) {
        hmm_arena_set_untouched(stretch.start, stretch.count);
    }
    hmm_arena_set_free(stretch.start, stretch.count, 0);
    if (!is_done) {
        /* The next looks are below. */
        hmm_arena.dirty_high_hint = stretch.start / WORD_BITS - (stretch.start >= WORD_BITS);
    }
    hmm_lock_release(&hmm_arena.lock);
    return is_done ? stretch.count << GRANULE_SHIFT : 0;
}

bool hmm_arena_wants_back(const struct granule *granule)
{
    size_t index = granule_index(granule);
    return arena_was_refused() ||
           (index >= LOWER_COUNT_MIN && index / LOWER_SHARE >= counter(&hmm_arena.taken_count));
}

void hmm_arena_note_populated(size_t index)
{
    hmm_lock_acquire(&hmm_arena.lock);
    counter_set(&hmm_arena.populated_count,
                size_max(counter(&hmm_arena.populated_count), index + EXTENT_COUNT));
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

static bool is_free_and_untouched(size_t index)
{
    uint64_t bit = (uint64_t)1 << index % WORD_BITS;
    return ((word_load(&hmm_arena.sets[index / WORD_BITS].taken) |
             word_load(&hmm_arena.sets[index / WORD_BITS].touched)) &
            bit) == 0;
}

/* The free and untouched granules that end at the frontier begin here. */
static size_t untouched_tail(void)
{
    size_t index = hmm_arena.frontier_count;
    while (index > 0 && is_free_and_untouched(index - 1)) {
        size_t word = index / WORD_BITS - 1;
        bool is_whole_word =
            index % WORD_BITS == 0 && (word_load(&hmm_arena.sets[word].taken) |
                                       word_load(&hmm_arena.sets[word].touched)) == 0;
        index -= is_whole_word ? WORD_BITS : 1;
    }
    return index;
}

bool hmm_arena_lower(size_t index)
{
    const size_t frontier = hmm_arena.frontier_count;
    void *start = granule_at(index);
    const size_t bytes = (hmm_arena.committed_count - index) << GRANULE_SHIFT;
    if (!hmm_os_decommit(start, bytes)) {
        return false;
    }
    if (index < frontier) {
        hmm_arena_set_shown(index, frontier - index);
        hmm_arena.frontier_count = index;
        hmm_arena.lowered_count = frontier;
    }
    hmm_arena.committed_count = index;
    counter_set(&hmm_arena.populated_count, size_min(counter(&hmm_arena.populated_count), index));
    hmm_huge_lower(index);
    hmm_os_name(start, bytes, ARENA_NAME);
    return true;
}

/* What is inaccessible is not, whether it is free or lies between fences. */
static size_t accounted_count(void)
{
    size_t visible_count = hmm_arena.committed_count - hmm_arena.hidden_count;
    return size_less(visible_count, hmm_purge_fenced_bytes() >> GRANULE_SHIFT);
}

/* So much less is worth a change. */
static size_t worth_count(void)
{
    return size_max(LOWER_COUNT_MIN, accounted_count() / LOWER_SHARE);
}

static void lower_frontier(void)
{
    size_t index = align_up(untouched_tail(), COMMIT_COUNT_MIN);
    size_t committed = hmm_arena.committed_count;
    if (index < committed && committed - index >= worth_count()) {
        (void)hmm_arena_lower(index);
    }
}

/* What somebody is about to give back may count as taken and as hidden. */
static size_t idle_count(void)
{
    size_t others_count =
        hmm_arena.hidden_count + counter(&hmm_arena.taken_count) + counter(&hmm_arena.dirty_count);
    return size_less(hmm_arena.committed_count, others_count);
}

void hmm_arena_lower_account(void)
{
    lower_frontier();
    size_t idle = idle_count();
    if (idle < worth_count()) {
        hmm_arena.idle_left_count = 0;
    } else if (idle - idle / LOOK_AGAIN_SHARE >= hmm_arena.idle_left_count) {
        hmm_arena_hide_idle();
        lower_frontier();
        hmm_arena.idle_left_count = idle_count();
    }
    drop_populated();
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
        hmm_lock_acquire(&hmm_arena.lock);
        hmm_arena_lower_account();
        hmm_lock_release(&hmm_arena.lock);
    }
    return purged_bytes;
}

size_t hmm_arena_purge_excess(size_t budget_bytes)
{
    size_t excess_bytes = hmm_purge_excess_bytes();
    if (LIKELY(excess_bytes == 0)) {
        return 0;
    }
    size_t dirty_bytes = hmm_purge_dirty_bytes();
    return hmm_arena_purge(size_less(dirty_bytes, excess_bytes), budget_bytes);
}

/* A single granule would have been taken from the dirty ones. */
void hmm_arena_offset_growth(size_t run_count, size_t grown_count)
{
    if (run_count > 1 && counter(&hmm_arena.dirty_count) != 0 && hmm_purge_is_at_peak()) {
        const size_t grown_bytes = grown_count << GRANULE_SHIFT;
        (void)hmm_arena_purge(size_less(hmm_purge_dirty_bytes(), grown_bytes), grown_bytes);
    }
}
