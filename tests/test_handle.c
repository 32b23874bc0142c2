/*
 * test_handle.c - first-class heaps as hmm.h promises them.
 */
#include "block.h"
#include "doors/footprint.h"
#include "hmm.h"
#include "unit.h"

#include <errno.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { SMALL_BYTES = 4096, LARGE_BYTES = 1 << 20 };

static _Alignas(4096) unsigned char small[SMALL_BYTES];
static _Alignas(65536) unsigned char large[LARGE_BYTES];
static _Alignas(64) unsigned char pieces[4][32768];

static void refused(HmmHeap *heap)
{
    assert_null(heap);
    assert_int_equal(errno, EINVAL);
    errno = 0;
}

static void memory_that_is_none_is_refused(void **state)
{
    (void)state;
    errno = 0;
    refused(HmmHeapInit(NULL, LARGE_BYTES, NULL));
    refused(HmmHeapInit(large, 0, NULL));
    refused(HmmHeapInit(large + 1, 4096, NULL));
    refused(HmmHeapInit(large + BLOCK_UNIT_BYTES / 2, 4096, NULL));
    refused(HmmHeapInit(large, SIZE_MAX, NULL));
    refused(HmmHeapInit(large, SIZE_MAX - (uintptr_t)large + 1, NULL));
    refused(HmmHeapInit(large, 64, NULL));
}

static void options_out_of_range_are_refused(void **state)
{
    (void)state;
    errno = 0;
    refused(HmmHeapInit(large, LARGE_BYTES, &(HmmHeapOptions){.fit = (HmmFit)4}));
    refused(HmmHeapInit(large, LARGE_BYTES, &(HmmHeapOptions){.integrity = (HmmIntegrity)9}));
    refused(HmmHeapInit(large, LARGE_BYTES, &(HmmHeapOptions){.hardening = (HmmHardening)4}));
    refused(HmmHeapInit(large, LARGE_BYTES, &(HmmHeapOptions){.lock = (void (*)(void *))refused}));
    refused(HmmHeapCreate(1, NULL));
    refused(HmmHeapCreate(1 << 20, &(HmmHeapOptions){.fit = (HmmFit)-1}));
}

/* Memory that a heap lies in already is not touched by a call that only says what is wrong. */
static void refused_options_leave_the_memory_alone(void **state)
{
    (void)state;
    HmmHeap *heap = HmmHeapInit(small, SMALL_BYTES, NULL);
    void *block = HmmHeapAlloc(heap, 100);
    errno = 0;
    refused(HmmHeapInit(small, SMALL_BYTES, &(HmmHeapOptions){.fit = (HmmFit)4}));
    assert_true(HmmHeapCheck(heap));
    HmmHeapFree(heap, block);
    HmmHeapDestroy(heap);
}

/* Every size up to two pages either is refused or makes a heap that works to its last byte. Returns
 * the smallest that does. */
static size_t try_every_size(const HmmHeapOptions *options)
{
    size_t smallest_bytes = 0;
    bool was_accepted = false;
    for (size_t bytes = 0; bytes <= 2 * SMALL_BYTES; bytes++) {
        HmmHeap *heap = HmmHeapInit(large, bytes, options);
        assert_true(heap != NULL || !was_accepted);
        if (heap == NULL) {
            continue;
        }
        smallest_bytes = was_accepted ? smallest_bytes : bytes;
        was_accepted = true;
        large[bytes] = 0xa5;
        HmmHeapStats stats;
        HmmHeapGetStats(heap, &stats);
        assert_null(HmmHeapAlloc(heap, stats.largest_free_bytes + 1));
        void *ptr = HmmHeapAlloc(heap, stats.largest_free_bytes);
        assert_non_null(ptr);
        memset(ptr, 0xff, HmmHeapUsableSize(heap, ptr));
        assert_true((unsigned char *)ptr + HmmHeapUsableSize(heap, ptr) <= large + bytes);
        assert_true(HmmHeapCheck(heap));
        HmmHeapFree(heap, ptr);
        assert_true(HmmHeapCheck(heap));
        assert_int_equal(large[bytes], 0xa5);
    }
    return smallest_bytes;
}

static void every_size_is_refused_or_works(void **state)
{
    (void)state;
    for (int fit = HMM_FIT_GOOD; fit <= HMM_FIT_BEST; fit++) {
        for (int level = HMM_HARDENING_NONE; level <= HMM_HARDENING_QUARANTINE; level++) {
            size_t smallest_bytes = try_every_size(
                &(HmmHeapOptions){.fit = (HmmFit)fit, .hardening = (HmmHardening)level});
            assert_true(smallest_bytes <= 1024);
            print_message("# fit %d, hardening %d: %zu bytes are a heap\n", fit, level,
                          smallest_bytes);
        }
    }
}

static void four_kibibytes_are_a_useful_heap(void **state)
{
    (void)state;
    static const size_t least_counts[] = {
        [HMM_HARDENING_NONE] = 75, [HMM_HARDENING_SEALS] = 50, [HMM_HARDENING_QUARANTINE] = 48};
    for (int level = HMM_HARDENING_NONE; level <= HMM_HARDENING_QUARANTINE; level++) {
        HmmHeap *heap =
            HmmHeapInit(small, sizeof small, &(HmmHeapOptions){.hardening = (HmmHardening)level});
        assert_non_null(heap);
        size_t count = 0;
        while (HmmHeapAlloc(heap, 24) != NULL) {
            count++;
        }
        print_message("# %zu blocks of 24 bytes in 4 KiB, hardening %d\n", count, level);
        assert_true(count >= least_counts[level]);
    }
}

static void a_used_block_costs_one_word(void **state)
{
    (void)state;
    HmmHeap *heap = HmmHeapInit(large, LARGE_BYTES, NULL);
    char *first = HmmHeapAlloc(heap, 1000);
    char *second = HmmHeapAlloc(heap, 1000);
    assert_int_equal(second - first, 1000 + sizeof(void *));
    assert_int_equal(HmmHeapUsableSize(heap, first), 1000);
}

static void counters_follow(void **state)
{
    (void)state;
    HmmHeap *heap = HmmHeapInit(large, LARGE_BYTES, NULL);
    HmmHeapStats stats;
    HmmHeapGetStats(heap, &stats);
    assert_int_equal(stats.capacity_bytes, LARGE_BYTES);
    assert_int_equal(stats.live_count, 0);
    void *first = HmmHeapAlloc(heap, 1000);
    void *second = HmmHeapAlloc(heap, 3000);
    HmmHeapGetStats(heap, &stats);
    size_t usable = HmmHeapUsableSize(heap, first) + HmmHeapUsableSize(heap, second);
    assert_int_equal(stats.live_count, 2);
    assert_int_equal(stats.live_bytes, usable);
    HmmHeapFree(heap, second);
    assert_null(HmmHeapAlloc(heap, 2 * LARGE_BYTES));
    assert_null(HmmHeapAlloc(heap, SIZE_MAX));
    HmmHeapGetStats(heap, &stats);
    assert_int_equal(stats.live_count, 1);
    assert_int_equal(stats.peak_live_bytes, usable);
    assert_int_equal(stats.failed_count, 2);
    assert_int_equal(stats.failed_bytes_max, SIZE_MAX);
    assert_int_equal(stats.break_bytes, stats.live_bytes + stats.free_bytes + stats.overhead_bytes);
}

/* Alignments up to the array's own size. */
static void alignments_up_to_the_array(void **state)
{
    (void)state;
    for (int fit = HMM_FIT_GOOD; fit <= HMM_FIT_BEST; fit++) {
        HmmHeap *heap = HmmHeapInit(large, LARGE_BYTES, &(HmmHeapOptions){.fit = (HmmFit)fit});
        for (size_t alignment = 1; alignment <= 65536; alignment *= 2) {
            char *ptr = HmmHeapAlignedAlloc(heap, alignment, 100);
            assert_non_null(ptr);
            assert_int_equal((uintptr_t)ptr % alignment, 0);
            char *again = HmmHeapAlignedAlloc(heap, alignment, 70000);
            assert_non_null(again);
            assert_int_equal((uintptr_t)again % alignment, 0);
            HmmHeapFree(heap, ptr);
            assert_true(HmmHeapCheck(heap));
            HmmHeapFree(heap, again);
        }
        size_t half = LARGE_BYTES / 2;
        uintptr_t within = align_up((uintptr_t)large + SMALL_BYTES, half);
        void *ptr = HmmHeapAlignedAlloc(heap, half, 1000);
        assert_ptr_equal(ptr, (void *)within);
        HmmHeapFree(heap, ptr);
        errno = 0;
        assert_null(HmmHeapAlignedAlloc(heap, (size_t)1 << 40, 1));
        assert_int_equal(errno, ENOMEM);
        assert_null(HmmHeapAlignedAlloc(heap, SIZE_MAX / 2 + 1, 1));
        assert_int_equal(errno, ENOMEM);
        assert_null(HmmHeapAlignedAlloc(heap, 0, 1));
        assert_int_equal(errno, EINVAL);
        assert_null(HmmHeapAlignedAlloc(heap, 24, 1));
        assert_int_equal(errno, EINVAL);
        assert_true(HmmHeapCheck(heap));
    }
}

static void pieces_are_added_and_bad_ones_refused(void **state)
{
    (void)state;
    HmmHeap *heap = HmmHeapInit(small, sizeof small, NULL);
    assert_null(HmmHeapAlloc(heap, 20000));
    assert_true(HmmHeapAdd(heap, pieces[1], sizeof pieces[1]));
    void *ptr = HmmHeapAlloc(heap, 20000);
    assert_non_null(ptr);
    assert_true(HmmHeapAdd(heap, large, LARGE_BYTES));
    void *whole = HmmHeapAlloc(heap, 900000);
    assert_non_null(whole);
    errno = 0;
    assert_false(HmmHeapAdd(heap, small, sizeof small));
    assert_false(HmmHeapAdd(heap, pieces[1], 4096));
    assert_false(HmmHeapAdd(heap, pieces[0] + 16384, sizeof pieces[0]));
    assert_false(HmmHeapAdd(heap, pieces[1] + 16384, sizeof pieces[0]));
    assert_false(HmmHeapAdd(heap, pieces, sizeof pieces));
    assert_false(HmmHeapAdd(heap, NULL, 4096));
    assert_false(HmmHeapAdd(heap, pieces[2] + 8, 4096));
    assert_false(HmmHeapAdd(heap, pieces[2], 32));
    assert_false(HmmHeapAdd(heap, pieces[2], SIZE_MAX));
    assert_int_equal(errno, EINVAL);
    assert_true(HmmHeapCheck(heap));
    assert_true(HmmHeapAdd(heap, pieces[2], sizeof pieces[2]));
    HmmHeapFree(heap, ptr);
    HmmHeapFree(heap, whole);
    assert_true(HmmHeapCheck(heap));
    HmmHeapStats stats;
    HmmHeapGetStats(heap, &stats);
    assert_int_equal(stats.capacity_bytes,
                     sizeof small + 2 * sizeof pieces[1] + (size_t)LARGE_BYTES);
}

/* A piece somewhat larger than the first memory may need bins that were not there; found by the
 * fuzzer at 2048 and 2368 bytes. */
static void pieces_of_every_size_are_indexed(void **state)
{
    (void)state;
    for (size_t bytes = 256; bytes <= 16384; bytes += 16) {
        HmmHeap *heap = HmmHeapInit(small, 2048, NULL);
        assert_true(HmmHeapAdd(heap, large, bytes));
        HmmHeapStats stats;
        HmmHeapGetStats(heap, &stats);
        void *ptr = HmmHeapAlloc(heap, stats.largest_free_bytes);
        assert_non_null(ptr);
        assert_true(HmmHeapCheck(heap));
        HmmHeapFree(heap, ptr);
        assert_true(HmmHeapCheck(heap));
    }
}

struct rescue {
    int calls;
    int gives; /* how often it helps */
    size_t bytes;
};

static bool rescue_by_adding(HmmHeap *heap, size_t bytes, void *context)
{
    struct rescue *rescue = context;
    rescue->calls++;
    rescue->bytes = bytes;
    return rescue->calls <= rescue->gives &&
           HmmHeapAdd(heap, pieces[rescue->calls], sizeof pieces[0]);
}

static void on_full_can_help_or_give_up(void **state)
{
    (void)state;
    struct rescue rescue = {.gives = 1};
    HmmHeap *heap = HmmHeapInit(small, sizeof small,
                                &(HmmHeapOptions){.on_full = rescue_by_adding, .context = &rescue});
    assert_non_null(HmmHeapAlloc(heap, 20000));
    assert_int_equal(rescue.calls, 1);
    assert_int_equal(rescue.bytes, 20000);
    errno = 0;
    assert_null(HmmHeapAlloc(heap, 30000));
    assert_int_equal(errno, ENOMEM);
    assert_int_equal(rescue.calls, 2);
    assert_null(HmmHeapAlloc(heap, SIZE_MAX));
    assert_int_equal(rescue.calls, 2);
}

static bool rescue_by_freeing(HmmHeap *heap, size_t bytes, void *context)
{
    (void)bytes;
    void **spare = context;
    void *freed = *spare;
    *spare = NULL;
    HmmHeapFree(heap, freed);
    return freed != NULL;
}

static bool count_call(HmmHeap *heap, size_t bytes, void *context)
{
    (void)heap;
    (void)bytes;
    ++*(int *)context;
    return false;
}

static void on_full_is_asked_for_blocks_of_0_bytes(void **state)
{
    (void)state;
    int calls = 0;
    HmmHeap *heap = HmmHeapInit(small, SMALL_BYTES,
                                &(HmmHeapOptions){.on_full = count_call, .context = &calls});
    while (HmmHeapAlloc(heap, 1) != NULL) {
    }
    calls = 0;
    assert_null(HmmHeapAlloc(heap, 0));
    assert_int_equal(calls, 1);
    assert_null(HmmHeapCalloc(heap, 0, 5));
    assert_int_equal(calls, 2);
    assert_null(HmmHeapRealloc(heap, NULL, 0));
    assert_int_equal(calls, 3);
    HmmHeapDestroy(heap);
}

/* Neither what on_full frees behind a block, nor what is held back there, is a place for another
 * one as large as the block becomes. */
static void room_that_was_made_behind_a_block_is_its_own(void **state)
{
    (void)state;
    for (int level = HMM_HARDENING_NONE; level <= HMM_HARDENING_QUARANTINE; level++) {
        for (int is_held = 0; is_held < 2; is_held++) {
            void *spare = NULL;
            HmmHeap *heap = HmmHeapInit(large, 64 << 10,
                                        &(HmmHeapOptions){.hardening = (HmmHardening)level,
                                                          .on_full = rescue_by_freeing,
                                                          .context = &spare});
            char *ptr = HmmHeapAlloc(heap, 40000);
            void *behind = HmmHeapAlloc(heap, 3000);
            assert_true(ptr != NULL && behind != NULL);
            memset(ptr, 7, 40000);
            HmmHeapStats stats;
            for (HmmHeapGetStats(heap, &stats); stats.largest_free_bytes != 0;
                 HmmHeapGetStats(heap, &stats)) {
                assert_non_null(HmmHeapAlloc(heap, stats.largest_free_bytes));
            }
            if (is_held) {
                HmmHeapFree(heap, behind);
            } else {
                spare = behind;
            }
            assert_ptr_equal(HmmHeapRealloc(heap, ptr, 42000), ptr);
            assert_true(ptr[0] == 7 && ptr[39999] == 7);
            assert_true(HmmHeapCheck(heap));
            errno = 0;
            assert_null(HmmHeapRealloc(heap, ptr, 60000));
            assert_int_equal(errno, ENOMEM);
        }
    }
}

struct counted_lock {
    int depth;
    int taken;
};

static void counted_take(void *context)
{
    struct counted_lock *lock = context;
    assert_int_equal(lock->depth, 0);
    lock->depth++;
    lock->taken++;
}

static void counted_give(void *context)
{
    struct counted_lock *lock = context;
    assert_int_equal(lock->depth, 1);
    lock->depth--;
}

static void a_given_lock_is_held_in_every_call(void **state)
{
    (void)state;
    for (int level = HMM_HARDENING_NONE; level <= HMM_HARDENING_QUARANTINE; level++) {
        struct counted_lock lock = {0};
        HmmHeap *heap = HmmHeapInit(large, LARGE_BYTES,
                                    &(HmmHeapOptions){.hardening = (HmmHardening)level,
                                                      .lock = counted_take,
                                                      .unlock = counted_give,
                                                      .context = &lock});
        HmmHeapStats stats;
        void *ptr = HmmHeapRealloc(heap, HmmHeapCalloc(heap, 10, 10), 5000);
        assert_true(HmmHeapUsableSize(heap, ptr) >= 5000);
        HmmHeapFree(heap, ptr);
        HmmHeapGetStats(heap, &stats);
        assert_true(HmmHeapCheck(heap));
        assert_int_equal(lock.taken, 6);
        assert_int_equal(lock.depth, 0);
    }
}

static bool stop_after(void *ptr, size_t usable_bytes, bool is_used, void *context)
{
    size_t *left = context;
    assert_non_null(ptr);
    assert_true(usable_bytes >= 24);
    (void)is_used;
    return --*left > 0;
}

static void a_walk_can_be_ended(void **state)
{
    (void)state;
    HmmHeap *heap = HmmHeapInit(large, LARGE_BYTES, NULL);
    for (int i = 0; i < 10; i++) {
        assert_non_null(HmmHeapAlloc(heap, 100));
    }
    size_t left = 100;
    assert_true(HmmHeapWalk(heap, stop_after, &left));
    assert_int_equal(left, 100 - 11);
    left = 3;
    assert_false(HmmHeapWalk(heap, stop_after, &left));
}

/* realloc of NULL allocates, to 0 frees, and a failure leaves the block alone. */
static void realloc_at_its_edges(void **state)
{
    (void)state;
    HmmHeap *heap = HmmHeapInit(small, sizeof small, NULL);
    char *ptr = HmmHeapRealloc(heap, NULL, 100);
    assert_non_null(ptr);
    memset(ptr, 'x', 100);
    errno = 0;
    assert_null(HmmHeapRealloc(heap, ptr, 1 << 20));
    assert_int_equal(errno, ENOMEM);
    assert_null(HmmHeapRealloc(heap, ptr, SIZE_MAX));
    for (int i = 0; i < 100; i++) {
        assert_int_equal(ptr[i], 'x');
    }
    errno = 0;
    assert_null(HmmHeapRealloc(heap, ptr, 0));
    assert_int_equal(errno, 0);
    HmmHeapStats stats;
    HmmHeapGetStats(heap, &stats);
    assert_int_equal(stats.live_count, 0);
    HmmHeapFree(heap, NULL);
    assert_int_equal(HmmHeapUsableSize(heap, NULL), 0);
    assert_null(HmmHeapCalloc(heap, SIZE_MAX / 2, 3));
    assert_int_equal(errno, ENOMEM);
}

/* A created heap keeps its limit, and gives its memory back when it ends. */
static void a_created_heap_has_a_limit(void **state)
{
    (void)state;
    for (int round = 0; round < 100; round++) {
        HmmHeap *heap = HmmHeapCreate(100000, NULL);
        assert_non_null(heap);
        HmmHeapStats stats;
        HmmHeapGetStats(heap, &stats);
        assert_true(stats.capacity_bytes <= 100000);
        assert_null(HmmHeapAlloc(heap, 100000));
        assert_null(HmmHeapAlloc(heap, stats.largest_free_bytes + 1));
        void *ptr = HmmHeapAlloc(heap, stats.largest_free_bytes);
        assert_non_null(ptr);
        memset(ptr, 1, stats.largest_free_bytes);
        HmmHeapDestroy(heap);
    }
    HmmHeap *unlimited = HmmHeapCreate(0, NULL);
    assert_non_null(unlimited);
    void *ptr = HmmHeapAlloc(unlimited, 64 << 20);
    assert_non_null(ptr);
    HmmHeapFree(unlimited, ptr);
    HmmHeapStats stats;
    HmmHeapGetStats(unlimited, &stats);
    assert_true(stats.break_bytes < 32 << 20);
    HmmHeapDestroy(unlimited);
    HmmHeapDestroy(NULL);
}

/* Whether it is the limit that is to blame, or that there are no addresses. */
static void a_refusal_says_why(void **state)
{
    (void)state;
    skip_where_sanitized();
    enum { LIMIT_BYTES_ENOUGH = 700, LIMIT_BYTES_TOO_FEW = 100 };
    struct rlimit limit;
    HmmHeap *heap = HmmHeapCreate(LIMIT_BYTES_ENOUGH, NULL);
    assert_non_null(heap);
    HmmHeapDestroy(heap);
    errno = 0;
    assert_true(HmmHeapCreate(LIMIT_BYTES_TOO_FEW, NULL) == NULL && errno == EINVAL);
    assert_int_equal(getrlimit(RLIMIT_AS, &limit), 0);
    const struct rlimit none = {4096, limit.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_AS, &none), 0);
    errno = 0;
    heap = HmmHeapCreate(LIMIT_BYTES_ENOUGH, NULL);
    int code = errno;
    assert_int_equal(setrlimit(RLIMIT_AS, &limit), 0);
    assert_true(heap == NULL && code == ENOMEM);
}

/* So many that the next one begins with a small range. */
enum { HEAPS = 4000, RANGE_BYTES = 1 << 30 };
static HmmHeap *heaps[HEAPS];

static void create_many(void)
{
    for (int i = 0; i < HEAPS; i++) {
        heaps[i] = HmmHeapCreate(0, NULL);
        assert_non_null(heaps[i]);
    }
}

static void destroy_many(void)
{
    for (int i = 0; i < HEAPS; i++) {
        HmmHeapDestroy(heaps[i]);
    }
}

static void thousands_need_no_limit(void **state)
{
    (void)state;
    skip_where_sanitized();
    create_many();
    for (int i = 0; i < HEAPS; i++) {
        assert_non_null(HmmHeapCalloc(heaps[i], 1, 100));
    }
    destroy_many();
}

static HmmHeapStats stats_of(const HmmHeap *heap)
{
    HmmHeapStats stats;
    HmmHeapGetStats(heap, &stats);
    return stats;
}

/* In blocks that are a third of the range that it begins with, and more. */
static void a_heap_takes_range_after_range(void **state)
{
    (void)state;
    skip_where(sizeof(void *) < 8, "there are few addresses");
    skip_where_sanitized();
    enum { BLOCKS = 8 };
    create_many();
    HmmHeap *heap = HmmHeapCreate(0, NULL);
    const size_t capacity_bytes = stats_of(heap).capacity_bytes;
    assert_true(capacity_bytes <= RANGE_BYTES);
    for (int round = 0; round < 3; round++) {
        char *blocks[BLOCKS];
        size_t bytes = capacity_bytes / 3;
        for (int i = 0; i < BLOCKS; i++, bytes += bytes / 4) {
            blocks[i] = HmmHeapAlloc(heap, bytes);
            assert_non_null(blocks[i]);
            blocks[i][0] = blocks[i][bytes - 1] = (char)i;
        }
        assert_true(HmmHeapCheck(heap));
        assert_true(stats_of(heap).capacity_bytes > capacity_bytes);
        for (int i = 0; i < BLOCKS; i++) {
            int turn = round == 0 ? i : round == 1 ? BLOCKS - 1 - i : i * 5 % BLOCKS;
            assert_int_equal(blocks[turn][0], turn);
            HmmHeapFree(heap, blocks[turn]);
        }
        assert_true(HmmHeapCheck(heap));
        assert_int_equal(stats_of(heap).live_count, 0);
        assert_true(stats_of(heap).break_bytes < 1 << 20);
        assert_int_equal(stats_of(heap).capacity_bytes, capacity_bytes);
    }
    HmmHeapDestroy(heap);
    destroy_many();
}

/* The block that has a range to itself comes and goes. */
static void a_range_stays_while_it_is_needed(void **state)
{
    (void)state;
    skip_where(sizeof(void *) < 8, "there are few addresses");
    skip_where_sanitized();
    create_many();
    HmmHeap *heap = HmmHeapCreate(0, NULL);
    const size_t capacity_bytes = stats_of(heap).capacity_bytes;
    char *first = HmmHeapAlloc(heap, stats_of(heap).largest_free_bytes);
    char *alone = HmmHeapAlloc(heap, 1000);
    assert_non_null(first);
    assert_non_null(alone);
    const size_t mapped_before = mapped_bytes();
    for (int turn = 0; turn < 1000; turn++) {
        HmmHeapFree(heap, alone);
        assert_true(mapped_bytes() == mapped_before);
        alone = HmmHeapAlloc(heap, 1000);
        assert_non_null(alone);
    }
    HmmHeapFree(heap, alone);
    HmmHeapFree(heap, first);
    assert_int_equal(stats_of(heap).capacity_bytes, capacity_bytes);
    HmmHeapDestroy(heap);
    destroy_many();
}

/* What another thread does as soon as the lock is free. */
struct other {
    HmmHeap *heap;
    void *freed; /* NULL: it takes a block */
    void *taken;
    bool is_due;
};

static void other_waits(void *context)
{
    (void)context;
}

static void other_comes(void *context)
{
    struct other *other = context;
    if (other->is_due) {
        other->is_due = false;
        if (other->freed != NULL) {
            HmmHeapFree(other->heap, other->freed);
            other->freed = NULL;
        } else {
            other->taken = HmmHeapAlloc(other->heap, 1000);
        }
    }
}

/* A request that failed finds that others have made room meanwhile. */
static void room_that_others_make_is_no_refusal(void **state)
{
    (void)state;
    skip_where(sizeof(void *) < 8, "there are few addresses");
    skip_where_sanitized();
    create_many();
    for (int turn = 0; turn < 6; turn++) {
        struct other other = {0};
        HmmHeap *heap = HmmHeapCreate(0, &(HmmHeapOptions){.hardening = (HmmHardening)(turn / 2),
                                                           .lock = other_waits,
                                                           .unlock = other_comes,
                                                           .context = &other});
        assert_non_null(heap);
        void *first = HmmHeapAlloc(heap, stats_of(heap).largest_free_bytes);
        assert_non_null(first);
        while (stats_of(heap).largest_free_bytes >= 1000) {
            assert_non_null(HmmHeapAlloc(heap, 1000));
        }
        other = (struct other){.heap = heap, .freed = turn % 2 == 0 ? first : NULL, .is_due = true};
        assert_non_null(HmmHeapAlloc(heap, 1000));
        assert_false(other.is_due);
        assert_true(turn % 2 == 0 || other.taken != NULL);
        assert_true(HmmHeapCheck(heap));
        HmmHeapDestroy(heap);
    }
    destroy_many();
}

/* How many blocks there are until no more can be had. They are given back. */
static int fill(HmmHeap *heap, size_t bytes)
{
    enum { BLOCKS_MAX = 64 };
    void *blocks[BLOCKS_MAX];
    int count = 0;
    while (count < BLOCKS_MAX && (blocks[count] = HmmHeapAlloc(heap, bytes)) != NULL) {
        memset(blocks[count++], 1, bytes);
    }
    assert_int_equal(errno, ENOMEM);
    assert_true(HmmHeapCheck(heap));
    for (int i = 0; i < count; i++) {
        HmmHeapFree(heap, blocks[i]);
    }
    return count;
}

static void a_heap_fills_what_the_process_may_have(void **state)
{
    (void)state;
    skip_where_sanitized();
    enum { ROOM_BYTES = 256 << 20, BLOCK_BYTES = 12 << 20, BLOCKS_MIN = 14 };
    struct rlimit limit;
    assert_int_equal(getrlimit(RLIMIT_AS, &limit), 0);
    for (int level = HMM_HARDENING_NONE; level <= HMM_HARDENING_QUARANTINE; level++) {
        const rlim_t now_bytes = mapped_bytes();
        const struct rlimit low = {now_bytes + ROOM_BYTES, limit.rlim_max};
        assert_int_equal(setrlimit(RLIMIT_AS, &low), 0);
        HmmHeap *heap = HmmHeapCreate(0, &(HmmHeapOptions){.hardening = (HmmHardening)level});
        assert_non_null(heap);
        int count = fill(heap, BLOCK_BYTES);
        assert_true(count >= BLOCKS_MIN);
        for (int round = 0; round < 3; round++) {
            assert_true(fill(heap, BLOCK_BYTES) >= count);
        }
        HmmHeapDestroy(heap);
        assert_int_equal(setrlimit(RLIMIT_AS, &limit), 0);
    }
}

static void leave_alone(void *context)
{
    (void)context;
}

static bool count_block(void *ptr, size_t usable_bytes, bool is_used, void *context)
{
    (void)ptr;
    (void)usable_bytes;
    *(size_t *)context += is_used;
    return true;
}

static void read_where_nothing_can_be_written(const HmmHeapOptions *options)
{
    HmmHeap *heap = HmmHeapInit(large, LARGE_BYTES, options);
    assert_non_null(heap);
    void *ptr = HmmHeapAlloc(heap, 100);
    size_t used_count = 0;
    HmmHeapStats stats;
    assert_int_equal(mprotect(large, LARGE_BYTES, PROT_READ), 0);
    HmmHeapGetStats(heap, &stats);
    assert_true(HmmHeapWalk(heap, count_block, &used_count));
    assert_true(HmmHeapCheck(heap));
    size_t usable_bytes = HmmHeapUsableSize(heap, ptr);
    assert_int_equal(mprotect(large, LARGE_BYTES, PROT_READ | PROT_WRITE), 0);
    assert_true(usable_bytes >= 100);
    assert_int_equal(used_count, 1);
    assert_int_equal(stats.live_count, 1);
    HmmHeapFree(heap, ptr);
}

/* A heap that the caller guards may lie in memory that this process may only read. */
static void reading_writes_nothing(void **state)
{
    (void)state;
    read_where_nothing_can_be_written(&(HmmHeapOptions){.unlocked = true});
    read_where_nothing_can_be_written(
        &(HmmHeapOptions){.lock = leave_alone, .unlock = leave_alone});
}

/* Under strict seccomp any call but read, write and exit kills: an array's heap makes none. */
static void work_without_system_calls(void)
{
    HmmHeap *heap = HmmHeapInit(large, LARGE_BYTES, NULL);
    if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT) != 0) {
        syscall(SYS_exit, 2);
    }
    static void *blocks[200];
    for (unsigned i = 0; i < 20000; i++) {
        unsigned slot = i * 7919u % 200;
        HmmHeapFree(heap, blocks[slot]);
        blocks[slot] = HmmHeapAlloc(heap, i * 31u % 5000);
        if (i % 3 == 0) {
            blocks[slot] = HmmHeapRealloc(heap, blocks[slot], i * 17u % 9000 + 1);
        }
    }
    bool is_good = HmmHeapAlloc(heap, 2 * LARGE_BYTES) == NULL && HmmHeapCheck(heap);
    syscall(SYS_exit, is_good ? 0 : 1);
}

static void a_heap_in_an_array_makes_no_system_call(void **state)
{
    (void)state;
    skip_where_sanitized();
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        work_without_system_calls();
    }
    int status = 0;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

enum { THREADS = 4, TURNS = 20000 };

static void *churn(void *context)
{
    HmmHeap *heap = context;
    unsigned char *blocks[16] = {0};
    for (unsigned turn = 0; turn < TURNS; turn++) {
        unsigned slot = turn * 13u % 16;
        if (blocks[slot] != NULL && *blocks[slot] != slot) {
            return "a byte has changed";
        }
        HmmHeapFree(heap, blocks[slot]);
        blocks[slot] = HmmHeapAlloc(heap, 1 + turn % 700);
        if (blocks[slot] != NULL) {
            *blocks[slot] = (unsigned char)slot;
        }
    }
    for (unsigned slot = 0; slot < 16; slot++) {
        HmmHeapFree(heap, blocks[slot]);
    }
    return NULL;
}

static void share_with_threads(HmmHardening level)
{
    HmmHeap *heap = HmmHeapInit(large, LARGE_BYTES, &(HmmHeapOptions){.hardening = level});
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, churn, heap), 0);
    }
    for (int i = 0; i < THREADS; i++) {
        void *problem;
        pthread_join(threads[i], &problem);
        assert_null(problem);
    }
    assert_true(HmmHeapCheck(heap));
    HmmHeapStats stats;
    HmmHeapGetStats(heap, &stats);
    assert_int_equal(stats.live_count, 0);
}

static void threads_share_a_heap(void **state)
{
    (void)state;
    for (int level = HMM_HARDENING_NONE; level <= HMM_HARDENING_QUARANTINE; level++) {
        share_with_threads((HmmHardening)level);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(memory_that_is_none_is_refused),
        cmocka_unit_test(options_out_of_range_are_refused),
        cmocka_unit_test(refused_options_leave_the_memory_alone),
        cmocka_unit_test(every_size_is_refused_or_works),
        cmocka_unit_test(four_kibibytes_are_a_useful_heap),
        cmocka_unit_test(a_used_block_costs_one_word),
        cmocka_unit_test(counters_follow),
        cmocka_unit_test(alignments_up_to_the_array),
        cmocka_unit_test(pieces_are_added_and_bad_ones_refused),
        cmocka_unit_test(pieces_of_every_size_are_indexed),
        cmocka_unit_test(on_full_can_help_or_give_up),
        cmocka_unit_test(on_full_is_asked_for_blocks_of_0_bytes),
        cmocka_unit_test(room_that_was_made_behind_a_block_is_its_own),
        cmocka_unit_test(a_given_lock_is_held_in_every_call),
        cmocka_unit_test(a_walk_can_be_ended),
        cmocka_unit_test(reading_writes_nothing),
        cmocka_unit_test(realloc_at_its_edges),
        cmocka_unit_test(a_created_heap_has_a_limit),
        cmocka_unit_test(a_refusal_says_why),
        cmocka_unit_test(thousands_need_no_limit),
        cmocka_unit_test(a_heap_takes_range_after_range),
        cmocka_unit_test(a_range_stays_while_it_is_needed),
        cmocka_unit_test(room_that_others_make_is_no_refusal),
        cmocka_unit_test(a_heap_fills_what_the_process_may_have),
        cmocka_unit_test(a_heap_in_an_array_makes_no_system_call),
        cmocka_unit_test(threads_share_a_heap),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
