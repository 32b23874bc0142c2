/*
 * test_purge.c - memory that goes back to the system, by the names of hmm.h. See test_fast.c.
 *
 * test_purge [PATTERN], SEED of the environment.
 */
#include "fast.h"
#include "purge.h"
#include "stats.h"

#include <errno.h>
#include <sched.h>
#include <stdatomic.h>
#include <time.h>

/* ----------------------------------------------------------------------------- memory goes back */

static size_t dirty_bound(void)
{
    return size_max(2 * MEBIBYTE, (taken_count() << GRANULE_SHIFT) / 8);
}

/* The bound, the step in which it is acted on, and what shards have not yet told. */
static void expect_little_dirty(void)
{
    EXPECT(hmm_purge_dirty_bytes() <= dirty_bound() + MEBIBYTE);
}

struct pile {
    unsigned char *blocks[200000];
    size_t count;
};

static void pile_up(struct pile *pile, size_t count, size_t bytes)
{
    for (size_t i = 0; i < count; i++) {
        pile->blocks[i] = HmmAlloc(bytes);
        REQUIRE(pile->blocks[i] != NULL);
        memset(pile->blocks[i], 1, bytes);
    }
    pile->count = count;
}

/* All but a quarter, which lies together by pages. */
static void pile_thin(struct pile *pile, size_t bytes)
{
    size_t together = size_max(3 * 4096 / bytes, 1);
    for (size_t i = 0; i < pile->count; i++) {
        if (i / together % 4 != 0) {
            HmmFree(pile->blocks[i]);
        }
    }
}

/* What lies free between medium blocks may stay while much else is live, and goes with that; and
 * what is free of the rest goes when medium blocks do. */
static void drop_beside_medium_blocks(size_t count, size_t bytes, bool is_medium_first)
{
    enum { MEDIUM = 500, MEDIUM_BYTES = 128 << 10 };
    static struct pile medium;
    static struct pile other;
    pile_up(&other, count, bytes);
    pile_up(&medium, MEDIUM, MEDIUM_BYTES);
    if (is_medium_first) {
        pile_thin(&medium, MEDIUM_BYTES);
    }
    pile_thin(&other, bytes);
    if (!is_medium_first) {
        pile_thin(&medium, MEDIUM_BYTES);
    }
    expect_little_dirty();
    audit();
}

TEST(what_is_free_between_medium_blocks_goes_when_large_ones_do)
{
    drop_beside_medium_blocks(40, 8 * MEBIBYTE, true);
}

TEST(what_is_free_between_medium_blocks_goes_when_small_ones_do)
{
    drop_beside_medium_blocks(200000, 1000, true);
}

TEST(what_is_free_goes_when_medium_blocks_do_after_large_ones)
{
    drop_beside_medium_blocks(40, 8 * MEBIBYTE, false);
}

TEST(what_is_free_goes_when_medium_blocks_do_after_small_ones)
{
    drop_beside_medium_blocks(200000, 1000, false);
}

static unsigned char **peak_blocks;

/* Taken in order and freed in disorder: 7919 divides no count. */
static void peak_and_drop_any(size_t bytes, size_t sum_bytes)
{
    size_t count = sum_bytes / bytes + (sum_bytes / bytes % 7919 == 0);
    peak_blocks = calloc(count, sizeof *peak_blocks);
    for (size_t i = 0; i < count; i++) {
        peak_blocks[i] = HmmAlloc(bytes);
        REQUIRE(peak_blocks[i] != NULL);
        memset(peak_blocks[i], 1, bytes);
    }
    EXPECT(UNIT_IS_SANITIZED || resident_bytes() > count * bytes);
    for (size_t i = 0; i < count; i++) {
        HmmFree(peak_blocks[i * 7919 % count]);
    }
    free(peak_blocks);
}

static void peak_and_drop(size_t bytes, size_t sum_bytes)
{
    size_t before = resident_bytes();
    peak_and_drop_any(bytes, sum_bytes);
    expect_little_dirty();
    /* A huge page may stand ready at the frontier. */
    EXPECT(UNIT_IS_SANITIZED || resident_bytes() < before + (4 + 2) * MEBIBYTE);
    audit();
}

/* Each in a process of its own: a second peak would be a reason for regret. */
TEST(a_peak_of_small_blocks_goes_back)
{
    peak_and_drop(100, 150 * MEBIBYTE);
}

TEST(a_peak_of_kilobytes_goes_back)
{
    peak_and_drop(3000, 150 * MEBIBYTE);
}

TEST(a_peak_of_medium_blocks_goes_back)
{
    peak_and_drop(9000, 150 * MEBIBYTE);
}

TEST(a_peak_of_larger_medium_blocks_goes_back)
{
    peak_and_drop(100000, 200 * MEBIBYTE);
}

TEST(a_peak_of_large_blocks_goes_back)
{
    peak_and_drop(3 * MEBIBYTE, 300 * MEBIBYTE);
}

TEST(a_peak_of_one_block_goes_back)
{
    peak_and_drop(300 * MEBIBYTE, 300 * MEBIBYTE);
}

/* Every tenth of some blocks is free when larger ones come, which do not fit into their places. How
 * much of that memory is left when the heap has become larger than it was. */
static size_t dirty_beside_growth(void)
{
    enum { COUNT = 40, LARGER_COUNT = 40 };
    unsigned char *blocks[COUNT];
    for (size_t i = 0; i < COUNT; i++) {
        blocks[i] = memset(HmmAlloc(MEBIBYTE), 1, MEBIBYTE);
    }
    for (size_t i = 0; i < COUNT; i += 10) {
        HmmFree(blocks[i]);
    }
    EXPECT(hmm_purge_dirty_bytes() >= 4 * MEBIBYTE);
    for (size_t i = 0; i < LARGER_COUNT; i++) {
        (void)memset(HmmAlloc(2 * MEBIBYTE), 1, 2 * MEBIBYTE);
    }
    audit();
    return hmm_purge_dirty_bytes();
}

TEST(growth_is_offset_by_what_is_too_small_for_it)
{
    EXPECT(dirty_beside_growth() == 0);
}

TEST(growth_is_not_offset_where_a_program_keeps_memory)
{
    EXPECT(hmm_alloc_keep(40 * MEBIBYTE));
    EXPECT(dirty_beside_growth() >= 4 * MEBIBYTE);
}

/* As much as the program has asked for stays, and no longer than it asks for it. */
TEST(what_a_program_keeps_stays)
{
    size_t before = resident_bytes();
    EXPECT(hmm_alloc_keep(40 * MEBIBYTE));
    peak_and_drop_any(3 * MEBIBYTE, 100 * MEBIBYTE);
    EXPECT(hmm_purge_dirty_bytes() > 36 * MEBIBYTE);
    EXPECT(hmm_purge_dirty_bytes() <= 41 * MEBIBYTE);
    EXPECT(hmm_alloc_keep(SIZE_MAX));
    peak_and_drop_any(100, 30 * MEBIBYTE);
    peak_and_drop_any(20000, 90 * MEBIBYTE);
    EXPECT(UNIT_IS_SANITIZED || resident_bytes() > before + 80 * MEBIBYTE);
    EXPECT(hmm_alloc_keep(0));
    (void)hmm_alloc_trim(0);
    peak_and_drop_any(3 * MEBIBYTE, 100 * MEBIBYTE);
    EXPECT(hmm_purge_dirty_bytes() < 36 * MEBIBYTE);
    audit();
}

/* What was regretted may stay, but not for long. */
TEST(peak_after_peak_goes_back_in_time)
{
    peak_and_drop_any(100, 30 * MEBIBYTE);
    peak_and_drop_any(50000, 30 * MEBIBYTE);
    peak_and_drop_any(100, 30 * MEBIBYTE);
    sleep(5);
    for (int i = 0; i < 200; i++) {
        HmmFree(HmmAlloc(2 * MEBIBYTE));
    }
    expect_little_dirty();
    audit();
}

/* From the second time on 2 MiB may come back at once, if the machine has huge pages at hand, while
 * others take what is beside. */
static void *come_back(void *argument)
{
    enum { BLOCKS = 20000, TIMES = 4, BYTES = 1000 };
    unsigned char **blocks = calloc(BLOCKS, sizeof *blocks);
    for (int time = 0; time < TIMES; time++) {
        for (size_t i = 0; i < BLOCKS; i++) {
            blocks[i] = HmmCalloc(1, BYTES);
            EXPECT(blocks[i] != NULL && content_is_zero(blocks[i], BYTES));
            content_write(blocks[i], BYTES, (uint32_t)i);
        }
        for (size_t i = 0; i < BLOCKS; i++) {
            EXPECT(content_is(blocks[i], BYTES, (uint32_t)i));
            HmmFree(blocks[i]);
        }
    }
    free(blocks);
    return argument;
}

TEST(a_heap_that_comes_back_is_as_it_should_be)
{
    enum { THREADS = 3 };
    pthread_t threads[THREADS];
    come_back(NULL);
    audit();
    for (size_t i = 0; i < THREADS; i++) {
        REQUIRE(pthread_create(&threads[i], NULL, come_back, NULL) == 0);
    }
    for (size_t i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
    }
    audit();
    HmmStats stats;
    HmmGetStats(&stats);
    EXPECT(stats.peak_bytes < (THREADS + 1) * 24 * MEBIBYTE);
}

enum { DENSE_BLOCKS = 100000, DENSE_BLOCK_BYTES = 1000 };

static unsigned char *dense_blocks[DENSE_BLOCKS];

static void dense_blocks_take(void)
{
    for (size_t i = 0; i < DENSE_BLOCKS; i++) {
        dense_blocks[i] = HmmAlloc(DENSE_BLOCK_BYTES);
        REQUIRE(dense_blocks[i] != NULL);
        memset(dense_blocks[i], 1, DENSE_BLOCK_BYTES);
    }
}

/* A dense heap that has been five times as large, and has a block at its end. */
static void drop_to_a_fifth(void)
{
    dense_blocks_take();
    for (size_t i = DENSE_BLOCKS / 5; i < DENSE_BLOCKS - 1; i++) {
        HmmFree(dense_blocks[i]);
    }
}

/* Where one granule of an extent stays, the system must not bring back what went from around it. */
TEST(what_goes_back_stays_away)
{
    dense_blocks_take();
    for (size_t i = 0; i < DENSE_BLOCKS; i++) {
        if (granule_index(granule_of(dense_blocks[i])) % EXTENT_COUNT != 0) {
            HmmFree(dense_blocks[i]);
        }
    }
    EXPECT_EQUAL(flagged_bytes(" hg"), 0);
    audit();
}

/* Nobody knows how much of a large block will be touched. */
TEST(large_blocks_bring_no_memory_back)
{
    enum { BLOCKS = 35 };
    drop_to_a_fifth();
    (void)hmm_alloc_trim(0);
    hmm_os_refuse_huge((void *)hmm_arena.base, hmm_arena.committed_count << GRANULE_SHIFT);
    size_t before = resident_bytes();
    for (size_t i = 0; i < BLOCKS; i++) {
        unsigned char *ptr = HmmAlignedAlloc(2 * MEBIBYTE, MEBIBYTE);
        REQUIRE(ptr != NULL);
        *ptr = 1;
    }
    EXPECT(UNIT_IS_SANITIZED || resident_bytes() < before + MEBIBYTE);
    audit();
}

/* What would go back at once is not brought in advance. */
TEST_WITH(a_heap_that_keeps_nothing_brings_nothing_back_in_advance, "purge=0")
{
    enum { BLOCKS = 3000 };
    static unsigned char *blocks[BLOCKS];
    drop_to_a_fifth();
    for (size_t i = 0; i < BLOCKS; i++) {
        blocks[i] = HmmAlloc(DENSE_BLOCK_BYTES);
        REQUIRE(blocks[i] != NULL);
        EXPECT(hmm_purge_dirty_bytes() < MEBIBYTE);
    }
    audit();
}

TEST(trimming_gives_everything_back)
{
    static unsigned char *blocks[3000];
    HmmFree(HmmAlloc(1));
    size_t before = resident_bytes();
    for (size_t i = 0; i < 3000; i++) {
        blocks[i] = HmmAlloc(i * 20);
        memset(blocks[i], 1, i * 20);
    }
    for (size_t i = 0; i < 3000; i++) {
        HmmFree(blocks[i]);
    }
    (void)hmm_alloc_trim(0);
    audit();
    EXPECT(hmm_purge_dirty_bytes() <= MEBIBYTE / 4);
    /* A slab for each class may stay. */
    EXPECT(taken_count() <= CLASS_COUNT + 8);
    EXPECT(UNIT_IS_SANITIZED || resident_bytes() < before + (CLASS_COUNT * GRANULE_BYTES));
}

TEST(empty_slabs_are_given_back)
{
    enum { BLOCKS = 30000 };
    static void *blocks[BLOCKS];
    for (unsigned size_class = 0; size_class < CLASS_COUNT; size_class++) {
        size_t bytes = class_bytes(size_class);
        size_t count = size_min(BLOCKS, 10 * class_capacity(size_class));
        size_t taken_before = taken_count();
        for (size_t i = 0; i < count; i++) {
            blocks[i] = HmmAlloc(bytes);
            REQUIRE(blocks[i] != NULL);
        }
        EXPECT(taken_count() >= taken_before + 5);
        audit();
        for (size_t i = 0; i < count; i++) {
            HmmFree(blocks[i * 7919 % count]);
        }
        EXPECT(UNIT_IS_SANITIZED || taken_count() <= taken_before + 1);
        audit();
    }
}

/* Memory that was touched is used again before any other is touched. */
TEST(freed_slots_are_used_again)
{
    enum { BLOCKS = 20000, ROUNDS = 20 };
    static void *blocks[BLOCKS];
    uint64_t random = seed;
    for (int i = 0; i < BLOCKS; i++) {
        blocks[i] = HmmAlloc(64);
    }
    size_t before = hmm_arena.frontier_count;
    for (int round = 0; round < ROUNDS; round++) {
        for (int i = 0; i < BLOCKS; i++) {
            size_t place = random_below(&random, BLOCKS);
            HmmFree(blocks[place]);
            blocks[place] = NULL;
        }
        for (int i = 0; i < BLOCKS; i++) {
            blocks[i] = blocks[i] != NULL ? blocks[i] : HmmAlloc(64);
        }
        audit();
    }
    EXPECT(hmm_arena.frontier_count <= before);
}

/* -------------------------------------------------------------------------- pages of used slabs */

/* Blocks in order, of which every tenth stretch stays, whole: in most slabs some pages are free. */
enum { STRETCH_BYTES = 80 * 1024, KEPT_SHARE = 10, PEAK_SUM_BYTES = 48 * MEBIBYTE };

static struct held *sparse;
static size_t sparse_count;

static bool is_kept(size_t i)
{
    return i * sparse[0].bytes / STRETCH_BYTES % KEPT_SHARE == 0;
}

static void sparse_fill(size_t bytes)
{
    sparse_count = PEAK_SUM_BYTES / bytes;
    sparse = calloc(sparse_count, sizeof *sparse);
    for (size_t i = 0; i < sparse_count; i++) {
        held_keep(&sparse[i], HmmAlloc(bytes), bytes, (uint32_t)i);
    }
}

static void *sparse_drop(void *unused)
{
    for (size_t i = 0; i < sparse_count; i++) {
        if (!is_kept(i)) {
            held_drop(&sparse[i]);
        }
    }
    return unused;
}

/* Whether some of a slab's memory can go. */
static bool slabs_have_pages(void)
{
    return !UNIT_IS_SANITIZED && hmm_os_page_bytes() < GRANULE_BYTES;
}

/* `before`: what was resident before there were blocks. */
static void expect_sparse(size_t before)
{
    HmmHeapStats stats;
    size_t live_bytes = 0;
    for (size_t i = 0; i < sparse_count; i++) {
        live_bytes += sparse[i].ptr != NULL ? HmmUsableSize(sparse[i].ptr) : 0;
        EXPECT(sparse[i].ptr == NULL || content_is(sparse[i].ptr, sparse[i].bytes, sparse[i].salt));
    }
    hmm_thread_flush(hmm_thread.thread); /* what is in batches counts as live */
    hmm_stats_get(&stats);
    EXPECT_EQUAL(stats.live_bytes, live_bytes);
    EXPECT(stats.live_bytes + stats.free_bytes + stats.overhead_bytes == stats.break_bytes);
    EXPECT(!slabs_have_pages() || hmm_purge_away_bytes() != 0);
    EXPECT(UNIT_IS_SANITIZED ||
           resident_bytes() < before + live_bytes + live_bytes / 4 + 4 * MEBIBYTE);
    audit();
}

static size_t sparse_missing_count(void)
{
    size_t count = 0;
    for (size_t i = 0; i < sparse_count; i++) {
        count += sparse[i].ptr == NULL;
    }
    return count;
}

/* What was away is zero, and nobody else's. */
static void sparse_refill(void)
{
    for (size_t i = 0; i < sparse_count; i++) {
        if (sparse[i].ptr == NULL) {
            unsigned char *ptr = HmmCalloc(1, sparse[i].bytes);
            REQUIRE(ptr != NULL);
            EXPECT(content_is_zero(ptr, sparse[i].bytes));
            held_keep(&sparse[i], ptr, sparse[i].bytes, (uint32_t)i * 3);
        }
    }
    audit();
}

/* How many slots of the size the calling thread has taken out of its bin: what was ever put in, but
 * for what is there. */
static size_t taken_slots(size_t bytes)
{
    const struct thread *thread = hmm_thread.thread;
    size_t count = thread->classes[class_of(bytes)].handed_slots;
    for (const struct slot *slot = thread->bins[class_of(bytes)]; slot != NULL;
         slot = slot_next(slot)) {
        count--;
    }
    return count;
}

static void sparse_clear(void)
{
    for (size_t i = 0; i < sparse_count; i++) {
        held_drop(&sparse[i]);
    }
    audit();
    free(sparse);
}

TEST(free_pages_between_blocks_go_back)
{
    static const size_t tried[] = {16, 48, 200, 1100, 2000, 3000, 5000, 8192};
    for (size_t i = 0; i < sizeof tried / sizeof tried[0]; i++) {
        HmmFree(HmmAlloc(tried[i]));
        size_t before = resident_bytes();
        sparse_fill(tried[i]);
        before += UNIT_IS_SANITIZED ? 0 : sparse_count * sizeof *sparse;
        (void)sparse_drop(NULL);
        expect_sparse(before);
        size_t taken_slots_before = taken_slots(tried[i]);
        size_t missing_count = sparse_missing_count();
        sparse_refill();
        EXPECT_EQUAL(taken_slots(tried[i]) - taken_slots_before, missing_count);
        EXPECT(hmm_purge_away_bytes() <= GRANULE_BYTES);
        (void)sparse_drop(NULL);
        audit();
        for (size_t k = 0; k < sparse_count; k++) {
            if (is_kept(k)) {
                held_drop(&sparse[k]);
            }
        }
        free(sparse);
        hmm_thread_flush(hmm_thread.thread);
        EXPECT_EQUAL(hmm_purge_away_bytes(), 0);
        audit();
    }
}

static void *idle(void *unused)
{
    return unused;
}

/* The process grows by one size, when of another few blocks are left, but not in so small a heap as
 * after a drop. How much of the slabs of that went. */
static size_t grow_beside_sparse_slabs(void)
{
    enum { SPARSE_BYTES = 1100, SPARSE_KEPT_ONE_IN = 50, GROWTH_BYTES = 300 };
    const size_t growth_count = 16 * MEBIBYTE / GROWTH_BYTES;
    void *ballast = HmmAlloc((size_t)PEAK_SUM_BYTES / 4 * 5); /* never touched */
    struct held *growth = calloc(growth_count, sizeof *growth);
    sparse_fill(SPARSE_BYTES);
    for (size_t i = 0; i < sparse_count; i++) {
        if (i % SPARSE_KEPT_ONE_IN != 0) {
            held_drop(&sparse[i]);
        }
    }
    EXPECT_EQUAL(hmm_purge_away_bytes(), 0);
    for (size_t i = 0; i < growth_count; i++) {
        held_keep(&growth[i], HmmAlloc(GROWTH_BYTES), GROWTH_BYTES, (uint32_t)i);
    }
    size_t away_bytes = hmm_purge_away_bytes();
    audit();
    sparse_refill();
    for (size_t i = 0; i < growth_count; i++) {
        held_drop(&growth[i]);
    }
    sparse_clear();
    HmmFree(ballast);
    free(growth);
    return away_bytes;
}

TEST(growth_is_offset_by_pages_of_other_sizes)
{
    case_skip_where(!slabs_have_pages(), "slabs have no pages");
    EXPECT(grow_beside_sparse_slabs() >= 8 * MEBIBYTE);
}

TEST(growth_is_offset_by_pages_of_nobodys_slabs)
{
    case_skip_where(!slabs_have_pages(), "slabs have no pages");
    threads_run(1, idle);
    EXPECT(grow_beside_sparse_slabs() >= 8 * MEBIBYTE);
}

TEST_WITH(growth_is_not_offset_where_much_may_stay, "purge=peak")
{
    EXPECT_EQUAL(grow_beside_sparse_slabs(), 0);
}

/* ------------------------------------------------------------------------------------- trimming */

enum { PAGED_COUNT = 4000, PAGED_BYTES = 4096 };

static struct held paged[PAGED_COUNT];

static void *paged_fill(void *unused)
{
    for (size_t i = 0; i < PAGED_COUNT; i++) {
        held_keep(&paged[i], HmmAlloc(PAGED_BYTES), PAGED_BYTES, (uint32_t)i);
    }
    return unused;
}

/* A slot is a page, so what is dropped is a page each: of a slab too few for a stage, or for it
 * to be partial. */
static void *paged_drop(void *unused)
{
    for (size_t i = 0; i < PAGED_COUNT; i += PAGED_COUNT / 400) {
        held_drop(&paged[i]);
    }
    return unused;
}

/* Enough for sleepers to be woken. */
static void *paged_drop_much(void *unused)
{
    for (size_t i = 0; i < PAGED_COUNT; i++) {
        if (i % 5 < 2) {
            held_drop(&paged[i]);
        }
    }
    return unused;
}

/* `least_count`: so many pages at least. */
static void expect_pages_go(size_t least_count)
{
    (void)hmm_alloc_trim(SIZE_MAX);
    EXPECT_EQUAL(hmm_purge_away_bytes(), 0);
    audit();
    EXPECT(hmm_alloc_trim(0));
    EXPECT(hmm_purge_away_bytes() >= least_count * PAGED_BYTES);
    audit();
    EXPECT(!hmm_alloc_trim(0));
    audit();
    for (size_t i = 0; i < PAGED_COUNT; i++) {
        struct held *held = &paged[i];
        EXPECT(held->ptr == NULL || content_is(held->ptr, held->bytes, held->salt));
    }
}

/* What was away is used again, and then whole slabs come back. */
static void paged_refill(void)
{
    size_t taken_before = taken_count();
    for (size_t i = 0; i < PAGED_COUNT; i++) {
        if (paged[i].ptr == NULL) {
            unsigned char *ptr = HmmCalloc(1, PAGED_BYTES);
            EXPECT(content_is_zero(ptr, PAGED_BYTES));
            held_keep(&paged[i], ptr, PAGED_BYTES, (uint32_t)i);
        }
    }
    EXPECT(taken_count() <= taken_before + 1);
    audit();
    for (size_t i = 0; i < PAGED_COUNT; i++) {
        held_drop(&paged[i]);
    }
    (void)hmm_alloc_trim(0);
    EXPECT_EQUAL(hmm_purge_away_bytes(), 0);
    audit();
}

/* Where there are threads full slabs sleep: nobody looks at them. */
TEST(trimming_gives_single_pages_of_slabs_back)
{
    case_skip_where(UNIT_IS_SANITIZED, "a sanitizer is in the way");
    case_skip_where(hmm_os_page_bytes() != PAGED_BYTES, "pages are large");
    (void)paged_fill(NULL);
    (void)paged_drop(NULL);
    expect_pages_go(400);
    paged_refill();
}

TEST_WITH(trimming_gives_pages_of_nobodys_slabs_back, "purge=64M")
{
    case_skip_where(hmm_os_page_bytes() != PAGED_BYTES, "pages are large");
    threads_run(1, idle);
    threads_run(1, paged_fill);
    threads_run(1, paged_drop_much);
    (void)hmm_alloc_trim(SIZE_MAX); /* what the dead had is everybody's now */
    size_t woken_bytes = 0;
    for (size_t index = 0; index < hmm_arena.frontier_count; index++) {
        const struct granule *slab = &hmm_arena.table[index];
        bool is_woken = granule_kind(slab) == GRANULE_SLAB &&
                        remote_state(atomic_load(&slab->remote)) == REMOTE_WOKEN;
        woken_bytes += is_woken ? (slab_slots(slab) - slab->need + slab_remote_count(slab)) *
                                      class_bytes(slab_class(slab))
                                : 0;
    }
    EXPECT(woken_bytes >= PAGED_COUNT / 4 * PAGED_BYTES);
    expect_pages_go(woken_bytes / PAGED_BYTES);
    paged_refill();
}

TEST(trimming_empties_the_bins)
{
    static void *blocks[CLASS_COUNT];
    HmmFree(HmmAlloc(1)); /* opens the thread */
    for (unsigned size_class = 0; size_class < CLASS_COUNT; size_class++) {
        blocks[size_class] = HmmAlloc(class_bytes(size_class));
        (void)hmm_alloc_trim(0);
        audit();
        EXPECT(hmm_thread.bins[size_class] == NULL);
    }
    for (unsigned size_class = 0; size_class < CLASS_COUNT; size_class++) {
        HmmFree(blocks[size_class]);
    }
    (void)hmm_alloc_trim(0);
    EXPECT_EQUAL(taken_count(), 0);
    audit();
}

/* What is kept is what was asked for, roughly; and more than there is means nothing goes. */
TEST(trimming_keeps_what_it_should)
{
    enum { COUNT = 2000, BYTES = 9000 };
    static struct held blocks[COUNT];
    for (size_t i = 0; i < COUNT; i++) {
        held_keep(&blocks[i], HmmAlloc(BYTES), BYTES, (uint32_t)i);
    }
    for (size_t i = 0; i < COUNT; i += 2) {
        held_drop(&blocks[i]);
    }
    size_t before = resident_bytes();
    EXPECT(!hmm_alloc_trim(SIZE_MAX));
    EXPECT(UNIT_IS_SANITIZED || resident_bytes() + MEBIBYTE / 4 > before);
    if (hmm_os_page_bytes() <= BYTES / 2 && !UNIT_IS_SANITIZED) {
        EXPECT(hmm_alloc_trim(COUNT * 3 / 8 * BYTES));
        size_t after = resident_bytes();
        EXPECT(after < before - MEBIBYTE);
        EXPECT(hmm_alloc_trim(0));
        EXPECT(resident_bytes() < after - MEBIBYTE);
    }
    audit();
    for (size_t i = 1; i < COUNT; i += 2) {
        held_drop(&blocks[i]);
    }
}

static atomic_bool is_trimming;

static void *trim_again_and_again(void *unused)
{
    while (atomic_load(&is_trimming)) {
        (void)hmm_alloc_trim(0);
        sched_yield();
    }
    return unused;
}

static void *swap_blocks(void *number)
{
    enum { HELD = 200, STEPS = UNIT_IS_SANITIZED ? 3000 : 30000 };
    struct held held[HELD] = {0};
    uint64_t random = seed + (uintptr_t)number * 0x9e3779b97f4a7c15u + 1;
    for (int step = 0; step < STEPS; step++) {
        held_step(&held[random_below(&random, HELD)], &random);
    }
    for (int i = 0; i < HELD; i++) {
        if (held[i].ptr != NULL) {
            held_drop(&held[i]);
        }
    }
    return NULL;
}

TEST(trimming_beside_threads_harms_nobody)
{
    enum { TRIMMERS = 2 };
    pthread_t threads[TRIMMERS];
    atomic_store(&is_trimming, true);
    for (int i = 0; i < TRIMMERS; i++) {
        REQUIRE(pthread_create(&threads[i], NULL, trim_again_and_again, NULL) == 0);
    }
    threads_run(4, swap_blocks);
    atomic_store(&is_trimming, false);
    for (int i = 0; i < TRIMMERS; i++) {
        pthread_join(threads[i], NULL);
    }
    audit();
    (void)hmm_alloc_trim(0);
    audit();
}

TEST(free_pages_go_back_whoever_freed_them)
{
    threads_run(1, idle); /* from now on full slabs go to sleep */
    HmmFree(HmmAlloc(200));
    size_t before = resident_bytes();
    sparse_fill(200);
    threads_run(1, sparse_drop);
    expect_sparse(before + sparse_count * sizeof *sparse + FULL_MAX * GRANULE_BYTES);
    sparse_refill();
    sparse_clear();
}

static atomic_bool sparse_is_dropped;

static void *sparse_hold(void *unused)
{
    sparse_fill(500);
    (void)sparse_drop(NULL);
    atomic_store(&sparse_is_dropped, true);
    while (atomic_load(&sparse_is_dropped)) {
        sched_yield();
    }
    return unused;
}

/* The slabs were another thread's, which the child does not have. */
TEST(a_child_knows_which_pages_went)
{
    pthread_t thread;
    REQUIRE(pthread_create(&thread, NULL, sparse_hold, NULL) == 0);
    while (!atomic_load(&sparse_is_dropped)) {
        sched_yield();
    }
    int status = -1;
    pid_t child = fork();
    if (child == 0) {
        audit();
        EXPECT(!slabs_have_pages() || hmm_purge_away_bytes() != 0);
        sparse_refill();
        /* The pages that were away have been used, not others. */
        EXPECT(taken_count() <= sparse_count / class_capacity(class_of(sparse[0].bytes)) + 16);
        EXPECT_EQUAL(hmm_purge_away_bytes(), 0);
        sparse_clear();
        _exit(case_status());
    }
    EXPECT(waitpid(child, &status, 0) == child && status == 0);
    atomic_store(&sparse_is_dropped, false);
    pthread_join(thread, NULL);
}

/* What no slab has touched of its granule yet, counted one by one. */
static size_t untouched_bytes(void)
{
    size_t bytes = 0;
    for (size_t index = 0; index < hmm_arena.frontier_count; index++) {
        const struct granule *slab = &hmm_arena.table[index];
        bytes += granule_kind(slab) == GRANULE_SLAB ? slab_untouched_bytes(slab) : 0;
    }
    return bytes;
}

/* ------------------------------------------------------------------ what idle threads have at hand */

enum {
    IDLERS = 32,
    IDLER_BLOCKS = 2000,
    IDLER_BYTES_MAX = 2048,
    IDLER_AWAY_BYTES = 128 << 10, /* each, of 2 MiB that it had */
};

static pthread_barrier_t idlers_done;
static pthread_barrier_t idlers_may_go;

/* Works once, with a slab of each class, keeps a few blocks, and waits. */
static void *idle_with_little(void *number)
{
    uint64_t random = seed + (uintptr_t)number;
    struct held blocks[IDLER_BLOCKS];
    for (size_t i = 0; i < IDLER_BLOCKS; i++) {
        size_t bytes = 1 + random_below(&random, IDLER_BYTES_MAX);
        held_keep(&blocks[i], HmmAlloc(bytes), bytes, (uint32_t)i);
    }
    for (size_t i = 0; i < IDLER_BLOCKS; i++) {
        if (i % 50 != 0) {
            held_drop(&blocks[i]);
        }
    }
    pthread_barrier_wait(&idlers_done);
    pthread_barrier_wait(&idlers_may_go);
    for (size_t i = 0; i < IDLER_BLOCKS; i++) {
        if (i % 50 == 0) {
            held_drop(&blocks[i]);
        }
    }
    return NULL;
}

TEST(idle_threads_keep_little)
{
    pthread_t threads[IDLERS];
    pthread_barrier_init(&idlers_done, NULL, IDLERS + 1);
    pthread_barrier_init(&idlers_may_go, NULL, IDLERS + 1);
    for (uintptr_t i = 0; i < IDLERS; i++) {
        REQUIRE(pthread_create(&threads[i], NULL, idle_with_little, (void *)i) == 0);
    }
    pthread_barrier_wait(&idlers_done);
    EXPECT(hmm_purge_away_bytes() >= (size_t)IDLERS * IDLER_AWAY_BYTES);
    EXPECT_EQUAL(hmm_purge_untouched_bytes(), untouched_bytes());
    pthread_barrier_wait(&idlers_may_go);
    for (size_t i = 0; i < IDLERS; i++) {
        pthread_join(threads[i], NULL);
    }
    audit();
}

/* What others free of theirs, but for a little. */
static struct held owned[IDLERS][IDLER_BLOCKS];
static size_t owned_bytes; /* of each; 0: any */

static void *own_and_idle(void *number)
{
    uint64_t random = seed + (uintptr_t)number;
    for (size_t i = 0; i < IDLER_BLOCKS; i++) {
        size_t bytes = owned_bytes != 0 ? owned_bytes : 1 + random_below(&random, IDLER_BYTES_MAX);
        held_keep(&owned[(uintptr_t)number][i], HmmAlloc(bytes), bytes, (uint32_t)i);
    }
    pthread_barrier_wait(&idlers_done);
    pthread_barrier_wait(&idlers_may_go);
    return NULL;
}

static bool owned_stays(size_t index)
{
    return index % (GRANULE_BYTES / 512) == GRANULE_BYTES / 512 - 1; /* of 512 bytes one a slab */
}

/* What is freed begins with the address of a block on another page that is in use, which is no
 * link. */
static void owned_drop(struct held *held, size_t index)
{
    const size_t other = size_min(index + 9, IDLER_BLOCKS - 1);
    EXPECT(content_is(held[index].ptr, held[index].bytes, held[index].salt));
    if (held[index].bytes >= sizeof held[other].ptr) {
        memcpy(held[index].ptr, &held[other].ptr, sizeof held[other].ptr);
    }
    HmmFree(held[index].ptr);
    held[index].ptr = NULL;
}

static void own_idle_and_lose(size_t bytes)
{
    pthread_t threads[IDLERS];
    owned_bytes = bytes;
    pthread_barrier_init(&idlers_done, NULL, IDLERS + 1);
    pthread_barrier_init(&idlers_may_go, NULL, IDLERS + 1);
    for (uintptr_t i = 0; i < IDLERS; i++) {
        REQUIRE(pthread_create(&threads[i], NULL, own_and_idle, (void *)i) == 0);
    }
    pthread_barrier_wait(&idlers_done);
    const size_t held_bytes = hmm_purge_held_bytes();
    for (size_t k = 0; k < IDLERS; k++) {
        for (size_t i = 0; i < IDLER_BLOCKS; i++) {
            if (!owned_stays(i)) {
                owned_drop(owned[k], i);
            }
        }
    }
    EXPECT(hmm_purge_held_bytes() <= held_bytes / 3 * 2);
    audit();
    pthread_barrier_wait(&idlers_may_go);
    for (size_t i = 0; i < IDLERS; i++) {
        pthread_join(threads[i], NULL);
    }
    for (size_t k = 0; k < IDLERS; k++) {
        for (size_t i = 0; i < IDLER_BLOCKS; i++) {
            if (owned[k][i].ptr != NULL) {
                held_drop(&owned[k][i]);
            }
        }
    }
    (void)hmm_alloc_trim(0);
    EXPECT_EQUAL(hmm_purge_away_bytes(), 0);
    audit();
}

TEST(what_idle_threads_own_goes_when_others_free_it)
{
    case_skip_where(!slabs_have_pages(), "slabs have no pages");
    own_idle_and_lose(0);
}

TEST(what_idle_threads_own_of_one_size_goes_when_others_free_it)
{
    case_skip_where(!slabs_have_pages(), "slabs have no pages");
    own_idle_and_lose(512);
}

/* ----------------------------------------------------------------------- slabs that are thinned */

/* In slabs whose owners have not noticed yet. */
HMM_RACY static size_t thinned_bytes(void)
{
    size_t bytes = 0;
    for (size_t index = 0; index < hmm_arena.frontier_count; index++) {
        const struct granule *slab = &hmm_arena.table[index];
        if (granule_kind(slab) == GRANULE_SLAB) {
            bytes += bit_count(remote_thin(atomic_load(&slab->remote))) * hmm_os_page_bytes();
        }
    }
    return bytes;
}

/* All over the slabs: they empty together, while there is too much. */
static void *sparse_drop_all(void *unused)
{
    const size_t stride = 7919; /* a prime, of which no count of blocks is a multiple */
    for (size_t i = 0; i < sparse_count; i++) {
        held_drop(&sparse[i * stride % sparse_count]);
    }
    return unused;
}

/* The calling thread has full slabs which it has not looked at since others freed all
 * of their slots. */
static void thin(size_t bytes)
{
    threads_run(1, idle); /* from now on full slabs go to sleep */
    sparse_fill(bytes);
    threads_run(1, sparse_drop_all);
    EXPECT(thinned_bytes() <= (FULL_MAX + 1) * GRANULE_BYTES); /* the current one, too */
    EXPECT(UNIT_IS_SANITIZED || thinned_bytes() >= GRANULE_BYTES / 2);
    EXPECT(hmm_purge_away_bytes() >= thinned_bytes());
    audit();
}

TEST(slabs_are_thinned_whose_owner_is_idle)
{
    static const size_t tried[] = {16, 500, 1100, 8192};
    for (size_t i = 0; i < sizeof tried / sizeof tried[0]; i++) {
        thin(tried[i]);
        sparse_refill(); /* calloc must find zeros */
        EXPECT_EQUAL(thinned_bytes(), 0);
        EXPECT_EQUAL(hmm_purge_away_bytes(), 0);
        EXPECT_EQUAL(hmm_purge_untouched_bytes(), untouched_bytes());
        sparse_clear();
        EXPECT_EQUAL(hmm_purge_untouched_bytes(), untouched_bytes());
    }
}

TEST(a_child_has_thinned_slabs)
{
    int status = -1;
    thin(500);
    pid_t child = fork();
    if (child == 0) {
        audit();
        sparse_refill();
        EXPECT_EQUAL(thinned_bytes(), 0);
        sparse_clear();
        _exit(case_status());
    }
    EXPECT(waitpid(child, &status, 0) == child && status == 0);
    sparse_refill();
    sparse_clear();
}

static void *thin_and_end(void *unused)
{
    thin(500);
    return unused;
}

/* In the child of such a thread's process others' slabs are thinned. */
static void *thin_and_wait(void *unused)
{
    thin(500);
    atomic_store(&sparse_is_dropped, true);
    while (atomic_load(&sparse_is_dropped)) {
        sched_yield();
    }
    return unused;
}

TEST(thinned_slabs_of_the_dead_are_given_back)
{
    pthread_t thread;
    int status = -1;
    threads_run(1, thin_and_end);
    EXPECT_EQUAL(thinned_bytes(), 0);
    REQUIRE(pthread_create(&thread, NULL, thin_and_wait, NULL) == 0);
    while (!atomic_load(&sparse_is_dropped)) {
        sched_yield();
    }
    pid_t child = fork();
    if (child == 0) {
        EXPECT_EQUAL(thinned_bytes(), 0);
        audit();
        _exit(case_status());
    }
    EXPECT(waitpid(child, &status, 0) == child && status == 0);
    atomic_store(&sparse_is_dropped, false);
    pthread_join(thread, NULL);
    EXPECT_EQUAL(thinned_bytes(), 0);
    EXPECT_EQUAL(hmm_purge_away_bytes(), 0);
    audit();
}

/* Pairs: one takes what fills a few slabs, the other gives it back while the first is already
 * at the next. */
enum { PAIRS = 3, HANDS = 2, HAND_BLOCKS = 1500, HAND_ROUNDS = 60, HAND_BYTES = 1000 };

static struct hand {
    _Atomic bool is_full;
    struct parcel *blocks[HAND_BLOCKS];
} hands[PAIRS][HANDS];

static atomic_size_t thinned_seen;

static void hand_await(struct hand *hand, bool is_full)
{
    while (atomic_load_explicit(&hand->is_full, memory_order_acquire) != is_full) {
        sched_yield();
    }
}

static void *pair_run(void *number)
{
    size_t index = (size_t)number;
    for (uint32_t round = 0; round < HAND_ROUNDS && case_failure_count == 0; round++) {
        struct hand *hand = &hands[index / 2][round % HANDS];
        bool is_giver = index % 2 == 0;
        hand_await(hand, !is_giver);
        for (uint32_t i = 0; i < HAND_BLOCKS; i++) {
            if (is_giver) {
                hand->blocks[i] = parcel_new(HAND_BYTES + i % 20, round + i);
            } else {
                parcel_drop(hand->blocks[i]);
            }
        }
        atomic_store_explicit(&hand->is_full, is_giver, memory_order_release);
        atomic_fetch_add(&thinned_seen, is_giver ? thinned_bytes() : 0);
    }
    return NULL;
}

TEST(slabs_are_thinned_under_their_owners)
{
    sparse_fill(500); /* a peak, so that all that follows is after a drop */
    sparse_clear();
    sparse = NULL;
    threads_run(2 * PAIRS, pair_run);
    EXPECT(UNIT_IS_SANITIZED || atomic_load(&thinned_seen) != 0);
    audit();
    (void)hmm_alloc_trim(0);
    EXPECT_EQUAL(thinned_bytes(), 0);
    EXPECT_EQUAL(hmm_purge_away_bytes(), 0);
    audit();
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_free_between_medium_blocks_goes_when_large_ones_do),
        cmocka_unit_test(what_is_free_between_medium_blocks_goes_when_small_ones_do),
        cmocka_unit_test(what_is_free_goes_when_medium_blocks_do_after_large_ones),
        cmocka_unit_test(what_is_free_goes_when_medium_blocks_do_after_small_ones),
        cmocka_unit_test(a_peak_of_small_blocks_goes_back),
        cmocka_unit_test(a_peak_of_kilobytes_goes_back),
        cmocka_unit_test(a_peak_of_medium_blocks_goes_back),
        cmocka_unit_test(a_peak_of_larger_medium_blocks_goes_back),
        cmocka_unit_test(a_peak_of_large_blocks_goes_back),
        cmocka_unit_test(a_peak_of_one_block_goes_back),
        cmocka_unit_test(growth_is_offset_by_what_is_too_small_for_it),
        cmocka_unit_test(growth_is_not_offset_where_a_program_keeps_memory),
        cmocka_unit_test(what_a_program_keeps_stays),
        cmocka_unit_test(peak_after_peak_goes_back_in_time),
        cmocka_unit_test(a_heap_that_comes_back_is_as_it_should_be),
        cmocka_unit_test(what_goes_back_stays_away),
        cmocka_unit_test(large_blocks_bring_no_memory_back),
        cmocka_unit_test(a_heap_that_keeps_nothing_brings_nothing_back_in_advance),
        cmocka_unit_test(trimming_gives_everything_back),
        cmocka_unit_test(empty_slabs_are_given_back),
        cmocka_unit_test(freed_slots_are_used_again),
        cmocka_unit_test(free_pages_between_blocks_go_back),
        cmocka_unit_test(growth_is_offset_by_pages_of_other_sizes),
        cmocka_unit_test(growth_is_offset_by_pages_of_nobodys_slabs),
        cmocka_unit_test(growth_is_not_offset_where_much_may_stay),
        cmocka_unit_test(trimming_gives_single_pages_of_slabs_back),
        cmocka_unit_test(trimming_gives_pages_of_nobodys_slabs_back),
        cmocka_unit_test(trimming_empties_the_bins),
        cmocka_unit_test(trimming_keeps_what_it_should),
        cmocka_unit_test(trimming_beside_threads_harms_nobody),
        cmocka_unit_test(free_pages_go_back_whoever_freed_them),
        cmocka_unit_test(a_child_knows_which_pages_went),
        cmocka_unit_test(idle_threads_keep_little),
        cmocka_unit_test(what_idle_threads_own_goes_when_others_free_it),
        cmocka_unit_test(what_idle_threads_own_of_one_size_goes_when_others_free_it),
        cmocka_unit_test(slabs_are_thinned_whose_owner_is_idle),
        cmocka_unit_test(a_child_has_thinned_slabs),
        cmocka_unit_test(thinned_slabs_of_the_dead_are_given_back),
        cmocka_unit_test(slabs_are_thinned_under_their_owners),
    };
    seed = seed_draw();
    cmocka_set_test_filter(argc > 1 ? argv[1] : NULL);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
