/*
 * test_fast.c - the fast engine as a whole, by the names of hmm.h.
 *
 * Each test runs in a process of its own, so that it begins with an arena that nobody has touched,
 * and with options of its own. There hmm_alloc_audit walks the invariants of all rooms, after every
 * step or every few. test_threads.c has what threads and forks do, test_purge.c what goes back to
 * the system.
 *
 * test_fast [PATTERN], SEED of the environment.
 */
#include "fast.h"
#include "run_out.h"
#include "locked.h"
#include "os.h"

#include <errno.h>
#include <sys/mman.h>

/* ------------------------------------------------------------------- whatever a program may ask */

TEST(random_operations)
{
    enum { HELD = 600, STEPS = 60000, AUDIT_STEPS = 100 };
    static struct held held[HELD];
    uint64_t random = seed;
    for (int step = 0; step < STEPS && case_failure_count == 0; step++) {
        held_step(&held[random_below(&random, HELD)], &random);
        if (step % AUDIT_STEPS == 0 || step < 1000) {
            audit();
        }
        if (step % 1000 == 0) {
            (void)hmm_alloc_trim((size_t)step / 10000 * MEBIBYTE);
            audit();
        }
    }
    for (int i = 0; i < HELD; i++) {
        if (held[i].ptr != NULL) {
            held_drop(&held[i]);
        }
    }
    audit();
}

TEST(success_leaves_errno_alone)
{
    uint64_t random = seed;
    struct held held = {0};
    errno = EDOM;
    for (int step = 0; step < 3000; step++) {
        held_step(&held, &random);
        EXPECT_EQUAL(errno, EDOM);
    }
    (void)hmm_alloc_trim(0);
    HmmFree(NULL);
    EXPECT_EQUAL(errno, EDOM);
}

TEST(nonsense_is_refused)
{
    unsigned char *ptr = HmmAlloc(5000);
    content_write(ptr, 5000, 1);
    static const size_t huge[] = {(size_t)PTRDIFF_MAX, (size_t)PTRDIFF_MAX + 1, SIZE_MAX - 4096,
                                  SIZE_MAX, (size_t)1 << 60};
    for (size_t i = 0; i < sizeof huge / sizeof huge[0]; i++) {
        errno = 0;
        EXPECT(HmmAlloc(huge[i]) == NULL && errno == ENOMEM);
        errno = 0;
        EXPECT(HmmCalloc(1, huge[i]) == NULL && errno == ENOMEM);
        errno = 0;
        EXPECT(HmmRealloc(ptr, huge[i]) == NULL && errno == ENOMEM);
        errno = 0;
        EXPECT(HmmAlignedAlloc(64, huge[i]) == NULL && errno == ENOMEM);
        errno = 0;
        EXPECT(HmmAlignedAlloc((size_t)1 << 40, huge[i]) == NULL && errno == ENOMEM);
        audit();
    }
    volatile size_t count = (size_t)1 << 33; /* so that the compiler does not know better */
    errno = 0;
    EXPECT(HmmCalloc(count, count) == NULL && errno == ENOMEM);
    errno = 0;
    EXPECT(HmmAlignedAlloc((size_t)1 << 63, 1) == NULL && errno == ENOMEM);
    for (size_t alignment = 0; alignment < 200; alignment++) {
        if (!is_power_of_two(alignment)) {
            errno = 0;
            EXPECT(HmmAlignedAlloc(alignment, 1) == NULL && errno == EINVAL);
        }
    }
    EXPECT(content_is(ptr, 5000, 1));
    EXPECT_EQUAL(HmmUsableSize(NULL), 0);
    EXPECT(HmmRealloc(ptr, 0) == NULL);
    audit();
}

/* ---------------------------------------------------------------------------------------- sizes */

static const size_t sizes[] = {0,
                               1,
                               16,
                               17,
                               100,
                               128,
                               129,
                               511,
                               512,
                               513,
                               1000,
                               2048,
                               4096,
                               5000,
                               8191,
                               8192,
                               8193,
                               10000,
                               16384,
                               65536,
                               100000,
                               300000,
                               MEBIBYTE - 16,
                               MEBIBYTE,
                               MEBIBYTE + 1,
                               2 * MEBIBYTE,
                               5 * MEBIBYTE + 123};

enum { SIZES = sizeof sizes / sizeof sizes[0] };

/* Filled, freed, and asked for again in several orders, with some of it given back in between. */
TEST(calloc_is_zero_on_memory_that_was_used)
{
    enum { BLOCKS = 24 };
    unsigned char *blocks[BLOCKS];
    for (int round = 0; round < 4; round++) {
        for (int i = 0; i < SIZES; i++) {
            int count = sizes[i] > MEBIBYTE / 2 ? 3 : BLOCKS;
            for (int b = 0; b < count; b++) {
                blocks[b] = (b + round) % 3 == 0 ? HmmAlloc(sizes[i]) : HmmCalloc(1, sizes[i]);
                REQUIRE(blocks[b] != NULL);
                EXPECT((b + round) % 3 == 0 || content_is_zero(blocks[b], sizes[i]));
                memset(blocks[b], 0xff, HmmUsableSize(blocks[b]));
            }
            for (int b = 0; b < count; b++) {
                HmmFree(blocks[(b * 7 + round) % count]);
            }
            if (round == 2) {
                (void)hmm_alloc_trim(0);
            }
            audit();
        }
    }
}

/* Pages that were never touched and pages that were lie in one slab, one zone, one run. */
TEST(calloc_is_zero_where_some_was_used)
{
    enum { BLOCKS = 200 };
    static unsigned char *blocks[BLOCKS];
    uint64_t random = seed;
    for (int i = 0; i < SIZES; i++) {
        int count = sizes[i] > MEBIBYTE / 2 ? 6 : BLOCKS;
        for (int step = 0; step < 4 * count; step++) {
            unsigned char **place = &blocks[random_below(&random, (size_t)count)];
            HmmFree(*place);
            *place = HmmCalloc(1, sizes[i]);
            REQUIRE(*place != NULL);
            EXPECT(content_is_zero(*place, sizes[i]));
            if (step % 2 == 0) {
                memset(*place, 0xff, HmmUsableSize(*place));
            }
        }
        for (int b = 0; b < count; b++) {
            HmmFree(blocks[b]);
            blocks[b] = NULL;
        }
        audit();
    }
}

TEST(usable_memory_is_the_blocks_own)
{
    enum { BLOCKS = 20 };
    for (int i = 0; i < SIZES; i++) {
        unsigned char *blocks[BLOCKS];
        int count = sizes[i] > MEBIBYTE / 2 ? 3 : BLOCKS;
        for (int b = 0; b < count; b++) {
            blocks[b] = HmmAlloc(sizes[i]);
            REQUIRE(blocks[b] != NULL);
            EXPECT(HmmUsableSize(blocks[b]) >= sizes[i]);
            memset(blocks[b], b, HmmUsableSize(blocks[b]));
        }
        for (int b = 0; b < count; b++) {
            size_t usable_bytes = HmmUsableSize(blocks[b]);
            EXPECT(usable_bytes == 0 || (blocks[b][0] == b && blocks[b][usable_bytes - 1] == b));
            HmmFree(blocks[b]);
        }
        audit();
    }
}

TEST(powers_of_two_waste_nothing_from_a_quarter_of_a_mebibyte_on)
{
    enum {
        GRANULES_MIN = MEBIBYTE / 4 / GRANULE_BYTES,
        GRANULES_MAX = 4 * MEBIBYTE / GRANULE_BYTES
    };
    for (size_t granules = GRANULES_MIN; granules <= GRANULES_MAX; granules *= 2) {
        size_t taken_before = taken_count();
        void *ptr = HmmAlloc(granules * GRANULE_BYTES);
        REQUIRE(ptr != NULL);
        EXPECT_EQUAL(taken_count() - taken_before, granules);
        EXPECT_EQUAL(HmmUsableSize(ptr), granules * GRANULE_BYTES);
        HmmFree(ptr);
    }
    audit();
}

TEST(every_alignment_is_kept)
{
    static const size_t bytes[] = {0, 1, 100, 5000, 8192, 20000, 300000, 2 * MEBIBYTE};
    enum { ALIGNED = sizeof bytes / sizeof bytes[0] };
    for (size_t alignment = 1; alignment <= 4 * MEBIBYTE; alignment *= 2) {
        struct held held[2 * ALIGNED] = {0};
        for (int i = 0; i < 2 * ALIGNED; i++) {
            unsigned char *ptr = HmmAlignedAlloc(alignment, bytes[i % ALIGNED]);
            EXPECT(ptr != NULL && is_aligned((uintptr_t)ptr, alignment));
            held_keep(&held[i], ptr, bytes[i % ALIGNED], (uint32_t)i);
            audit();
        }
        for (int i = 0; i < 2 * ALIGNED; i += 2) {
            held_resize(&held[i], held[i].bytes * 2 + 1, 77);
        }
        for (int i = 0; i < 2 * ALIGNED; i++) {
            held_drop(&held[i]);
        }
        audit();
    }
}

/* -------------------------------------------------------------------------------------- realloc */

TEST(realloc_up_and_down_keeps_the_content)
{
    for (int with_neighbour = 0; with_neighbour < 2; with_neighbour++) {
        struct held held = {0};
        void *neighbour = NULL;
        held_keep(&held, HmmAlloc(1), 1, 1);
        for (size_t bytes = 1; bytes < 40 * MEBIBYTE; bytes += bytes / 3 + 1) {
            held_resize(&held, bytes, (uint32_t)bytes);
            HmmFree(neighbour);
            neighbour = with_neighbour != 0 ? HmmAlloc(bytes) : NULL;
            audit();
        }
        for (size_t bytes = 40 * MEBIBYTE; bytes > 0; bytes -= bytes / 3 + 1) {
            held_resize(&held, bytes, (uint32_t)bytes);
            audit();
        }
        held_drop(&held);
        HmmFree(neighbour);
    }
}

/* What was the end of a large block is the end again. */
TEST(large_blocks_resize_in_place)
{
    struct held held = {0};
    held_keep(&held, HmmAlloc(8 * MEBIBYTE), 8 * MEBIBYTE, 1);
    void *place = held.ptr;
    held_resize(&held, 3 * MEBIBYTE + 5, 2);
    EXPECT(held.ptr == place);
    held_resize(&held, 8 * MEBIBYTE, 3);
    EXPECT(held.ptr == place);
    held_resize(&held, 30 * MEBIBYTE, 4);
    EXPECT(held.ptr == place);
    audit();
    held_drop(&held);
}

/* Two that grow in turn are in each other's way: their pages move, and mappings stay few. */
TEST(large_blocks_move_without_many_mappings)
{
    enum { BLOCKS = 40, ROUNDS = 30 };
    static struct held held[BLOCKS];
    size_t before = mapping_count();
    uint64_t random = seed;
    for (int i = 0; i < BLOCKS; i++) {
        held_keep(&held[i], HmmAlloc(MEBIBYTE + 1), MEBIBYTE + 1, (uint32_t)i);
    }
    for (int round = 0; round < ROUNDS; round++) {
        for (int i = 0; i < BLOCKS; i++) {
            size_t bytes = MEBIBYTE + 1 + random_below(&random, 4 * MEBIBYTE);
            held_resize(&held[i], bytes, (uint32_t)(round * BLOCKS + i));
        }
        audit();
        EXPECT(UNIT_IS_SANITIZED || mapping_count() < before + 500);
    }
    for (int i = 0; i < BLOCKS; i++) {
        held_drop(&held[i]);
    }
    (void)hmm_alloc_trim(0);
    EXPECT(UNIT_IS_SANITIZED || mapping_count() < before + 100);
    audit();
    unsigned char *zero = HmmCalloc(1, 100 * MEBIBYTE);
    EXPECT(zero != NULL && content_is_zero(zero, 100 * MEBIBYTE));
    HmmFree(zero);
}

/* Pages that have moved are a mapping of their own, and what the block grows by in its new place is
 * another: such a block is copied, and then it can move. */
TEST(large_blocks_that_grow_in_turn_move_again_and_again)
{
    enum { BLOCKS = 8 };
    static struct held held[BLOCKS];
    const size_t before = mapping_count();
    unsigned places = 0;
    unsigned moved = 0;
    for (size_t bytes = MEBIBYTE; bytes < 20 * MEBIBYTE; bytes += bytes / 16) {
        for (int i = 0; i < BLOCKS; i++) {
            const void *place = held[i].ptr;
            if (place == NULL) {
                held_keep(&held[i], HmmAlloc(bytes), bytes, (uint32_t)i);
            } else {
                held_resize(&held[i], bytes, (uint32_t)(bytes + (size_t)i));
                places += held[i].ptr != place;
                moved += held[i].ptr != place && granule_of(held[i].ptr)->has_moved;
            }
        }
        audit();
    }
    EXPECT(places > 100);
    EXPECT(moved == 0 || moved >= places / 3);
    EXPECT(UNIT_IS_SANITIZED || mapping_count() < before + 4 * BLOCKS + 8);
    for (int i = 0; i < BLOCKS; i++) {
        held_drop(&held[i]);
    }
}

/* Pages that move onto touched ones would take their place, and be gone with the block. */
TEST(large_blocks_are_copied_onto_touched_memory)
{
    enum { KIBIBYTE = 1024 };
    struct held held = {0};
    held_keep(&held, HmmAlloc(640 * KIBIBYTE), 640 * KIBIBYTE, 1);
    const struct granule *old = granule_of(held.ptr);
    void *neighbour = HmmAlloc(300 * KIBIBYTE);
    char *touched = HmmAlloc(MEBIBYTE);
    EXPECT(neighbour != NULL && touched != NULL);
    memset(touched, 1, MEBIBYTE);
    HmmFree(touched);
    held_resize(&held, MEBIBYTE, 2);
    EXPECT(granule_of(held.ptr) != old);
    EXPECT(!granule_of(held.ptr)->has_moved);
    EXPECT(granule_is_touched(old));
    audit();
    held_drop(&held);
    HmmFree(neighbour);
}

/* Moving pages would unlock the mapping that they come from, with all that is around them. */
TEST(what_is_locked_stays_locked)
{
    unsigned char *ptr = HmmAlloc(MEBIBYTE);
    unsigned char *behind = HmmAlloc(MEBIBYTE);
    REQUIRE(ptr != NULL && behind != NULL);
    memset(ptr, 7, MEBIBYTE);
    case_skip_where(UNIT_IS_SANITIZED, "a sanitizer is in the way");
    case_skip_where(mlockall(MCL_CURRENT) != 0, "not everybody may lock memory");
    const size_t locked_bytes = flagged_bytes(" lo");
    EXPECT(locked_bytes >= 2 * MEBIBYTE);
    ptr = HmmRealloc(ptr, 3 * MEBIBYTE);
    REQUIRE(ptr != NULL && ptr[0] == 7 && ptr[MEBIBYTE - 1] == 7);
    EXPECT(flagged_bytes(" lo") >= locked_bytes);
    munlockall();
}

static void fill_and_free(unsigned char **blocks, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        blocks[i] = HmmAlloc(MEBIBYTE);
        REQUIRE(blocks[i] != NULL);
        memset(blocks[i], 1, MEBIBYTE);
    }
    for (size_t i = 0; i < count; i++) {
        HmmFree(blocks[i]);
    }
}

/* Before Linux 5.18 the system takes no locked memory. When it is not locked any more a heap that
 * lies idle gives it back. */
TEST(memory_that_was_locked_once_goes_back_later)
{
    enum { BLOCKS = 40 };
    static unsigned char *blocks[BLOCKS];
    case_skip_where(UNIT_IS_SANITIZED, "a sanitizer is in the way");
    case_skip_where(mlockall(MCL_CURRENT | MCL_FUTURE) != 0, "not everybody may lock memory");
    for (int round = 0; round < 4; round++) {
        fill_and_free(blocks, BLOCKS);
    }
    EXPECT(locked_pages_go() ? resident_bytes() < BLOCKS / 2 * MEBIBYTE
                             : resident_bytes() >= BLOCKS * MEBIBYTE);
    munlockall();
    usleep(1100 * 1000);
    fill_and_free(blocks, BLOCKS);
    EXPECT(resident_bytes() < BLOCKS / 2 * MEBIBYTE);
    audit();
}

/* ------------------------------------------------------------------------------ memory runs out */

enum { LIMIT_BYTES = 64 * MEBIBYTE, LISTED_MAX = LIMIT_BYTES / 16 };

static struct held *listed;
static size_t listed_count;

static void take_all(size_t bytes)
{
    errno = 0;
    for (unsigned char *ptr = HmmAlloc(bytes); ptr != NULL; ptr = HmmAlloc(bytes)) {
        held_keep(&listed[listed_count], ptr, bytes, (uint32_t)listed_count * 13);
        listed_count++;
    }
    EXPECT_EQUAL(errno, ENOMEM);
    errno = 0;
    EXPECT(HmmCalloc(1, bytes) == NULL && errno == ENOMEM);
    errno = 0;
    EXPECT(HmmAlignedAlloc(64, bytes) == NULL && errno == ENOMEM);
    errno = 0;
    EXPECT(HmmRealloc(listed[0].ptr, LIMIT_BYTES + 1) == NULL && errno == ENOMEM);
    EXPECT(content_is(listed[0].ptr, listed[0].bytes, listed[0].salt));
    audit();
}

/* All but every `kept`-th go; 0: all go. */
static void drop(size_t kept)
{
    size_t left_count = 0;
    for (size_t i = 0; i < listed_count; i++) {
        if (kept != 0 && i % kept == 0) {
            listed[left_count++] = listed[i];
        } else {
            held_drop(&listed[i]);
        }
    }
    listed_count = left_count;
    audit();
}

TEST_WITH(memory_runs_out_and_comes_back, "limit=64M")
{
    static const size_t tried[] = {16, 100, 1000, 5000, 20000, 300000, 2 * MEBIBYTE};
    listed = calloc(LISTED_MAX, sizeof *listed);
    for (int round = 0; round < 2; round++) {
        /* The smallest ones are four millions, too many where each costs more. */
        for (size_t i = UNIT_IS_SANITIZED; i < sizeof tried / sizeof tried[0]; i++) {
            take_all(tried[i]);
            EXPECT(listed_count * tried[i] > LIMIT_BYTES / 10 * 8);
            EXPECT(listed_count * tried[i] <= LIMIT_BYTES);
            drop(2);
            size_t kept_count = listed_count;
            take_all(tried[i]);
            EXPECT(listed_count >= 2 * kept_count / 100 * 90);
            drop(0);
            void *large = HmmAlloc(LIMIT_BYTES / 10 * 8);
            EXPECT(large != NULL);
            HmmFree(large);
        }
    }
    free(listed);
}

/* All sizes of small blocks, of which not even the bins keep anything. */
TEST_WITH(what_small_blocks_leave_large_ones_take, "limit=64M")
{
    uint64_t random = 1;
    for (int round = 0; round < 6; round++) {
        give_back(run_out_of(16, 10, &random));
        void *ptr = HmmAlloc(60 << 20);
        EXPECT(ptr != NULL);
        HmmFree(ptr);
    }
    audit();
}

/* One size takes what another leaves, down to the last granule. */
TEST_WITH(what_large_blocks_leave_small_ones_take, "limit=64M")
{
    listed = calloc(LISTED_MAX, sizeof *listed);
    take_all(20 * MEBIBYTE);
    take_all(300000);
    take_all(9000);
    take_all(8000);
    take_all(100);
    take_all(16);
    size_t sum_bytes = 0;
    for (size_t i = 0; i < listed_count; i++) {
        sum_bytes += listed[i].bytes;
    }
    EXPECT(sum_bytes > LIMIT_BYTES / 100 * 97);
    drop(3);
    drop(0);
    take_all(60 * MEBIBYTE);
    EXPECT_EQUAL(listed_count, 1);
    drop(0);
    free(listed);
}

static atomic_int starved_count;

static void *starve(void *unused)
{
    (void)unused;
    for (size_t bytes = 8; bytes < 100000; bytes += bytes / 2) {
        errno = 0;
        void *ptr = HmmAlloc(bytes);
        if (ptr == NULL) {
            EXPECT_EQUAL(errno, ENOMEM);
            atomic_fetch_add(&starved_count, 1);
        } else {
            memset(ptr, 1, bytes);
            HmmFree(ptr);
        }
    }
    return NULL;
}

TEST_WITH(threads_start_when_nothing_is_left, "limit=64M")
{
    listed = calloc(LISTED_MAX, sizeof *listed);
    take_all(MEBIBYTE);
    take_all(5000);
    take_all(100);
    take_all(16);
    for (int i = 0; i < 50; i++) {
        pthread_t thread;
        REQUIRE(pthread_create(&thread, NULL, starve, NULL) == 0);
        pthread_join(thread, NULL);
    }
    EXPECT(starved_count > 0);
    drop(0);
    starved_count = 0;
    starve(NULL);
    EXPECT_EQUAL(starved_count, 0);
    audit();
    free(listed);
}

/* A limit that only the block engine can live with is no crime. */
TEST_WITH(a_small_limit_is_kept, "limit=1M")
{
    size_t sum_bytes = 0;
    while (HmmAlloc(1000) != NULL) {
        sum_bytes += 1000;
    }
    EXPECT(sum_bytes > MEBIBYTE / 2);
    EXPECT(sum_bytes <= MEBIBYTE);
    EXPECT_EQUAL(errno, ENOMEM);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_operations),
        cmocka_unit_test(success_leaves_errno_alone),
        cmocka_unit_test(nonsense_is_refused),
        cmocka_unit_test(calloc_is_zero_on_memory_that_was_used),
        cmocka_unit_test(calloc_is_zero_where_some_was_used),
        cmocka_unit_test(usable_memory_is_the_blocks_own),
        cmocka_unit_test(powers_of_two_waste_nothing_from_a_quarter_of_a_mebibyte_on),
        cmocka_unit_test(every_alignment_is_kept),
        cmocka_unit_test(realloc_up_and_down_keeps_the_content),
        cmocka_unit_test(large_blocks_resize_in_place),
        cmocka_unit_test(large_blocks_move_without_many_mappings),
        cmocka_unit_test(large_blocks_that_grow_in_turn_move_again_and_again),
        cmocka_unit_test(large_blocks_are_copied_onto_touched_memory),
        cmocka_unit_test(what_is_locked_stays_locked),
        cmocka_unit_test(memory_that_was_locked_once_goes_back_later),
        cmocka_unit_test(memory_runs_out_and_comes_back),
        cmocka_unit_test(what_small_blocks_leave_large_ones_take),
        cmocka_unit_test(what_large_blocks_leave_small_ones_take),
        cmocka_unit_test(threads_start_when_nothing_is_left),
        cmocka_unit_test(a_small_limit_is_kept),
    };
    seed = seed_draw();
    cmocka_set_test_filter(argc > 1 ? argv[1] : NULL);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
