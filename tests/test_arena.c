/*
 * test_arena.c - granules against a shadow that knows what each of them should be.
 *
 * Every test has an arena of its own, of 512 granules. The shadow says which granule the next call
 * must return, and which are zero; the bit sets of the arena are compared with it after every step.
 */
#include "arena.h"
#include "os.h"
#include "os_call.h"
#include "purge.h"
#include "seed.h"
#include "unit.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

enum {
    GRANULES = 512,
    ARENA_BYTES = GRANULES * GRANULE_BYTES,
    MEBIBYTE = 1 << 20,
    STEP_BYTES = MEBIBYTE / 2, /* by so much the bound may be passed before it is acted on */
};

/* Of the next calls that make memory accessible or inaccessible, or give it back, those are refused
 * whose bits are set. */
static unsigned refusals;
static bool has_refused; /* not under another kernel, which has these calls itself */

/* In the place of the library's own. */
long hmm_os_call(long number, const long given[OS_CALL_WORDS])
{
    if (number == SYS_mprotect || number == SYS_mmap || number == SYS_madvise) {
        const bool is_refused = (refusals & 1) != 0;
        refusals >>= 1;
        has_refused = has_refused || is_refused;
        if (is_refused) {
            errno = ENOMEM;
            return -1;
        }
    }
    return syscall(number, given[0], given[1], given[2], given[3], given[4], given[5]);
}

/* ----------------------------------------------------------------------------------- the shadow */

static bool is_taken[GRANULES];
static bool is_touched[GRANULES];
static size_t frontier;

static size_t shadow_count(bool of_taken)
{
    size_t count = 0;
    for (size_t i = 0; i < frontier; i++) {
        count += of_taken ? is_taken[i] : !is_taken[i] && is_touched[i];
    }
    return count;
}

/* What is free and inaccessible the arena chooses; it comes last. */
static bool is_hidden(size_t index)
{
    return (atomic_load(&hmm_arena.sets[index / 64].hidden) >> index % 64 & 1) != 0;
}

enum choice { DIRTY, ACCESSIBLE, FREE };

static bool is_in(enum choice choice, size_t index)
{
    return !is_taken[index] && (choice != DIRTY || is_touched[index]) &&
           (choice != ACCESSIBLE || !is_hidden(index));
}

/* The first aligned run of such granules below the frontier. */
static size_t shadow_find(enum choice choice, size_t count, size_t align_count)
{
    for (size_t start = 0; start + count <= frontier; start += align_count) {
        size_t length = 0;
        while (length < count && is_in(choice, start + length)) {
            length++;
        }
        if (length == count) {
            return start;
        }
    }
    return SIZE_MAX;
}

/* Where the next run must begin, SIZE_MAX: there is no room. */
static size_t shadow_next(size_t count, size_t align_count)
{
    size_t start = shadow_find(DIRTY, count, align_count);
    start = start != SIZE_MAX ? start : shadow_find(ACCESSIBLE, count, align_count);
    start = start != SIZE_MAX ? start : shadow_find(FREE, count, align_count);
    if (start != SIZE_MAX) {
        return start;
    }
    size_t tail = frontier;
    while (tail > 0 && !is_taken[tail - 1]) {
        tail--;
    }
    start = align_up(tail, align_count);
    return start + count <= GRANULES ? start : SIZE_MAX;
}

/* The frontier may come down over what is free and untouched. */
static void follow_frontier(void)
{
    assert_true(hmm_arena.frontier_count <= frontier);
    for (size_t i = hmm_arena.frontier_count; i < frontier; i++) {
        assert_false(is_taken[i]);
        assert_false(is_touched[i]);
    }
    frontier = hmm_arena.frontier_count;
}

static void verify(void)
{
    follow_frontier();
    const char *broken = hmm_arena_audit();
    assert_string_equal(broken != NULL ? broken : "", "");
    assert_int_equal(atomic_load(&hmm_arena.taken_count), shadow_count(true));
    assert_int_equal(atomic_load(&hmm_arena.dirty_count), shadow_count(false));
    size_t wrong = 0;
    for (size_t i = 0; i < GRANULES; i++) {
        wrong += (atomic_load(&hmm_arena.sets[i / 64].taken) >> i % 64 & 1) != is_taken[i];
        wrong += granule_is_touched(&hmm_arena.table[i]) != is_touched[i];
    }
    assert_int_equal(wrong, 0);
}

/* ------------------------------------------------------------------------------- calls, watched */

static volatile uint64_t *word_of(size_t index, size_t offset)
{
    return (volatile uint64_t *)(hmm_arena.base + (index << GRANULE_SHIFT) + offset);
}

/* One word at both ends and in between. */
static bool is_zero(size_t index)
{
    return *word_of(index, 0) == 0 && *word_of(index, GRANULE_BYTES / 2) == 0 &&
           *word_of(index, GRANULE_BYTES - sizeof(uint64_t)) == 0;
}

static void scribble(size_t start, size_t count)
{
    for (size_t i = start; i < start + count; i++) {
        *word_of(i, 0) = *word_of(i, GRANULE_BYTES / 2) = i + 1;
        *word_of(i, GRANULE_BYTES - sizeof(uint64_t)) = i + 1;
    }
}

static void became_taken(size_t start, size_t count)
{
    assert_true(start + count <= GRANULES);
    for (size_t i = start; i < size_min(start + count, GRANULES); i++) {
        assert_false(is_taken[i]);
        assert_true(is_touched[i] || is_zero(i));
        is_taken[i] = true;
    }
    frontier = size_max(frontier, start + count);
}

/* Takes a run, which is where the shadow says, and readable and writable. Its
 * index, SIZE_MAX: none. */
static size_t take_aligned(size_t count, size_t align_count)
{
    size_t wanted = shadow_next(count, align_count);
    struct granule *first = hmm_arena_take(count, align_count);
    size_t start = first != NULL ? granule_index(first) : SIZE_MAX;
    assert_int_equal(start, wanted);
    if (start != SIZE_MAX) {
        became_taken(start, count);
        granule_set_kind(first, GRANULE_LARGE);
    }
    verify();
    return start;
}

static size_t take(size_t count)
{
    return take_aligned(count, 1);
}

static bool extend(size_t start, size_t count, size_t more_count)
{
    bool wanted = start + count + more_count <= GRANULES;
    for (size_t i = start + count; wanted && i < start + count + more_count; i++) {
        wanted = !is_taken[i];
    }
    bool got = hmm_arena_extend(&hmm_arena.table[start], count, more_count);
    assert_int_equal(got, wanted);
    if (got) {
        became_taken(start + count, more_count);
    }
    verify();
    return got;
}

/* Only the first `touched_count` granules have been written to. */
static void give_touched(size_t start, size_t count, size_t touched_count)
{
    scribble(start, touched_count);
    granule_set_kind(&hmm_arena.table[start], GRANULE_FREE);
    hmm_arena_give(&hmm_arena.table[start], count, touched_count);
    for (size_t i = start; i < start + count; i++) {
        is_taken[i] = false;
        is_touched[i] |= i < start + touched_count;
    }
}

static void give(size_t start, size_t count)
{
    give_touched(start, count, count);
    verify();
}

static void give_zero(size_t start, size_t count)
{
    scribble(start, count);
    assert_true(
        hmm_os_purge((void *)(hmm_arena.base + (start << GRANULE_SHIFT)), count << GRANULE_SHIFT));
    granule_set_kind(&hmm_arena.table[start], GRANULE_FREE);
    hmm_arena_give_zero(&hmm_arena.table[start], count);
    for (size_t i = start; i < start + count; i++) {
        is_taken[i] = is_touched[i] = false;
    }
    verify();
}

/* The shadow of purging: the highest dirty granules. */
static void became_purged(size_t count)
{
    for (size_t i = frontier; i > 0 && count > 0; i--) {
        if (!is_taken[i - 1] && is_touched[i - 1]) {
            is_touched[i - 1] = false;
            assert_true(i > hmm_arena.committed_count || is_hidden(i - 1) || is_zero(i - 1));
            count--;
        }
    }
    assert_int_equal(count, 0);
}

static size_t purge(size_t keep_count, size_t budget_count)
{
    size_t dirty_count = shadow_count(false);
    size_t wanted = size_min(dirty_count - size_min(dirty_count, keep_count), budget_count);
    size_t purged_bytes =
        hmm_arena_purge(keep_count << GRANULE_SHIFT, budget_count << GRANULE_SHIFT);
    assert_int_equal(purged_bytes, wanted << GRANULE_SHIFT);
    became_purged(wanted);
    verify();
    return wanted;
}

/* A fresh arena, in which nothing is given back unless it is asked for. */
static int arena_fresh(void **state)
{
    (void)state;
    hmm_arena = (struct arena){.lock = LOCK_INITIALIZER(LOCK_RANK_ARENA)};
    memset(is_taken, 0, sizeof is_taken);
    memset(is_touched, 0, sizeof is_touched);
    frontier = 0;
    hmm_purge_set(PURGE_BYTES, SIZE_MAX / 2);
    return hmm_arena_open(ARENA_BYTES) ? 0 : -1;
}

/* ------------------------------------------------------------------------------------ the tests */

static void an_arena_begins_empty_and_aligned(void **state)
{
    (void)state;
    assert_int_equal(hmm_arena.bytes, ARENA_BYTES);
    assert_true(is_aligned(hmm_arena.base, ARENA_ALIGN_BYTES));
    assert_false(arena_covers(NULL));
    assert_false(arena_covers((void *)(hmm_arena.base - 1)));
    assert_false(arena_covers((void *)(hmm_arena.base + ARENA_BYTES)));
    assert_true(arena_covers((void *)hmm_arena.base));
    assert_true(arena_covers((void *)(hmm_arena.base + ARENA_BYTES - 1)));
    assert_ptr_equal(granule_of((void *)(hmm_arena.base + GRANULE_BYTES)), &hmm_arena.table[1]);
    assert_int_equal(granule_start(&hmm_arena.table[3]), hmm_arena.base + 3 * GRANULE_BYTES);
    verify();
}

static void fresh_granules_follow_each_other(void **state)
{
    (void)state;
    assert_int_equal(take(1), 0);
    assert_int_equal(take(3), 1);
    assert_int_equal(take(1), 4);
    assert_int_equal(take(200), 5);
}

static void the_lowest_is_reused_first(void **state)
{
    (void)state;
    assert_int_equal(take(100), 0);
    give(70, 1);
    give(10, 2);
    give(40, 5);
    assert_int_equal(take(1), 10);
    assert_int_equal(take(2), 40);
    assert_int_equal(take(1), 11);
    assert_int_equal(take(4), 100);
    assert_int_equal(take(3), 42);
    assert_int_equal(take(1), 70);
    assert_int_equal(take(1), 104);
}

static void dirty_ones_come_before_untouched_ones(void **state)
{
    (void)state;
    assert_int_equal(take(100), 0);
    give_zero(10, 10);
    give(60, 3);
    assert_int_equal(take(1), 60);
    assert_int_equal(take(2), 61);
    assert_int_equal(take(1), 10);
    give(80, 2);
    assert_int_equal(take(3), 11);
    assert_int_equal(take(2), 80);
}

/* Half dirty, half untouched, over the ends of words of the sets. */
static void runs_may_be_of_both_kinds(void **state)
{
    (void)state;
    assert_int_equal(take(300), 0);
    give(60, 5);
    give_zero(65, 70);
    assert_int_equal(take(75), 60);
    give(60, 75);
    assert_int_equal(take(75), 60);
}

static void a_run_takes_in_the_free_tail(void **state)
{
    (void)state;
    assert_int_equal(take(70), 0);
    give(66, 4);
    assert_int_equal(take(10), 66);
    assert_int_equal(frontier, 76);
}

static void aligned_runs_are_aligned(void **state)
{
    (void)state;
    assert_int_equal(take(3), 0);
    assert_int_equal(take_aligned(2, 8), 8);
    assert_int_equal(take_aligned(1, 2), 4);
    assert_int_equal(take_aligned(5, 32), 32);
    assert_int_equal(take_aligned(16, 16), 16);
}

/* What alignment leaves out below the frontier is free, and found. */
static void what_alignment_skips_is_not_lost(void **state)
{
    (void)state;
    assert_int_equal(take(1), 0);
    assert_int_equal(take(1), 1);
    assert_int_equal(take_aligned(1, 32), 32);
    for (size_t i = 2; i < 32; i++) {
        assert_int_equal(take(1), i);
    }
    assert_int_equal(take(1), 33);
}

/* As above, after a search that found nothing. */
static void what_alignment_skips_later_is_not_lost(void **state)
{
    (void)state;
    assert_int_equal(take(10), 0);
    give(4, 1);
    assert_int_equal(take(1), 4);
    give_zero(5, 1);
    assert_int_equal(take(1), 5);
    assert_int_equal(take(1), 10);
    assert_int_equal(take_aligned(2, 32), 32);
    assert_int_equal(take(1), 11);
    assert_int_equal(take(5), 12);
}

static void runs_extend_over_what_is_free(void **state)
{
    (void)state;
    assert_int_equal(take(60), 0);
    give(10, 40);
    assert_true(extend(0, 10, 1));
    assert_true(extend(0, 11, 20));
    assert_false(extend(0, 31, 20));
    assert_true(extend(0, 31, 19));
    assert_false(extend(0, 50, 1));
    assert_true(extend(50, 10, 100));
    assert_int_equal(frontier, 160);
    give(100, 60);
    assert_true(extend(50, 50, 100));
    assert_int_equal(hmm_arena.frontier_count, 200);
    assert_false(extend(50, 150, GRANULES));
    assert_false(extend(50, 150, SIZE_MAX / 2));
}

/* Gives granules back that nobody can access. */
static void give_hidden(size_t start, size_t count)
{
    void *memory = (void *)(hmm_arena.base + (start << GRANULE_SHIFT));
    assert_true(hmm_os_decommit_unmarked(memory, count << GRANULE_SHIFT));
    hmm_arena_note_hidden(&hmm_arena.table[start], count);
    granule_set_kind(&hmm_arena.table[start], GRANULE_FREE);
    hmm_arena_give_zero(&hmm_arena.table[start], count);
    for (size_t i = start; i < start + count; i++) {
        is_taken[i] = is_touched[i] = false;
    }
    verify();
}

static void hidden_granules_can_be_accessed_once_they_are_taken(void **state)
{
    (void)state;
    assert_int_equal(take(200), 0);
    give_hidden(60, 10);
    give_hidden(80, 2);
    assert_int_equal(hmm_arena.hidden_count, 12);
    assert_int_equal(take(1), 60);
    scribble(60, 1);
    assert_int_equal(take(8), 61);
    scribble(61, 8);
    give_hidden(64, 3);
    assert_true(extend(61, 3, 2));
    scribble(64, 2);
    assert_int_equal(hmm_arena.hidden_count, 4);
    assert_int_equal(take(3), 200);
}

/* As a kernel leaves it that unmaps before it refuses. */
static void a_hole_is_plugged(void **state)
{
    (void)state;
    void *hole = (void *)(hmm_arena.base + (5 << GRANULE_SHIFT));
    assert_int_equal(take(20), 0);
    scribble(5, 2);
    assert_false(hmm_os_plug(hole, 2 * GRANULE_BYTES));
    assert_false(is_zero(5));
    hmm_os_release(hole, 2 * GRANULE_BYTES);
    assert_true(hmm_os_plug(hole, 2 * GRANULE_BYTES));
    assert_false(hmm_os_plug(hole, 2 * GRANULE_BYTES));
    give_hidden(5, 2);
    assert_int_equal(take(2), 5);
}

static void hidden_granules_come_last(void **state)
{
    (void)state;
    assert_int_equal(take(200), 0);
    give_hidden(10, 10);
    give_zero(60, 1);
    assert_int_equal(granule_index(hmm_arena_take(1, 1)), 60);
    became_taken(60, 1);
    give(90, 10);
    assert_int_equal(granule_index(hmm_arena_take(10, 1)), 90);
    became_taken(90, 10);
    assert_int_equal(take(1), 10);
    assert_int_equal(hmm_arena.hidden_count, 9);
}

static void what_is_hidden_at_the_end_is_committed_again(void **state)
{
    (void)state;
    assert_int_equal(take(500), 0);
    give(3, 297);
    give_hidden(300, 200);
    assert_int_equal(purge(0, GRANULES), 297);
    assert_int_equal(hmm_arena.hidden_count, 0);
    assert_int_equal(take(497), 3);
    give(3, 497);
}

/* A run is had or is not, whatever is refused on the way, and all others stay what they are. */
static void some_calls_are_refused(void **state)
{
    enum { CALLS = 8, TAIL = 80, DIRTY = 20, RUN = 30 };
    size_t had_count = 0;
    for (unsigned mask = 0; mask < 1u << CALLS; mask++) {
        (void)arena_fresh(state);
        assert_int_equal(take(400), 0);
        give(400 - DIRTY, DIRTY);
        give_hidden(400 - DIRTY - TAIL, TAIL);
        refusals = mask;
        struct granule *run = hmm_arena_take(RUN, 1);
        refusals = 0;
        assert_null(hmm_arena_audit());
        if (run != NULL) {
            granule_set_kind(run, GRANULE_LARGE);
            memset((void *)granule_start(run), 1, RUN * GRANULE_BYTES);
            assert_true(granule_index(run) >= 400 - DIRTY - TAIL);
            had_count++;
        }
    }
    if (!has_refused) {
        skip();
    }
    assert_in_range(had_count, 2, (1 << CALLS) - 1);
}

/* One refusal holds up nothing; after many the system is left alone for a moment, but not where
 * the program asks. */
static void what_was_refused_goes_back(void **state)
{
    enum { MANY = 8 };
    (void)state;
    assert_int_equal(take(300), 0);
    give(10, 10);
    give(200, 10);
    refusals = 1;
    assert_int_equal(hmm_arena_purge(0, SIZE_MAX), 20 << GRANULE_SHIFT);
    became_purged(20);
    verify();
    give(220, 10);
    for (int i = 0; i < MANY; i++) {
        refusals = UINT_MAX;
        (void)hmm_arena_purge(0, SIZE_MAX);
    }
    refusals = 0;
    if (!has_refused) {
        skip();
    }
    assert_int_equal(hmm_arena_purge(0, SIZE_MAX), 0);
    hmm_purge_try_again();
    assert_int_equal(purge(0, SIZE_MAX >> GRANULE_SHIFT), 10);
    verify();
}

/* Only what was written to is dirty. */
static void untouched_parts_stay_untouched(void **state)
{
    (void)state;
    assert_int_equal(take(100), 0);
    give_touched(0, 100, 30);
    verify();
    assert_int_equal(shadow_count(false), 30);
    assert_int_equal(take(40), 0);
    give_touched(0, 40, 0);
    verify();
    assert_int_equal(shadow_count(false), 30);
}

static void the_highest_is_purged_first(void **state)
{
    (void)state;
    assert_int_equal(take(300), 0);
    give(10, 5);
    give(100, 100);
    give(250, 10);
    assert_int_equal(purge(SIZE_MAX >> GRANULE_SHIFT, SIZE_MAX >> GRANULE_SHIFT), 0);
    assert_int_equal(purge(0, 3), 3);
    assert_int_equal(purge(100, GRANULES), 12);
    assert_int_equal(purge(6, GRANULES), 94);
    assert_int_equal(purge(0, GRANULES), 6);
    assert_int_equal(purge(0, GRANULES), 0);
    assert_int_equal(take(1), 10);
}

static void what_was_purged_is_zero(void **state)
{
    (void)state;
    assert_int_equal(take(130), 0);
    give(0, 130);
    assert_int_equal(purge(0, GRANULES), 130);
    assert_int_equal(take(130), 0);
    give_zero(0, 130);
    assert_int_equal(take(130), 0);
}

/* What lies free at the end is not even accounted to the process. */
static void the_frontier_comes_down(void **state)
{
    (void)state;
    assert_int_equal(take(500), 0);
    assert_true(hmm_arena.committed_count >= 500);
    give(3, 497);
    assert_int_equal(purge(0, GRANULES), 497);
    assert_true(hmm_arena.frontier_count < 100);
    assert_true(hmm_arena.committed_count < 100);
    assert_int_equal(take(497), 3);
    give(3, 497);
}

/* Nor is what lies free below something that lives, once it is much. */
static void idle_granules_are_hidden(void **state)
{
    (void)state;
    assert_int_equal(take(500), 0);
    give(3, 130);
    give(134, 360);
    give(495, 1);
    assert_int_equal(purge(481, GRANULES), 10);
    assert_int_equal(hmm_arena.hidden_count, 0);
    assert_int_equal(purge(130, GRANULES), 351);
    assert_int_equal(hmm_arena.hidden_count, 360);
    assert_int_equal(purge(0, GRANULES), 130);
    assert_int_equal(hmm_arena.hidden_count, 360);
    assert_int_equal(take(130), 3);
    assert_int_equal(take(1), 495);
    assert_int_equal(take(1), 134);
    assert_int_equal(hmm_arena.hidden_count, 360 - (192 - 134));
    assert_int_equal(take(57), 135);
    assert_int_equal(take(1), 192);
    assert_true(extend(192, 1, 301));
    assert_int_equal(hmm_arena.hidden_count, 0);
}

/* Few stretches are hidden, so that a process has few mappings. */
static void short_stretches_are_not_hidden(void **state)
{
    (void)state;
    assert_int_equal(take(500), 0);
    for (size_t start = 0; start < 480; start += 4) {
        give_touched(start, 3, 3);
    }
    assert_int_equal(purge(0, GRANULES), 360);
    assert_int_equal(hmm_arena.hidden_count, 0);
    for (size_t between = 3; between < 480; between += 4) {
        assert_int_equal(hmm_arena.hidden_count, 0);
        give_touched(between, 1, 1);
    }
    assert_int_equal(purge(0, GRANULES), 120);
    assert_int_equal(hmm_arena.hidden_count, 480);
}

/* But for those beside others that are hidden: all become one mapping. */
static void short_stretches_between_hidden_ones_are_hidden(void **state)
{
    (void)state;
    assert_int_equal(take(500), 0);
    for (size_t start = 0; start < 480; start += 8) {
        give_touched(start, 5, 5);
        give_hidden(start + 5, 3);
    }
    assert_int_equal(hmm_arena.hidden_count, 180);
    assert_int_equal(purge(0, GRANULES), 300);
    assert_int_equal(hmm_arena.hidden_count, 480);
}

/* What went back with the last call, which is what lay highest. At most `kept_bytes` are left, and
 * what is not worth a call. */
static void expect_purged_to(size_t kept_bytes)
{
    became_purged(shadow_count(false) - atomic_load(&hmm_arena.dirty_count));
    verify();
    assert_true(hmm_purge_dirty_bytes() <= kept_bytes + STEP_BYTES);
    assert_int_equal(hmm_purge_excess_bytes(), 0);
}

/* The excess goes with the call that frees, and no more than that. */
static void excess_goes_as_it_is_freed(void **state)
{
    (void)state;
    hmm_purge_set(PURGE_LIVE, 0);
    assert_int_equal(take(400), 0);
    for (size_t start = 0; start < 400; start++) {
        give_touched(start, 1, 1);
        expect_purged_to(size_max(2 * MEBIBYTE, ((399 - start) << GRANULE_SHIFT) / 8));
        /* half of it, once half of the peak is gone */
        assert_true(start < 32 || hmm_purge_dirty_bytes() >= MEBIBYTE - GRANULE_BYTES);
    }
}

static void a_large_drop_is_purged_at_once(void **state)
{
    (void)state;
    hmm_purge_set(PURGE_LIVE, 0);
    assert_int_equal(take(500), 0);
    give_touched(100, 400, 400);
    expect_purged_to(2 * MEBIBYTE);
}

static void purge_takes_an_amount(void **state)
{
    (void)state;
    hmm_purge_set(PURGE_BYTES, 5 * MEBIBYTE);
    assert_int_equal(take(500), 0);
    give_touched(0, 500, 500);
    expect_purged_to(5 * MEBIBYTE);
    hmm_purge_set(PURGE_BYTES, 0);
    for (int call = 0; call < 6; call++) {
        size_t start = take(1);
        give_touched(start, 1, 1);
        became_purged(shadow_count(false) - atomic_load(&hmm_arena.dirty_count));
    }
    expect_purged_to(0);
}

static void purge_keeps_the_peak(void **state)
{
    (void)state;
    hmm_purge_set(PURGE_PEAK, 0);
    assert_int_equal(take(500), 0);
    give(0, 500);
    assert_int_equal(hmm_purge_excess_bytes(), 0);
    assert_int_equal(shadow_count(false), 500);
}

static void what_grows_in_place_is_live_as_well(void **state)
{
    (void)state;
    assert_int_equal(take(1), 0);
    atomic_store(&hmm_purge_counts.recent_bytes_max, 0);
    assert_true(extend(0, 1, 499));
    assert_int_equal(atomic_load(&hmm_purge_counts.recent_bytes_max), 500 * GRANULE_BYTES);
}

/* Memory that is given back and taken again within a second may stay the next time, up to a bound;
 * quiet seconds take that back. */
static void take_until_regretted(size_t count)
{
    hmm_purge_set(PURGE_LIVE, 0);
    hmm_purge_regret(1);
    sleep(4); /* until what other tests had is no recent peak any more */
    for (int round = 0; round < 10; round++) {
        struct granule *first = hmm_arena_take(count, 1);
        assert_non_null(first);
        scribble(0, count);
        hmm_arena_give(first, count, count);
    }
    assert_true(hmm_purge_dirty_bytes() > 8 * MEBIBYTE);
}

static void regret_raises_the_bound_for_a_while(void **state)
{
    (void)state;
    take_until_regretted(200);
    sleep(5);
    struct granule *first = hmm_arena_take(1, 1);
    for (int call = 0; call < 40; call++) {
        hmm_arena_give(first, 1, 1);
        first = hmm_arena_take(1, 1);
    }
    assert_true(hmm_purge_dirty_bytes() <= 2 * MEBIBYTE + STEP_BYTES);
    assert_null(hmm_arena_audit());
}

/* The frontier comes down over so many. */
static void what_was_above_the_frontier_is_regretted_as_well(void **state)
{
    (void)state;
    take_until_regretted(300);
    assert_int_not_equal(hmm_arena.lowered_count, 0);
}

/* Descriptors may have been made accessible for granules that were refused then. */
static void what_is_known_shrinks_with_the_range(void **state)
{
    (void)state;
    hmm_arena = (struct arena){.lock = LOCK_INITIALIZER(LOCK_RANK_ARENA)};
    assert_true(hmm_arena_open(32 * (size_t)ARENA_BYTES));
    struct rlimit limit;
    assert_int_equal(getrlimit(RLIMIT_DATA, &limit), 0);
    const struct rlimit little = {8 * ARENA_BYTES, limit.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_DATA, &little), 0);
    struct granule *refused = hmm_arena_take(31 * GRANULES, 1);
    assert_int_equal(setrlimit(RLIMIT_DATA, &limit), 0);
    assert_null(refused);
    hmm_arena_shrink(ARENA_BYTES);
    assert_int_equal(hmm_arena.bytes, ARENA_BYTES);
    assert_null(hmm_arena_audit());
    assert_non_null(hmm_arena_take(GRANULES, 1));
    assert_null(hmm_arena_take(1, 1));
    assert_null(hmm_arena_audit());
}

static void it_ends_and_recovers(void **state)
{
    (void)state;
    static size_t singles[GRANULES];
    assert_int_equal(take(GRANULES + 1), SIZE_MAX);
    assert_int_equal(take(SIZE_MAX / GRANULE_BYTES), SIZE_MAX);
    for (int round = 0; round < 3; round++) {
        for (size_t i = 0; i < GRANULES; i++) {
            singles[i] = take(1);
            assert_int_equal(singles[i], i);
        }
        assert_int_equal(take(1), SIZE_MAX);
        assert_int_equal(take(2), SIZE_MAX);
        assert_false(extend(0, 1, 1));
        give(100, 1);
        give(102, 1);
        assert_int_equal(take(2), SIZE_MAX);
        assert_int_equal(take(1), 100);
        assert_int_equal(take(1), 102);
        for (size_t i = 0; i < GRANULES; i++) {
            give(singles[(i * 7) % GRANULES], 1);
        }
        assert_int_equal(take_aligned(GRANULES, GRANULES), 0);
        give(0, GRANULES);
    }
}

static void metadata_is_zero_and_apart(void **state)
{
    (void)state;
    unsigned char *before = (unsigned char *)hmm_arena.sets;
    size_t sum_bytes = 0;
    for (size_t bytes = 1;; bytes = bytes * 3 % 5003 + 1) {
        unsigned char *memory = hmm_arena_metadata(bytes);
        if (memory == NULL) {
            break;
        }
        assert_true(is_aligned((uintptr_t)memory, LINE_BYTES));
        assert_false(arena_covers(memory));
        assert_true(memory + bytes <= before);
        size_t wrong = 0;
        for (size_t i = 0; i < bytes; i++) {
            wrong += memory[i] != 0;
            memory[i] = 0xff;
        }
        assert_int_equal(wrong, 0);
        before = memory;
        sum_bytes += bytes;
    }
    assert_true(sum_bytes > MEBIBYTE);
    assert_int_equal(take(1), 0);
}

/* -------------------------------------------------------------------------------- a random walk */

struct piece {
    size_t start;
    size_t count; /* 0: none */
};

static uint64_t random_state;

static void piece_take(struct piece *piece)
{
    size_t count = random_below(&random_state, 3) != 0 ? 1 : 1 + random_below(&random_state, 90);
    size_t align_count =
        random_below(&random_state, 4) != 0 ? 1 : (size_t)1 << random_below(&random_state, 7);
    size_t start = take_aligned(count, align_count);
    *piece = start != SIZE_MAX ? (struct piece){start, count} : (struct piece){0, 0};
}

static void piece_give(struct piece *piece)
{
    if (random_below(&random_state, 5) == 0) {
        give_zero(piece->start, piece->count);
    } else {
        give_touched(piece->start, piece->count, random_below(&random_state, piece->count + 1));
        verify();
    }
    *piece = (struct piece){0, 0};
}

/* The last part of a run goes, as when a block shrinks. */
static void piece_shrink(struct piece *piece)
{
    size_t kept_count = 1 + random_below(&random_state, piece->count);
    if (kept_count < piece->count) {
        hmm_arena_give(&hmm_arena.table[piece->start + kept_count], piece->count - kept_count, 0);
        for (size_t i = kept_count; i < piece->count; i++) {
            is_taken[piece->start + i] = false;
        }
        piece->count = kept_count;
        verify();
    }
}

static void random_walk(void **state)
{
    (void)state;
    enum { PIECES = 60, STEPS = 20000 };
    static struct piece pieces[PIECES];
    random_state = seed_draw();
    print_message("# random_walk: SEED=%llu\n", (unsigned long long)random_state);
    memset(pieces, 0, sizeof pieces);
    for (int step = 0; step < STEPS; step++) {
        struct piece *piece = &pieces[random_below(&random_state, PIECES)];
        size_t draw = random_below(&random_state, 100);
        if (draw < 4) {
            (void)purge(random_below(&random_state, GRANULES), random_below(&random_state, 40));
        } else if (piece->count == 0) {
            piece_take(piece);
        } else if (draw < 25) {
            size_t more_count = 1 + random_below(&random_state, 20);
            piece->count += extend(piece->start, piece->count, more_count) ? more_count : 0;
        } else if (draw < 40) {
            piece_shrink(piece);
        } else {
            piece_give(piece);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        /* before there is anything to regret */
        cmocka_unit_test_setup(excess_goes_as_it_is_freed, arena_fresh),
        cmocka_unit_test_setup(a_large_drop_is_purged_at_once, arena_fresh),
        cmocka_unit_test_setup(what_is_known_shrinks_with_the_range, arena_fresh),
        cmocka_unit_test_setup(an_arena_begins_empty_and_aligned, arena_fresh),
        cmocka_unit_test_setup(fresh_granules_follow_each_other, arena_fresh),
        cmocka_unit_test_setup(the_lowest_is_reused_first, arena_fresh),
        cmocka_unit_test_setup(dirty_ones_come_before_untouched_ones, arena_fresh),
        cmocka_unit_test_setup(runs_may_be_of_both_kinds, arena_fresh),
        cmocka_unit_test_setup(a_run_takes_in_the_free_tail, arena_fresh),
        cmocka_unit_test_setup(aligned_runs_are_aligned, arena_fresh),
        cmocka_unit_test_setup(what_alignment_skips_is_not_lost, arena_fresh),
        cmocka_unit_test_setup(what_alignment_skips_later_is_not_lost, arena_fresh),
        cmocka_unit_test_setup(runs_extend_over_what_is_free, arena_fresh),
        cmocka_unit_test_setup(hidden_granules_can_be_accessed_once_they_are_taken, arena_fresh),
        cmocka_unit_test_setup(a_hole_is_plugged, arena_fresh),
        cmocka_unit_test_setup(hidden_granules_come_last, arena_fresh),
        cmocka_unit_test_setup(what_is_hidden_at_the_end_is_committed_again, arena_fresh),
        cmocka_unit_test_setup(some_calls_are_refused, arena_fresh),
        cmocka_unit_test_setup(what_was_refused_goes_back, arena_fresh),
        cmocka_unit_test_setup(untouched_parts_stay_untouched, arena_fresh),
        cmocka_unit_test_setup(the_highest_is_purged_first, arena_fresh),
        cmocka_unit_test_setup(what_was_purged_is_zero, arena_fresh),
        cmocka_unit_test_setup(the_frontier_comes_down, arena_fresh),
        cmocka_unit_test_setup(idle_granules_are_hidden, arena_fresh),
        cmocka_unit_test_setup(short_stretches_are_not_hidden, arena_fresh),
        cmocka_unit_test_setup(short_stretches_between_hidden_ones_are_hidden, arena_fresh),
        cmocka_unit_test_setup(purge_takes_an_amount, arena_fresh),
        cmocka_unit_test_setup(purge_keeps_the_peak, arena_fresh),
        cmocka_unit_test_setup(what_grows_in_place_is_live_as_well, arena_fresh),
        cmocka_unit_test_setup(it_ends_and_recovers, arena_fresh),
        cmocka_unit_test_setup(metadata_is_zero_and_apart, arena_fresh),
        cmocka_unit_test_setup(random_walk, arena_fresh),
        cmocka_unit_test_setup(regret_raises_the_bound_for_a_while, arena_fresh),
        cmocka_unit_test_setup(what_was_above_the_frontier_is_regretted_as_well, arena_fresh),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
