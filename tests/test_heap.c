/*
 * test_heap.c - out of memory at every point, and what a heap does at its break.
 *
 * The heap under test lies on a region whose n-th growth fails. A scenario that needs many growths
 * runs once for each n: the failing call must return NULL, nothing may be lost, and once memory is
 * there again the same call must work.
 */
#include "handle.h"
#include "os.h"
#include "unit.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

enum { ARRAY_BYTES = 8 << 20, HELD_MAX = 64 };

static _Alignas(4096) unsigned char array[ARRAY_BYTES];

/* -------------------------------------------------------------------------- a region that fails */

static size_t growth_number;
static size_t failing_first; /* the first growth that fails */
static size_t failing_last;

static uintptr_t failing_grow(struct region *region, size_t least_bytes, size_t wanted_bytes)
{
    growth_number++;
    if (growth_number >= failing_first && growth_number <= failing_last) {
        return 0;
    }
    return hmm_region_array_grow(region, least_bytes, wanted_bytes);
}

static void failing_release(struct region *region)
{
    (void)region;
}

static const struct region_ops failing_ops = {failing_grow, hmm_region_array_shrink,
                                              hmm_region_recover_nothing, failing_release};

static void fail_growths(size_t first, size_t last)
{
    growth_number = 0;
    failing_first = first;
    failing_last = last;
}

static HmmHardening hardening = HMM_HARDENING_NONE;

static HmmHeap *heap_open(HmmFit fit)
{
    const HmmHeapOptions options = {
        .fit = fit, .integrity = HMM_INTEGRITY_NEIGHBOURS, .hardening = hardening};
    struct region *region = hmm_region_array_init(array, sizeof array);
    region->ops = &failing_ops;
    region->gives_back = true;
    return hmm_handle_open(region, &options, NULL, LOCK_RANK_HEAP);
}

/* --------------------------------------------------------------------------------- the scenario */

struct held {
    unsigned char *ptr;
    size_t bytes;
};

struct scenario {
    HmmHeap *heap;
    struct held held[HELD_MAX];
    size_t held_count;
    size_t failed_count;
};

static void held_fill(const struct held *held)
{
    for (size_t i = 0; i < held->bytes; i++) {
        held->ptr[i] = (unsigned char)(held->bytes + i);
    }
}

/* One assertion a block, because cmocka's cost more than the heap's calls. */
static bool held_is_whole(const struct held *held, size_t bytes)
{
    size_t wrong = 0;
    for (size_t i = 0; i < bytes; i++) {
        wrong += held->ptr[i] != (unsigned char)(held->bytes + i);
    }
    return wrong == 0;
}

static void scenario_verify(const struct scenario *scenario)
{
    assert_true(HmmHeapCheck(scenario->heap));
    HmmHeapStats stats;
    HmmHeapGetStats(scenario->heap, &stats);
    assert_int_equal(stats.live_count, scenario->held_count);
    for (size_t i = 0; i < scenario->held_count; i++) {
        assert_true(held_is_whole(&scenario->held[i], scenario->held[i].bytes));
    }
}

/* A failure is NULL and ENOMEM, and leaves everything as it was. */
static void *scenario_failed(struct scenario *scenario)
{
    assert_int_equal(errno, ENOMEM);
    errno = 0;
    scenario->failed_count++;
    scenario_verify(scenario);
    return NULL;
}

static void scenario_keep(struct scenario *scenario, void *ptr, size_t bytes)
{
    assert_int_equal(errno, 0);
    struct held *held = &scenario->held[scenario->held_count++];
    *held = (struct held){ptr, bytes};
    held_fill(held);
    scenario_verify(scenario);
}

/* Tries until it works, at most once more than growths fail in a row. */
static void scenario_alloc(struct scenario *scenario, size_t alignment, size_t bytes)
{
    void *ptr = HmmHeapAlignedAlloc(scenario->heap, alignment, bytes);
    for (size_t tries = 0; ptr == NULL && tries < 8; tries++) {
        ptr = scenario_failed(scenario);
        ptr = HmmHeapAlignedAlloc(scenario->heap, alignment, bytes);
    }
    assert_non_null(ptr);
    scenario_keep(scenario, ptr, bytes);
}

static void scenario_calloc(struct scenario *scenario, size_t bytes)
{
    unsigned char *ptr = HmmHeapCalloc(scenario->heap, 1, bytes);
    for (size_t tries = 0; ptr == NULL && tries < 8; tries++) {
        ptr = scenario_failed(scenario);
        ptr = HmmHeapCalloc(scenario->heap, 1, bytes);
    }
    assert_non_null(ptr);
    size_t nonzero = 0;
    for (size_t i = 0; i < bytes; i++) {
        nonzero += ptr[i] != 0;
    }
    assert_int_equal(nonzero, 0);
    scenario_keep(scenario, ptr, bytes);
}

static void scenario_realloc(struct scenario *scenario, size_t index, size_t bytes)
{
    struct held *held = &scenario->held[index];
    void *ptr = HmmHeapRealloc(scenario->heap, held->ptr, bytes);
    for (size_t tries = 0; ptr == NULL && tries < 8; tries++) {
        ptr = scenario_failed(scenario);
        ptr = HmmHeapRealloc(scenario->heap, held->ptr, bytes);
    }
    assert_non_null(ptr);
    held->ptr = ptr;
    assert_true(held_is_whole(held, size_min(held->bytes, bytes)));
    held->bytes = bytes;
    held_fill(held);
    scenario_verify(scenario);
}

static void scenario_free(struct scenario *scenario, size_t index)
{
    HmmHeapFree(scenario->heap, scenario->held[index].ptr);
    assert_int_equal(errno, 0);
    scenario->held[index] = scenario->held[--scenario->held_count];
    scenario_verify(scenario);
}

/* Every way in which a heap comes to grow: a first block, a block of its own step, behind a used
 * block, behind a free one, for an alignment, for a resize at the break, for a resize that moves.
 */
static size_t scenario_run(HmmFit fit)
{
    struct scenario scenario = {.heap = heap_open(fit)};
    assert_non_null(scenario.heap);
    errno = 0;
    scenario_alloc(&scenario, 16, 100);
    scenario_alloc(&scenario, 16, 300000);
    scenario_calloc(&scenario, 200000);
    scenario_alloc(&scenario, 16, 60000);
    scenario_realloc(&scenario, scenario.held_count - 1, 400000);
    scenario_alloc(&scenario, 65536, 70000);
    scenario_realloc(&scenario, 1, 500000);
    scenario_free(&scenario, 2);
    for (size_t i = 0; i < 20; i++) {
        scenario_alloc(&scenario, 16, 10000 + 3000 * i);
    }
    scenario_realloc(&scenario, 0, 700000);
    while (scenario.held_count > 0) {
        scenario_free(&scenario, scenario.held_count / 2);
    }
    HmmHeapStats stats;
    HmmHeapGetStats(scenario.heap, &stats);
    assert_int_equal(stats.live_bytes, 0);
    assert_int_equal(stats.free_count, 1);
    assert_int_equal(stats.failed_count, scenario.failed_count);
    return scenario.failed_count;
}

static void fail_every_growth(HmmFit fit)
{
    fail_growths(0, 0);
    assert_int_equal(scenario_run(fit), 0);
    size_t growths = growth_number;
    assert_true(growths > 10);
    size_t failures = 0;
    /* The first ones make the heap itself. */
    size_t first = 1;
    while (fail_growths(first, first), heap_open(fit) == NULL) {
        first++;
    }
    for (size_t n = first; n <= growths; n++) {
        fail_growths(n, n);
        failures += scenario_run(fit);
    }
    assert_true(failures > 5);
    for (size_t n = first; n <= growths; n++) {
        fail_growths(n, n + 3);
        assert_true(scenario_run(fit) > 0);
    }
}

static void the_nth_growth_fails_for_every_n(void **state)
{
    (void)state;
    for (int fit = HMM_FIT_GOOD; fit <= HMM_FIT_BEST; fit++) {
        fail_every_growth((HmmFit)fit);
    }
}

static void the_nth_growth_of_a_hardened_heap_fails_for_every_n(void **state)
{
    (void)state;
    hardening = HMM_HARDENING_SEALS;
    fail_every_growth(HMM_FIT_GOOD);
    hardening = HMM_HARDENING_QUARANTINE;
    fail_every_growth(HMM_FIT_FIRST);
    hardening = HMM_HARDENING_NONE;
}

static void making_a_heap_fails_cleanly(void **state)
{
    (void)state;
    fail_growths(1, SIZE_MAX);
    assert_null(heap_open(HMM_FIT_GOOD));
    fail_growths(0, 0);
    assert_non_null(heap_open(HMM_FIT_GOOD));
}

/* When nothing more is to be had: NULL, the counters tell, and after one free it goes on. */
static void a_full_heap_recovers(void **state)
{
    (void)state;
    for (int fit = HMM_FIT_GOOD; fit <= HMM_FIT_BEST; fit++) {
        fail_growths(0, 0);
        HmmHeap *heap = heap_open((HmmFit)fit);
        HmmHeapStats before;
        HmmHeapGetStats(heap, &before);
        static void *blocks[ARRAY_BYTES / 1000];
        size_t count = 0;
        while ((blocks[count] = HmmHeapAlloc(heap, 1000)) != NULL) {
            count++;
        }
        assert_int_equal(errno, ENOMEM);
        assert_true(count > ARRAY_BYTES / 1100);
        HmmHeapStats full;
        HmmHeapGetStats(heap, &full);
        assert_int_equal(full.failed_count, 1);
        assert_int_equal(full.failed_bytes_max, 1000);
        assert_int_equal(full.live_count, count);
        assert_true(full.largest_free_bytes < 1000);
        HmmHeapFree(heap, blocks[count / 2]);
        blocks[count / 2] = HmmHeapAlloc(heap, 1000);
        assert_non_null(blocks[count / 2]);
        for (size_t i = 0; i < count; i++) {
            HmmHeapFree(heap, blocks[i]);
        }
        HmmHeapStats after;
        HmmHeapGetStats(heap, &after);
        assert_int_equal(after.largest_free_bytes, before.largest_free_bytes);
        void *whole = HmmHeapAlloc(heap, after.largest_free_bytes);
        assert_non_null(whole);
        HmmHeapFree(heap, whole);
        assert_true(HmmHeapCheck(heap));
    }
}

static void the_break_comes_down_when_its_end_is_free(void **state)
{
    (void)state;
    fail_growths(0, 0);
    HmmHeap *heap = heap_open(HMM_FIT_GOOD);
    void *low = HmmHeapAlloc(heap, 1000);
    void *high = HmmHeapAlloc(heap, 4 << 20);
    HmmHeapStats up;
    HmmHeapGetStats(heap, &up);
    assert_true(up.break_bytes > 4 << 20);
    HmmHeapFree(heap, high);
    HmmHeapStats down;
    HmmHeapGetStats(heap, &down);
    assert_true(down.break_bytes < 1 << 20);
    assert_true(hmm_handle_trim(heap, "trim", 0));
    HmmHeapGetStats(heap, &down);
    assert_true(down.break_bytes < 1 << 14);
    assert_false(hmm_handle_trim(heap, "trim", 0));
    assert_true(HmmHeapCheck(heap));
    HmmHeapFree(heap, low);
}

static void a_block_at_the_break_grows_in_place(void **state)
{
    (void)state;
    fail_growths(0, 0);
    HmmHeap *heap = heap_open(HMM_FIT_GOOD);
    void *ptr = HmmHeapAlloc(heap, 1000);
    for (size_t bytes = 2000; bytes < 4 << 20; bytes += bytes / 2) {
        assert_ptr_equal(HmmHeapRealloc(heap, ptr, bytes), ptr);
    }
    assert_ptr_equal(HmmHeapRealloc(heap, ptr, 10), ptr);
    assert_int_equal(HmmHeapUsableSize(heap, ptr), BLOCK_BYTES_MIN - BLOCK_TAG_BYTES);
    HmmHeapFree(heap, ptr);
}

static void a_block_grows_into_its_neighbours(void **state)
{
    (void)state;
    fail_growths(0, 0);
    HmmHeap *heap = heap_open(HMM_FIT_GOOD);
    char *low = HmmHeapAlloc(heap, 1000);
    char *middle = HmmHeapAlloc(heap, 1000);
    char *high = HmmHeapAlloc(heap, 1000);
    char *wall = HmmHeapAlloc(heap, 1000);
    memset(middle, 'm', 1000);
    HmmHeapFree(heap, high);
    assert_ptr_equal(HmmHeapRealloc(heap, middle, 1900), middle);
    HmmHeapFree(heap, low);
    char *slid = HmmHeapRealloc(heap, middle, 2900);
    assert_ptr_equal(slid, low);
    for (size_t i = 0; i < 1000; i++) {
        assert_int_equal(slid[i], 'm');
    }
    assert_true(HmmHeapCheck(heap));
    HmmHeapFree(heap, slid);
    HmmHeapFree(heap, wall);
}

static void a_quota_is_kept(void **state)
{
    (void)state;
    fail_growths(0, 0);
    const struct heap_grant grant = {.quota_bytes = 1 << 20};
    struct region *region = hmm_region_array_init(array, sizeof array);
    HmmHeap *heap = hmm_handle_open(region, NULL, &grant, LOCK_RANK_HEAP);
    assert_non_null(heap);
    HmmHeapStats stats;
    HmmHeapGetStats(heap, &stats);
    assert_int_equal(stats.capacity_bytes, 1 << 20);
    assert_null(HmmHeapAlloc(heap, 1 << 20));
    assert_null(HmmHeapAlloc(heap, stats.largest_free_bytes + 1));
    void *ptr = HmmHeapAlloc(heap, stats.largest_free_bytes);
    assert_non_null(ptr);
    HmmHeapGetStats(heap, &stats);
    assert_true(stats.break_bytes <= 1 << 20);
    HmmHeapFree(heap, ptr);
}

/* The block that growing makes must be found by the search that made the heap grow, also when it
 * grew a little within its bin, which holds more blocks than a search looks at. */
static void what_growing_makes_is_found(void **state)
{
    (void)state;
    for (size_t crowd = 0; crowd <= 2 * FIT_PROBE_COUNT; crowd++) {
        fail_growths(0, 0);
        HmmHeap *heap = heap_open(HMM_FIT_GOOD);
        HmmHeapFree(heap, HmmHeapAlloc(heap, 200000));
        void *blocks[2 * FIT_PROBE_COUNT];
        for (size_t i = 0; i < crowd; i++) {
            blocks[i] = HmmHeapAlloc(heap, 8200);
            assert_non_null(HmmHeapAlloc(heap, 1));
        }
        HmmHeapStats stats;
        HmmHeapGetStats(heap, &stats);
        assert_non_null(HmmHeapAlloc(heap, stats.free_bytes - 8400));
        for (size_t i = 0; i < crowd; i++) {
            HmmHeapFree(heap, blocks[i]);
        }
        size_t growths = growth_number;
        HmmHeapGetStats(heap, &stats);
        heap->heap.grant.quota_bytes = stats.break_bytes + 48;
        assert_non_null(HmmHeapAlloc(heap, 8440));
        assert_int_equal(growth_number, growths + 1);
        assert_true(HmmHeapCheck(heap));
    }
}

/* Resizing into a free neighbour writes the tag behind it anew, so that one is verified too. */
static void resizing_does_not_launder_a_damaged_tag(void **state)
{
    (void)state;
    fail_growths(0, 0);
    HmmHeap *heap = heap_open(HMM_FIT_GOOD);
    char *first = HmmHeapAlloc(heap, 100);
    char *second = HmmHeapAlloc(heap, 100);
    char *third = HmmHeapAlloc(heap, 100);
    assert_non_null(HmmHeapAlloc(heap, 100));
    HmmHeapFree(heap, second);
    block_of(third)->tag ^= 0x100;
    struct crime crime = {0};
    size_t usable_bytes;
    assert_null(hmm_heap_resize(&heap->heap, first, 150, &usable_bytes, &crime));
    assert_string_equal(crime.what, "damaged tag");
    assert_int_equal(crime.at, block_address(block_of(third)));
}

static void trimming_takes_any_number(void **state)
{
    (void)state;
    fail_growths(0, 0);
    HmmHeap *heap = heap_open(HMM_FIT_GOOD);
    void *ptr = HmmHeapAlloc(heap, 100);
    assert_false(hmm_handle_trim(heap, "trim", SIZE_MAX));
    assert_false(hmm_handle_trim(heap, "trim", SIZE_MAX - 7));
    assert_true(HmmHeapCheck(heap));
    HmmHeapFree(heap, ptr);
}

static int releases;

static void counted_release(struct region *region)
{
    (void)region;
    releases++;
}

enum { FIRST_RANGE_BYTES = 512 * 1024, MOST_OF_IT_BYTES = 450000, RATHER_LARGE_BYTES = 100000 };

static struct region *add_range(HmmHeap *heap)
{
    static const struct region_ops counted_ops = {hmm_region_array_grow, hmm_region_array_shrink,
                                                  hmm_region_recover_nothing, counted_release};
    struct region *added =
        hmm_region_array_init(array + FIRST_RANGE_BYTES, sizeof array - FIRST_RANGE_BYTES);
    added->ops = &counted_ops;
    added->goes_when_empty = true;
    assert_true(hmm_heap_add(&heap->heap, added, hmm_region_start(added), BLOCK_BYTES_MIN));
    releases = 0;
    return added;
}

/* A range that was added when addresses ran out goes back once all of it is free, and what it held
 * would find room elsewhere; or when it is asked for. */
static void an_added_range_goes_when_it_is_empty(void **state)
{
    (void)state;
    const struct heap_grant grant = {.quota_bytes = SIZE_MAX, .reach_bytes = 1 << 30};
    struct region *small = hmm_region_array_init(array, FIRST_RANGE_BYTES);
    HmmHeap *heap = hmm_handle_open(small, NULL, &grant, LOCK_RANK_HEAP);
    void *low = HmmHeapAlloc(heap, MOST_OF_IT_BYTES);
    struct region *added = add_range(heap);
    char *first = HmmHeapAlloc(heap, RATHER_LARGE_BYTES);
    char *second = HmmHeapAlloc(heap, RATHER_LARGE_BYTES);
    assert_true(first > (char *)added && second > (char *)added);
    HmmHeapFree(heap, first);
    HmmHeapFree(heap, second);
    assert_int_equal(releases, 0);
    assert_true(hmm_handle_trim(heap, "trim", 0));
    assert_int_equal(releases, 1);
    assert_true(HmmHeapCheck(heap));
    assert_null(HmmHeapAlloc(heap, RATHER_LARGE_BYTES));

    added = add_range(heap);
    first = HmmHeapAlloc(heap, RATHER_LARGE_BYTES);
    assert_true(first > (char *)added);
    HmmHeapFree(heap, low);
    assert_int_equal(releases, 0);
    HmmHeapFree(heap, first);
    assert_int_equal(releases, 1);
    assert_true(HmmHeapCheck(heap));
}

/* -------------------------------------------------------------------- writing into freed blocks */

/* How a child ends that runs `body`: 0, the number of the signal that killed it, or its exit status
 * below 0. */
static int fate_of(void (*body)(HmmFit fit), HmmFit fit)
{
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        (void)freopen("/dev/null", "w", stderr);
        body(fit);
        _exit(0);
    }
    int status = 0;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WIFSIGNALED(status) ? WTERMSIG(status) : -WEXITSTATUS(status);
}

/* A link that leads where the heap was before it gave memory back. */
static void follow_link_above_break(HmmFit fit)
{
    HmmHeap *heap = HmmHeapCreate(64 << 20, &(HmmHeapOptions){.fit = fit});
    char *first = HmmHeapAlloc(heap, 1008);
    (void)HmmHeapAlloc(heap, 24);
    char *second = HmmHeapAlloc(heap, 1000);
    (void)HmmHeapAlloc(heap, 24);
    char *high = HmmHeapAlloc(heap, 32 << 20);
    HmmHeapFree(heap, high);
    HmmHeapFree(heap, first);
    HmmHeapFree(heap, second);
    block_of(first)->next = block_of(second)->next = block_of(high + (16 << 20));
    (void)HmmHeapAlloc(heap, 5000);
    (void)HmmHeapAlloc(heap, 1024);
    (void)HmmHeapAlloc(heap, 1008);
    (void)HmmHeapAlloc(heap, 1000);
}

/* Links that say "end of the list". */
static void follow_zeroed_link(HmmFit fit)
{
    HmmHeap *heap = HmmHeapInit(array, sizeof array, &(HmmHeapOptions){.fit = fit});
    char *blocks[12];
    for (size_t i = 0; i < 12; i++) {
        blocks[i] = HmmHeapAlloc(heap, 1000);
    }
    for (size_t i = 0; i < 12; i += 2) {
        HmmHeapFree(heap, blocks[i]);
    }
    (void)HmmHeapAlloc(heap, 900);
    memset(blocks[4], 0, 1000);
    for (size_t i = 0; i < 6; i++) {
        (void)HmmHeapAlloc(heap, 1000 + 100 * i);
    }
}

/* Six free blocks of an ordered list among used ones; a search or a walk must pass the third. */
static HmmHeap *listed_heap(HmmFit fit, char **blocks, size_t count)
{
    HmmHeap *heap = HmmHeapInit(array, sizeof array, &(HmmHeapOptions){.fit = fit});
    for (size_t i = 0; i < count; i++) {
        blocks[i] = HmmHeapAlloc(heap, 1000 + 16 * i);
    }
    for (size_t i = 0; i < count; i += 2) {
        HmmHeapFree(heap, blocks[i]);
    }
    return heap;
}

/* The place of a block that comes back is looked for along links that nobody has verified. */
static void insert_past_wild_link(HmmFit fit)
{
    char *blocks[12];
    HmmHeap *heap = listed_heap(fit, blocks, 12);
    block_of(blocks[4])->next = block_of(blocks[4])->prev = block_at(0x5a5a5a5a5a58);
    HmmHeapFree(heap, blocks[11]);
    HmmHeapFree(heap, blocks[1]);
    HmmHeapFree(heap, blocks[9]);
}

/* Links to what is no block, but lies among them. */
static void insert_at_false_neighbour(HmmFit fit)
{
    char *blocks[12];
    HmmHeap *heap = listed_heap(fit, blocks, 12);
    memset(blocks[7], 0, 1000);
    block_of(blocks[6])->next = block_of(blocks[7] + 512);
    HmmHeapFree(heap, blocks[9]);
    _exit(blocks[7][512] == 0 && blocks[7][520] == 0 ? 0 : 1);
}

/* Each link names a free block, and the list has no end. */
static void walk_a_ring(HmmFit fit)
{
    char *blocks[12];
    HmmHeapStats stats;
    HmmHeap *heap = listed_heap(fit, blocks, 12);
    (void)alarm(5);
    block_of(blocks[8])->next = block_of(blocks[0]);
    block_of(blocks[0])->prev = block_of(blocks[8]);
    HmmHeapGetStats(heap, &stats);
    (void)HmmHeapAlloc(heap, 1500);
    HmmHeapFree(heap, blocks[11]);
    HmmHeapFree(heap, blocks[3]);
}

static void look_past_wild_link(HmmFit fit)
{
    char *blocks[12];
    HmmHeapStats stats;
    HmmHeap *heap = listed_heap(fit, blocks, 12);
    for (size_t i = 0; i < 12; i += 2) {
        block_of(blocks[i])->next = block_at(0x5a5a5a5a5a58);
    }
    HmmHeapGetStats(heap, &stats);
}

/* Between two pieces of a heap there is nothing. */
static void follow_link_between_pieces(HmmFit fit)
{
    enum { PIECE_BYTES = 256 * 1024 };
    char *pieces =
        mmap(NULL, 3 * PIECE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    (void)munmap(pieces + PIECE_BYTES, PIECE_BYTES);
    HmmHeap *heap = HmmHeapInit(pieces, PIECE_BYTES, &(HmmHeapOptions){.fit = fit});
    (void)HmmHeapAdd(heap, pieces + 2 * PIECE_BYTES, PIECE_BYTES);
    char *blocks[5];
    for (size_t i = 0; i < 5; i++) {
        blocks[i] = HmmHeapAlloc(heap, 1008);
    }
    HmmHeapFree(heap, blocks[0]);
    HmmHeapFree(heap, blocks[2]);
    block_of(blocks[0])->next = block_of(blocks[2])->next = block_of(pieces + PIECE_BYTES + 4096);
    (void)HmmHeapAlloc(heap, 1020);
    HmmHeapFree(heap, blocks[4]);
    (void)HmmHeapAlloc(heap, 1008);
    (void)HmmHeapAlloc(heap, 1008);
}

/* The last word of a heap is a tag, and behind it there is nothing. */
static void follow_link_to_sentinel(HmmFit fit)
{
    enum { PIECE_BYTES = 64 * 1024 };
    char *piece =
        mmap(NULL, 2 * PIECE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    (void)munmap(piece + PIECE_BYTES, PIECE_BYTES);
    HmmHeap *heap = HmmHeapInit(piece, PIECE_BYTES, &(HmmHeapOptions){.fit = fit});
    char *low = HmmHeapAlloc(heap, 1008);
    (void)HmmHeapAlloc(heap, 16);
    while (HmmHeapAlloc(heap, 1000) != NULL) {
    }
    while (HmmHeapAlloc(heap, 1) != NULL) {
    }
    HmmHeapFree(heap, low);
    block_of(low)->next = region_sentinel(heap->heap.regions);
    (void)HmmHeapAlloc(heap, 1008);
}

/* A crime is named, or nothing happens; a raw fault is neither. */
static void wild_links_end_in_no_fault(void **state)
{
    (void)state;
    skip_where_sanitized();
    for (int fit = HMM_FIT_GOOD; fit <= HMM_FIT_BEST; fit++) {
        assert_int_equal(fate_of(follow_link_above_break, (HmmFit)fit), SIGABRT);
        assert_int_equal(fate_of(follow_link_between_pieces, (HmmFit)fit), SIGABRT);
        assert_int_equal(fate_of(follow_link_to_sentinel, (HmmFit)fit), SIGABRT);
        int fate = fate_of(follow_zeroed_link, (HmmFit)fit);
        assert_true(fate == 0 || fate == SIGABRT);
        fate = fate_of(insert_past_wild_link, (HmmFit)fit);
        assert_true(fate == 0 || fate == SIGABRT);
        fate = fate_of(insert_at_false_neighbour, (HmmFit)fit);
        assert_true(fate == 0 || fate == SIGABRT);
        assert_int_equal(fate_of(look_past_wild_link, (HmmFit)fit), 0);
    }
}

/* Nor does any call go on for ever. */
static void rings_are_left(void **state)
{
    (void)state;
    for (int fit = HMM_FIT_GOOD; fit <= HMM_FIT_BEST; fit++) {
        int fate = fate_of(walk_a_ring, (HmmFit)fit);
        assert_true(fate == 0 || fate == SIGABRT);
    }
}

/* ---------------------------------------------------------------------------- the program break */

/* The break is the process's, so each test has a process; an exit status names what failed. */
static void in_child(int (*body)(void))
{
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        _exit(body());
    }
    int status = 0;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

static HmmHeap *heap_on_break(size_t quota_bytes)
{
    const struct heap_grant grant = {.quota_bytes = quota_bytes};
    return hmm_handle_open(hmm_region_sbrk(), NULL, &grant, LOCK_RANK_HEAP);
}

/* Others cut off the end of the break, where all is free: every call finds the heap whole. */
static int use_after_foreign_cut(void)
{
    HmmHeap *heap = heap_on_break(SIZE_MAX);
    char *ptr = HmmHeapAlloc(heap, 100);
    for (int call = 0; call < 5; call++) {
        HmmHeapFree(heap, HmmHeapAlloc(heap, 50000));
        (void)sbrk(-8192);
        if (call == 0 && HmmHeapAlloc(heap, 100) == NULL) {
            return 1;
        }
        if (call == 1 && (ptr = HmmHeapRealloc(heap, ptr, 5000)) == NULL) {
            return 2;
        }
        if (call == 2) {
            HmmHeapFree(heap, ptr);
        }
        if (call == 3) {
            (void)hmm_handle_trim(heap, "trim", 0);
        }
        if (call == 4) {
            HmmHeapStats stats;
            HmmHeapGetStats(heap, &stats);
        }
        if (!HmmHeapCheck(heap)) {
            return 3;
        }
    }
    return 0;
}

static void a_break_that_others_cut_is_mended(void **state)
{
    (void)state;
    in_child(use_after_foreign_cut);
}

/* With a few bytes of quota left and memory of others above the break, growing yields less than the
 * smallest block: it becomes part of the gap. */
static int grow_by_crumbs(void)
{
    size_t page_bytes = hmm_os_page_bytes();
    HmmHeap *heap = heap_on_break(64 * page_bytes + 2 * BLOCK_UNIT_BYTES);
    HmmHeapStats stats;
    HmmHeapGetStats(heap, &stats);
    void *rest = HmmHeapAlloc(heap, 64 * page_bytes - stats.break_bytes + stats.free_bytes);
    while (HmmHeapAlloc(heap, 1) != NULL) {
    }
    (void)sbrk((intptr_t)(page_bytes - 2 * BLOCK_UNIT_BYTES));
    for (int tries = 0; tries < 3; tries++) {
        (void)HmmHeapRealloc(heap, rest, HmmHeapUsableSize(heap, rest) + 1);
        (void)HmmHeapAlloc(heap, 1);
        if (!HmmHeapCheck(heap)) {
            return 1;
        }
    }
    return 0;
}

static void crumbs_behind_a_gap_are_no_block(void **state)
{
    (void)state;
    in_child(grow_by_crumbs);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_nth_growth_fails_for_every_n),
        cmocka_unit_test(the_nth_growth_of_a_hardened_heap_fails_for_every_n),
        cmocka_unit_test(making_a_heap_fails_cleanly),
        cmocka_unit_test(a_full_heap_recovers),
        cmocka_unit_test(the_break_comes_down_when_its_end_is_free),
        cmocka_unit_test(a_block_at_the_break_grows_in_place),
        cmocka_unit_test(a_block_grows_into_its_neighbours),
        cmocka_unit_test(a_quota_is_kept),
        cmocka_unit_test(what_growing_makes_is_found),
        cmocka_unit_test(resizing_does_not_launder_a_damaged_tag),
        cmocka_unit_test(trimming_takes_any_number),
        cmocka_unit_test(an_added_range_goes_when_it_is_empty),
        cmocka_unit_test(wild_links_end_in_no_fault),
        cmocka_unit_test(rings_are_left),
        cmocka_unit_test(a_break_that_others_cut_is_mended),
        cmocka_unit_test(crumbs_behind_a_gap_are_no_block),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
