/*
 * test_fast.c - the fast engine as a whole, by the names of hmm.h.
 *
 * Each test runs in a process of its own, so that it begins with an arena that nobody has touched,
 * and with options of its own. There hmm_alloc_audit walks the invariants of all rooms, after every
 * step or every few.
 *
 * test_fast [PATTERN], SEED of the environment.
 */
#include "forked.h"
#include "run_out.h"
#include "doors/footprint.h"
#include "locked.h"
#include "os.h"
#include "purge.h"
#include "stats.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <time.h>

enum { MEBIBYTE = 1 << 20 };

const char *HmmOptions;

static uint64_t seed;

/* ----------------------------------------------------------------------------- a test's process */

static void in_a_process_with(const char *options, void (*run)(void))
{
    int status = status_with(options, run);
    if (status != 0) {
        print_message("# SEED=%llu\n", (unsigned long long)seed);
    }
    assert_int_equal(status, 0);
}

#define TEST(name) TEST_WITH(name, NULL)

static size_t taken_count(void)
{
    return atomic_load(&hmm_arena.taken_count);
}

/* -------------------------------------------------------------------------- blocks with content */

struct held {
    unsigned char *ptr; /* NULL: none */
    size_t bytes;
    uint32_t salt;
};

static void held_keep(struct held *held, void *ptr, size_t bytes, uint32_t salt)
{
    REQUIRE(ptr != NULL);
    *held = (struct held){ptr, bytes, salt};
    EXPECT(is_aligned((uintptr_t)ptr, SLOT_UNIT_BYTES));
    EXPECT(HmmUsableSize(ptr) >= bytes);
    content_write(held->ptr, bytes, salt);
}

static void held_drop(struct held *held)
{
    EXPECT(content_is(held->ptr, held->bytes, held->salt));
    HmmFree(held->ptr);
    held->ptr = NULL;
}

static void held_resize(struct held *held, size_t bytes, uint32_t salt)
{
    bytes = bytes != 0 ? bytes : 1;
    unsigned char *ptr = HmmRealloc(held->ptr, bytes);
    REQUIRE(ptr != NULL);
    EXPECT(content_is_kept(ptr, held->bytes, held->salt, bytes));
    held_keep(held, ptr, bytes, salt);
}

static void held_allocate(struct held *held, uint64_t *random)
{
    size_t bytes = random_bytes(random);
    uint32_t salt = (uint32_t)random_next(random);
    unsigned char *ptr;
    if (salt % 5 == 0) {
        ptr = HmmCalloc(1, bytes);
        EXPECT(ptr != NULL && content_is_zero(ptr, bytes));
    } else if (salt % 23 == 0) {
        size_t alignment = (size_t)1 << random_below(random, 18);
        ptr = HmmAlignedAlloc(alignment, bytes);
        EXPECT(is_aligned((uintptr_t)ptr, alignment));
    } else {
        ptr = HmmAlloc(bytes);
    }
    held_keep(held, ptr, bytes, salt);
    /* All that may be used is the block's own. */
    if (salt % 7 == 0 && ptr != NULL) {
        size_t usable_bytes = HmmUsableSize(ptr);
        memset(ptr + bytes, 0xee, usable_bytes - bytes);
    }
}

static void held_step(struct held *held, uint64_t *random)
{
    if (held->ptr == NULL) {
        held_allocate(held, random);
    } else if (random_below(random, 3) == 0) {
        held_resize(held, random_bytes(random), (uint32_t)random_next(random));
    } else {
        held_drop(held);
    }
}

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

/* How much of the arena has the flag, of those in smaps. */
static size_t flagged_bytes(const char *flag)
{
    char line[512];
    uintptr_t start = 0;
    uintptr_t end = 0;
    size_t bytes = 0;
    FILE *maps = fopen("/proc/self/smaps", "r");
    REQUIRE(maps != NULL);
    while (fgets(line, sizeof line, maps) != NULL) {
        char *rest;
        uintptr_t address = strtoul(line, &rest, 16);
        if (*rest == '-') {
            start = address;
            end = strtoul(rest + 1, NULL, 16);
        } else if (strncmp(line, "VmFlags:", 8) == 0 && strstr(line, flag) != NULL &&
                   arena_covers((void *)start)) {
            bytes += end - start;
        }
    }
    fclose(maps);
    return bytes;
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

/* -------------------------------------------------------------------------------------- threads */

enum { THREADS = 8, SHARED = 300, SHARED_SIZES = 4 };

/* A block that says itself what it holds, so that it can change hands by its address alone. */
struct parcel {
    size_t bytes; /* with this */
    uint32_t salt;
    unsigned char content[];
};

static _Atomic(struct parcel *) shared[SHARED];

static struct parcel *parcel_new(size_t bytes, uint32_t salt)
{
    bytes += sizeof(struct parcel);
    struct parcel *parcel = HmmAlloc(bytes);
    REQUIRE(parcel != NULL);
    parcel->bytes = bytes;
    parcel->salt = salt;
    content_write(parcel->content, bytes - sizeof *parcel, salt);
    return parcel;
}

static void parcel_drop(struct parcel *parcel)
{
    if (parcel != NULL) {
        EXPECT(content_is(parcel->content, parcel->bytes - sizeof *parcel, parcel->salt));
        HmmFree(parcel);
    }
}

static void shared_swap(size_t place, struct parcel *parcel)
{
    /* acquire and release: the content goes over with the address */
    parcel_drop(atomic_exchange_explicit(&shared[place % SHARED], parcel, memory_order_acq_rel));
}

static void shared_clear(void)
{
    for (size_t i = 0; i < SHARED; i++) {
        shared_swap(i, NULL);
    }
}

static void threads_run(int count, void *(*run)(void *))
{
    pthread_t threads[64];
    for (intptr_t i = 0; i < count; i++) {
        REQUIRE(pthread_create(&threads[i], NULL, run, (void *)i) == 0);
    }
    for (int i = 0; i < count; i++) {
        pthread_join(threads[i], NULL);
    }
}

static void *swap_run(void *number)
{
    uint64_t random = seed + (uintptr_t)number * 0x9e3779b97f4a7c15u + 1;
    for (int step = 0; step < 20000 && case_failure_count == 0; step++) {
        shared_swap(random_next(&random) >> 20,
                    parcel_new(random_bytes(&random) / (step % 2 == 0 ? 1 : 8), (uint32_t)step));
    }
    return NULL;
}

TEST(threads_free_each_others_blocks)
{
    threads_run(THREADS, swap_run);
    shared_clear();
    (void)hmm_alloc_trim(0);
    audit();
    EXPECT(taken_count() <= 2 * CLASS_COUNT);
}

static void *leave_run(void *number)
{
    uint64_t random = seed + (uintptr_t)number * 977;
    for (size_t i = 0; i < SHARED; i++) {
        shared_swap(i, parcel_new(random_bytes(&random), (uint32_t)i));
    }
    return NULL;
}

/* Blocks outlive the threads that made them, again and again. */
TEST(threads_leave_blocks_behind)
{
    for (int round = 0; round < 10; round++) {
        threads_run(THREADS, leave_run);
        audit();
        for (size_t i = 0; i < SHARED; i += 2) {
            shared_swap(i, NULL);
        }
        audit();
    }
    shared_clear();
    (void)hmm_alloc_trim(0);
    audit();
    EXPECT(taken_count() <= 2 * CLASS_COUNT);
}

/* What a visitor does: blocks of its own, some that it leaves, and some that others left. */
static void *visit_run(void *number)
{
    uint64_t random = seed + (uintptr_t)number;
    struct parcel *own[50];
    for (size_t i = 0; i < 50; i++) {
        own[i] = parcel_new(random_below(&random, 3000), (uint32_t)i);
    }
    for (size_t i = 0; i < 50; i++) {
        if (i % 5 == 0) {
            shared_swap(random_below(&random, SHARED), own[i]);
        } else {
            parcel_drop(own[i]);
        }
    }
    return NULL;
}

TEST(brief_threads_cost_nothing_in_the_end)
{
    size_t frontier_before = 0;
    size_t resident_before = 0;
    for (int round = 0; round < 300; round++) {
        threads_run(1 + round % 3, visit_run);
        if (round == 100) {
            frontier_before = hmm_arena.frontier_count;
            resident_before = resident_bytes();
        }
        if (round % 20 == 0) {
            audit();
        }
    }
    EXPECT(hmm_arena.frontier_count <= frontier_before + CLASS_COUNT / 2);
    EXPECT(UNIT_IS_SANITIZED || resident_bytes() <= resident_before + 2 * MEBIBYTE);
    shared_clear();
    audit();
}

enum { RING = 1024, RING_BLOCKS = 300000 };
static _Atomic(struct parcel *) ring[RING];

static struct parcel *ring_take(int place)
{
    struct parcel *parcel = NULL;
    while (parcel == NULL) {
        parcel = atomic_exchange_explicit(&ring[place % RING], NULL, memory_order_acquire);
        if (parcel == NULL) {
            sched_yield();
        }
    }
    return parcel;
}

static void ring_put(int place, struct parcel *parcel)
{
    struct parcel *empty = NULL;
    while (!atomic_compare_exchange_weak_explicit(&ring[place % RING], &empty, parcel,
                                                  memory_order_release, memory_order_relaxed)) {
        empty = NULL;
        sched_yield();
    }
}

/* A thread that only frees. */
static void *consume_run(void *unused)
{
    (void)unused;
    for (int i = 0; i < RING_BLOCKS; i++) {
        parcel_drop(ring_take(i));
    }
    return NULL;
}

TEST(a_consumer_keeps_nothing)
{
    pthread_t consumer;
    uint64_t random = seed;
    size_t frontier_before = 0;
    REQUIRE(pthread_create(&consumer, NULL, consume_run, NULL) == 0);
    for (int i = 0; i < RING_BLOCKS; i++) {
        ring_put(i, parcel_new(random_below(&random, 400), (uint32_t)i));
        if (i == RING_BLOCKS / 5) {
            frontier_before = hmm_arena.frontier_count;
        }
    }
    pthread_join(consumer, NULL);
    /* What is live is a ring of 1024 blocks, and each class keeps some slabs for itself. */
    EXPECT(hmm_arena.frontier_count <= frontier_before + 2 * GRANULE_BYTES * 32 / GRANULE_BYTES);
    EXPECT(taken_count() << GRANULE_SHIFT <= 16 * MEBIBYTE);
    audit();
    (void)hmm_alloc_trim(0);
    audit();
}

static void *drop_opening(void *blocks)
{
    void **block = blocks;
    for (int i = 1; i < PUSHED_SLOTS_MAX; i++) {
        free_fast(*block++);
    }
    EXPECT(hmm_thread.thread == NULL);
    for (int i = 0; i < PUSHED_SLOTS_MAX; i++) {
        errno = 1234;
        free_fast(*block++);
        EXPECT(errno == 1234);
        EXPECT(thread_is_open(hmm_thread.thread));
        EXPECT(hmm_thread.thread->batched_slots == (uint32_t)i + 1);
        EXPECT(hmm_thread.thread->classes[class_of(40)].current == NULL);
    }
    return NULL;
}

TEST(who_frees_much_gets_batches)
{
    void *blocks[2 * PUSHED_SLOTS_MAX];
    pthread_t freer;
    threads_run(1, visit_run); /* whose slabs lie dormant, for somebody who allocates */
    for (int i = 0; i < 2 * PUSHED_SLOTS_MAX; i++) {
        blocks[i] = alloc_fast(40);
        REQUIRE(blocks[i] != NULL);
    }
    REQUIRE(pthread_create(&freer, NULL, drop_opening, blocks) == 0);
    pthread_join(freer, NULL);
    shared_clear();
    audit();
}

/* One makes a million bytes of blocks, another frees them after the maker has gone. */
static struct parcel *heir[40000];

static void *make_heir(void *unused)
{
    (void)unused;
    for (int i = 0; i < 40000; i++) {
        heir[i] = parcel_new((size_t)(i % 300), (uint32_t)i);
    }
    return NULL;
}

static void *drop_heir(void *unused)
{
    (void)unused;
    for (int i = 0; i < 40000; i++) {
        parcel_drop(heir[(size_t)i * 7919 % 40000]);
    }
    return NULL;
}

TEST(what_the_dead_left_is_given_back)
{
    size_t frontier_before = 0;
    for (int round = 0; round < 8; round++) {
        threads_run(1, make_heir);
        audit();
        threads_run(1, drop_heir);
        audit();
        frontier_before = round == 1 ? hmm_arena.frontier_count : frontier_before;
    }
    EXPECT(hmm_arena.frontier_count <= frontier_before + 8);
    (void)hmm_alloc_trim(0);
    audit();
    EXPECT(taken_count() <= CLASS_COUNT);
}

/* A process that becomes threaded with thousands of slabs of its own. */
TEST(the_first_thread_shares_what_it_had)
{
    make_heir(NULL);
    size_t taken_before = taken_count();
    threads_run(1, drop_heir);
    for (int round = 0; round < 5; round++) {
        make_heir(NULL);
        EXPECT(taken_count() <= taken_before + CLASS_COUNT);
        threads_run(2, visit_run);
        drop_heir(NULL);
        audit();
    }
    shared_clear();
    (void)hmm_alloc_trim(0);
    audit();
    EXPECT(taken_count() <= 2 * CLASS_COUNT);
}

/* ------------------------------------------------------------------- calls after a thread's end */

static pthread_key_t late_key;
static atomic_int late_calls;

struct late {
    struct parcel *early; /* made before the thread's end */
    int round;
};

/* Keys are destroyed in the order of their making, so the library has ended the thread already. */
static void late_destroy(void *value)
{
    struct late *late = value;
    static const size_t bytes[] = {1, 100, 5000, 8192, 20000, 2 * MEBIBYTE};
    EXPECT(UNIT_IS_SANITIZED || hmm_thread.thread == &hmm_thread_closed);
    for (int i = 0; i < 6; i++) {
        unsigned char *ptr = HmmAlloc(bytes[i]);
        REQUIRE(ptr != NULL);
        content_write(ptr, bytes[i], 5);
        ptr = HmmRealloc(ptr, bytes[i] * 2);
        EXPECT(ptr != NULL && content_is(ptr, bytes[i], 5));
        HmmFree(ptr);
        ptr = HmmCalloc(1, bytes[i]);
        EXPECT(ptr != NULL && content_is_zero(ptr, bytes[i]));
        HmmFree(ptr);
        shared_swap((size_t)(atomic_fetch_add(&late_calls, 1) * 7), parcel_new(bytes[i], 9));
    }
    parcel_drop(late->early);
    late->early = parcel_new(3000, 1);
    if (late->round++ < 2) {
        (void)pthread_setspecific(late_key, late);
    } else {
        parcel_drop(late->early);
        HmmFree(late);
    }
}

static void *late_run(void *number)
{
    struct late *late = HmmAlloc(sizeof *late);
    *late = (struct late){parcel_new(1000, 4), 0};
    (void)pthread_setspecific(late_key, late);
    return visit_run(number);
}

TEST(destructors_of_keys_may_allocate)
{
    enum { ROUNDS = UNIT_IS_SANITIZED ? 5 : 20 };
    REQUIRE(pthread_key_create(&late_key, late_destroy) == 0);
    for (int round = 0; round < ROUNDS; round++) {
        threads_run(4, late_run);
        audit();
    }
    EXPECT_EQUAL(late_calls, ROUNDS * 4 * 3 * 6);
    shared_clear();
    (void)hmm_alloc_trim(0);
    audit();
    EXPECT(taken_count() <= 2 * CLASS_COUNT);
}

/* ------------------------------------------------------ the same thread pointer, another thread */

static uintptr_t last_pointer;
static int reused_count;

static void *reuse_run(void *number)
{
    reused_count += last_pointer == thread_pointer();
    last_pointer = thread_pointer();
    for (size_t i = 0; i < SHARED; i++) {
        shared_swap(i * 7, parcel_new(i * 10, (uint32_t)i));
    }
    return number;
}

TEST(a_thread_pointer_is_used_again)
{
    for (int round = 0; round < 40; round++) {
        threads_run(1, reuse_run);
        if (round % 3 == 0) {
            threads_run(6, leave_run);
        }
        audit();
    }
    EXPECT(UNIT_IS_SANITIZED || reused_count > 0);
    shared_clear();
    (void)hmm_alloc_trim(0);
    audit();
}

/* ------------------------------------------------------------------ bins that their thread left */

enum { KEPT_BYTES = 64 };

static struct slot *kept_slots; /* what the thread that ended had at hand */
static uint64_t kept_refills;

static void *fill_bin(void *unused)
{
    EXPECT(HmmAlloc(KEPT_BYTES) != NULL);
    kept_slots = hmm_thread.bins[class_of(KEPT_BYTES)];
    kept_refills = hmm_thread.thread->refill_count;
    EXPECT(kept_slots != NULL);
    return unused;
}

static void *find_bin(void *unused)
{
    EXPECT(HmmAlloc(KEPT_BYTES) == (void *)kept_slots);
    EXPECT(hmm_thread.thread->refill_count == kept_refills);
    return unused;
}

static HmmClassStats kept_stats(void)
{
    HmmStats stats;
    HmmGetStats(&stats);
    return stats.classes[class_of(KEPT_BYTES)];
}

TEST(the_next_thread_finds_the_bins)
{
    threads_run(1, fill_bin);
    audit();
    HmmClassStats stats = kept_stats();
    EXPECT(stats.live_count == 1 && stats.cached_count > 0 && stats.free_count == 0);
    threads_run(1, find_bin);
    audit();
    EXPECT(kept_stats().live_count == 2);
}

TEST(who_needs_slots_takes_the_bins_of_the_dead)
{
    threads_run(1, fill_bin);
    size_t cached_count = kept_stats().cached_count;
    size_t taken_before = taken_count();
    for (size_t i = 0; i < cached_count; i++) {
        EXPECT(HmmAlloc(KEPT_BYTES) != NULL);
    }
    audit();
    EXPECT(taken_count() == taken_before);
}

TEST(a_child_has_the_bins_of_the_dead)
{
    threads_run(1, fill_bin);
    int status = -1;
    pid_t child = fork();
    if (child == 0) {
        audit();
        EXPECT(kept_stats().live_count == 1);
        _exit(case_failure_count == 0 ? EXIT_SUCCESS : EXIT_FAILURE);
    }
    EXPECT(waitpid(child, &status, 0) == child && status == 0);
}

TEST(bins_of_the_dead_go_back)
{
    threads_run(1, fill_bin);
    (void)hmm_alloc_trim(0);
    audit();
    EXPECT(kept_stats().cached_count == 0);
}

/* ---------------------------------------------------------------------------------------- forks */

enum { FORKS = UNIT_IS_SANITIZED ? 20 : 200, INHERITED = 200, BUSY = 2 };

static atomic_bool must_stop;
static atomic_int going_count;
static struct parcel *inherited[INHERITED];

static void *busy_run(void *number)
{
    uint64_t random = seed + (uintptr_t)number * 31 + 7;
    struct parcel *own[64] = {NULL};
    bool is_counted = false;
    while (!atomic_load(&must_stop)) {
        for (int i = 0; i < 64; i++) {
            size_t bytes = random_bytes(&random);
            parcel_drop(own[i]);
            own[i] = parcel_new(bytes < 100000 ? bytes : bytes / 64, (uint32_t)i);
            if (i % 4 == 0) {
                shared_swap(random_below(&random, SHARED), own[i]);
                own[i] = NULL;
            }
        }
        if (!is_counted) {
            atomic_fetch_add(&going_count, 1);
            is_counted = true;
        }
    }
    for (int i = 0; i < 64; i++) {
        parcel_drop(own[i]);
    }
    return NULL;
}

/* Threads that come and go meanwhile. */
static void *churn_run(void *unused)
{
    atomic_fetch_add(&going_count, 1);
    while (!atomic_load(&must_stop)) {
        threads_run(3, visit_run);
    }
    return unused;
}

static void *make_inherited(void *unused)
{
    (void)unused;
    for (size_t i = 1; i < INHERITED; i += 2) {
        inherited[i] = parcel_new(i * 50, (uint32_t)i);
    }
    return NULL;
}

/* A child allocates at once, finds all invariants, frees what it has from its parent, be it made by
 * threads that are not there, and has threads and children of its own. */
static _Noreturn void forked_run(int round)
{
    uint64_t random = seed + (uint64_t)round;
    struct held held[100] = {0};
    alarm(CHILD_SECONDS / 2);
    for (int i = 0; i < 300; i++) {
        held_step(&held[random_below(&random, 100)], &random);
    }
    audit();
    for (int i = 0; i < INHERITED; i++) {
        parcel_drop(inherited[i]);
    }
    audit();
    shared_clear();
    audit();
    /* A sanitizer has no threads in a child of a process that has them. */
    if (round % 10 == 0 && !UNIT_IS_SANITIZED) {
        threads_run(2, visit_run);
        audit();
    }
    if (round % 20 == 0) {
        int status = -1;
        pid_t child = fork();
        if (child == 0) {
            (void)visit_run(NULL);
            audit();
            _exit(case_failure_count == 0 ? EXIT_SUCCESS : EXIT_FAILURE);
        }
        EXPECT(waitpid(child, &status, 0) == child && status == 0);
    }
    (void)hmm_alloc_trim(0);
    audit();
    if (round % 3 == 0) {
        exit(case_failure_count == 0 ? EXIT_SUCCESS : EXIT_FAILURE);
    }
    _exit(case_failure_count == 0 ? EXIT_SUCCESS : EXIT_FAILURE);
}

TEST(forks_among_busy_threads)
{
    pthread_t threads[BUSY];
    for (intptr_t i = 0; i < BUSY; i++) {
        REQUIRE(pthread_create(&threads[i], NULL, i == 0 ? churn_run : busy_run, (void *)i) == 0);
    }
    while (atomic_load(&going_count) < BUSY) {
        sched_yield();
    }
    for (int round = 0; round < FORKS && case_failure_count == 0; round++) {
        int status = -1;
        for (size_t i = 0; i < INHERITED; i += 2) {
            inherited[i] = parcel_new(i * 50, (uint32_t)i);
        }
        threads_run(1, make_inherited);
        pid_t child = fork();
        if (child == 0) {
            forked_run(round);
        }
        EXPECT(child > 0 && waitpid(child, &status, 0) == child);
        EXPECT_EQUAL(status, 0);
        for (int i = 0; i < INHERITED; i++) {
            parcel_drop(inherited[i]);
        }
    }
    atomic_store(&must_stop, true);
    for (int i = 0; i < BUSY; i++) {
        pthread_join(threads[i], NULL);
    }
    shared_clear();
    (void)hmm_alloc_trim(0);
    audit();
}

enum { HOARDED = 40000, HOARDED_BYTES = 96, HOARD_SHARE = 100 };

/* Threads that hold slabs full of free slots, and wait. */
static void *hoard_run(void *unused)
{
    void **slots = malloc(HOARDED * sizeof *slots);
    for (int i = 0; i < HOARDED; i++) {
        slots[i] = HmmAlloc(HOARDED_BYTES);
    }
    for (int i = 0; i < HOARDED; i++) {
        if (i % HOARD_SHARE != 0) {
            HmmFree(slots[i]);
        }
    }
    free(slots);
    atomic_fetch_add(&going_count, 1);
    while (!atomic_load(&must_stop)) {
        sched_yield();
    }
    return unused;
}

TEST(a_child_has_what_vanished_threads_held)
{
    enum { HOARDERS = 3 };
    pthread_t threads[HOARDERS];
    int status = -1;
    for (int i = 0; i < HOARDERS; i++) {
        REQUIRE(pthread_create(&threads[i], NULL, hoard_run, NULL) == 0);
    }
    while (atomic_load(&going_count) < HOARDERS) {
        sched_yield();
    }
    pid_t child = fork();
    if (child == 0) {
        alarm(CHILD_SECONDS);
        audit();
        size_t frontier_before = hmm_arena.frontier_count;
        size_t taken_before = taken_count();
        size_t slot_count = taken_before * class_capacity(class_of(HOARDED_BYTES)) / 100 * 95 -
                            HOARDERS * HOARDED / HOARD_SHARE;
        EXPECT(slot_count > HOARDED);
        for (size_t i = 0; i < slot_count; i++) {
            REQUIRE(HmmAlloc(HOARDED_BYTES) != NULL);
        }
        EXPECT(hmm_arena.frontier_count <= frontier_before + 1);
        EXPECT(taken_count() <= taken_before + 3);
        audit();
        _exit(case_failure_count == 0 ? EXIT_SUCCESS : EXIT_FAILURE);
    }
    EXPECT(waitpid(child, &status, 0) == child && status == 0);
    atomic_store(&must_stop, true);
    for (int i = 0; i < HOARDERS; i++) {
        pthread_join(threads[i], NULL);
    }
    audit();
}

/* A thread that vanishes while it carves a new slab, of which nothing is carved yet for
 * all to see. */
static struct granule *half_carved;

static void *carve_half(void *unused)
{
    enum { WRITTEN_BYTES = 30000 };
    EXPECT(HmmAlloc(HOARDED_BYTES) != NULL);
    struct thread *thread = hmm_thread.thread;
    atomic_store(&thread->is_busy, true);
    half_carved = hmm_slab_create(class_of(HOARDED_BYTES), thread->self);
    REQUIRE(half_carved != NULL);
    memset((void *)granule_start(half_carved), 1, WRITTEN_BYTES);
    atomic_fetch_add(&going_count, 1);
    while (!atomic_load(&must_stop)) {
        sched_yield();
    }
    half_carved->is_zero = false;
    hmm_slab_release(half_carved);
    atomic_store(&thread->is_busy, false);
    return unused;
}

TEST(a_child_distrusts_what_was_being_carved)
{
    pthread_t thread;
    int status = -1;
    REQUIRE(pthread_create(&thread, NULL, carve_half, NULL) == 0);
    while (atomic_load(&going_count) < 1) {
        sched_yield();
    }
    pid_t child = fork();
    if (child == 0) {
        audit();
        EXPECT(granule_kind(half_carved) == GRANULE_FREE && granule_is_touched(half_carved));
        _exit(case_failure_count == 0 ? EXIT_SUCCESS : EXIT_FAILURE);
    }
    EXPECT(waitpid(child, &status, 0) == child && status == 0);
    atomic_store(&must_stop, true);
    pthread_join(thread, NULL);
    audit();
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

TEST(trimming_gives_pages_of_nobodys_slabs_back)
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
        _exit(case_failure_count == 0 ? EXIT_SUCCESS : EXIT_FAILURE);
    }
    EXPECT(waitpid(child, &status, 0) == child && status == 0);
    atomic_store(&sparse_is_dropped, false);
    pthread_join(thread, NULL);
}

/* ----------------------------------------------------------------------- slabs that are drained */

HMM_RACY static size_t drained_count(void)
{
    size_t count = 0;
    for (size_t index = 0; index < hmm_arena.frontier_count; index++) {
        const struct granule *slab = &hmm_arena.table[index];
        count +=
            granule_kind(slab) == GRANULE_SLAB && remote_is_drained(atomic_load(&slab->remote));
    }
    return count;
}

static void *sparse_drop_all(void *unused)
{
    for (size_t i = 0; i < sparse_count; i++) {
        held_drop(&sparse[i]);
    }
    return unused;
}

/* The calling thread has full slabs which it has not looked at since others freed all
 * of their slots. */
static void drain(size_t bytes)
{
    threads_run(1, idle); /* from now on full slabs go to sleep */
    sparse_fill(bytes);
    threads_run(1, sparse_drop_all);
    EXPECT(drained_count() <= FULL_MAX + 1); /* the current one, too */
    EXPECT(UNIT_IS_SANITIZED || drained_count() != 0);
    EXPECT(hmm_purge_away_bytes() >= drained_count() * GRANULE_BYTES);
    audit();
}

TEST(slabs_are_drained_whose_owner_is_idle)
{
    static const size_t tried[] = {16, 500, 1100, 8192};
    for (size_t i = 0; i < sizeof tried / sizeof tried[0]; i++) {
        drain(tried[i]);
        sparse_refill(); /* calloc must find zeros */
        EXPECT_EQUAL(drained_count(), 0);
        EXPECT_EQUAL(hmm_purge_away_bytes(), 0);
        sparse_clear();
    }
}

TEST(a_child_has_drained_slabs)
{
    int status = -1;
    drain(500);
    pid_t child = fork();
    if (child == 0) {
        audit();
        sparse_refill();
        EXPECT_EQUAL(drained_count(), 0);
        sparse_clear();
        _exit(case_failure_count == 0 ? EXIT_SUCCESS : EXIT_FAILURE);
    }
    EXPECT(waitpid(child, &status, 0) == child && status == 0);
    sparse_refill();
    sparse_clear();
}

static void *drain_and_end(void *unused)
{
    drain(500);
    return unused;
}

/* In the child of such a thread's process others' slabs are drained. */
static void *drain_and_wait(void *unused)
{
    drain(500);
    atomic_store(&sparse_is_dropped, true);
    while (atomic_load(&sparse_is_dropped)) {
        sched_yield();
    }
    return unused;
}

TEST(drained_slabs_of_the_dead_are_given_back)
{
    pthread_t thread;
    int status = -1;
    threads_run(1, drain_and_end);
    EXPECT_EQUAL(drained_count(), 0);
    REQUIRE(pthread_create(&thread, NULL, drain_and_wait, NULL) == 0);
    while (!atomic_load(&sparse_is_dropped)) {
        sched_yield();
    }
    pid_t child = fork();
    if (child == 0) {
        EXPECT_EQUAL(drained_count(), 0);
        audit();
        _exit(case_failure_count == 0 ? EXIT_SUCCESS : EXIT_FAILURE);
    }
    EXPECT(waitpid(child, &status, 0) == child && status == 0);
    atomic_store(&sparse_is_dropped, false);
    pthread_join(thread, NULL);
    EXPECT_EQUAL(drained_count(), 0);
    EXPECT_EQUAL(hmm_purge_away_bytes(), 0);
    audit();
}

/* Pairs: one takes what fills a few slabs, the other gives it back while the first is already
 * at the next. */
enum { PAIRS = 3, HANDS = 2, HAND_BLOCKS = 150, HAND_ROUNDS = 400, HAND_BYTES = 1000 };

static struct hand {
    _Atomic bool is_full;
    struct parcel *blocks[HAND_BLOCKS];
} hands[PAIRS][HANDS];

static atomic_size_t drains_seen;

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
        atomic_fetch_add(&drains_seen, is_giver ? drained_count() : 0);
    }
    return NULL;
}

TEST(slabs_are_drained_under_their_owners)
{
    sparse_fill(500); /* a peak, so that all that follows is after a drop */
    sparse_clear();
    sparse = NULL;
    threads_run(2 * PAIRS, pair_run);
    EXPECT(UNIT_IS_SANITIZED || atomic_load(&drains_seen) != 0);
    audit();
    (void)hmm_alloc_trim(0);
    EXPECT_EQUAL(drained_count(), 0);
    EXPECT_EQUAL(hmm_purge_away_bytes(), 0);
    audit();
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
        cmocka_unit_test(what_is_free_between_medium_blocks_goes_when_large_ones_do),
        cmocka_unit_test(what_is_free_between_medium_blocks_goes_when_small_ones_do),
        cmocka_unit_test(what_is_free_goes_when_medium_blocks_do_after_large_ones),
        cmocka_unit_test(what_is_free_goes_when_medium_blocks_do_after_small_ones),
        cmocka_unit_test(memory_runs_out_and_comes_back),
        cmocka_unit_test(what_small_blocks_leave_large_ones_take),
        cmocka_unit_test(what_large_blocks_leave_small_ones_take),
        cmocka_unit_test(threads_start_when_nothing_is_left),
        cmocka_unit_test(a_small_limit_is_kept),
        cmocka_unit_test(a_peak_of_small_blocks_goes_back),
        cmocka_unit_test(a_peak_of_kilobytes_goes_back),
        cmocka_unit_test(a_peak_of_medium_blocks_goes_back),
        cmocka_unit_test(a_peak_of_larger_medium_blocks_goes_back),
        cmocka_unit_test(a_peak_of_large_blocks_goes_back),
        cmocka_unit_test(a_peak_of_one_block_goes_back),
        cmocka_unit_test(what_a_program_keeps_stays),
        cmocka_unit_test(peak_after_peak_goes_back_in_time),
        cmocka_unit_test(a_heap_that_comes_back_is_as_it_should_be),
        cmocka_unit_test(what_goes_back_stays_away),
        cmocka_unit_test(large_blocks_bring_no_memory_back),
        cmocka_unit_test(a_heap_that_keeps_nothing_brings_nothing_back_in_advance),
        cmocka_unit_test(trimming_gives_everything_back),
        cmocka_unit_test(empty_slabs_are_given_back),
        cmocka_unit_test(freed_slots_are_used_again),
        cmocka_unit_test(threads_free_each_others_blocks),
        cmocka_unit_test(threads_leave_blocks_behind),
        cmocka_unit_test(brief_threads_cost_nothing_in_the_end),
        cmocka_unit_test(a_consumer_keeps_nothing),
        cmocka_unit_test(who_frees_much_gets_batches),
        cmocka_unit_test(what_the_dead_left_is_given_back),
        cmocka_unit_test(the_first_thread_shares_what_it_had),
        cmocka_unit_test(destructors_of_keys_may_allocate),
        cmocka_unit_test(a_thread_pointer_is_used_again),
        cmocka_unit_test(the_next_thread_finds_the_bins),
        cmocka_unit_test(who_needs_slots_takes_the_bins_of_the_dead),
        cmocka_unit_test(a_child_has_the_bins_of_the_dead),
        cmocka_unit_test(bins_of_the_dead_go_back),
        cmocka_unit_test(forks_among_busy_threads),
        cmocka_unit_test(a_child_has_what_vanished_threads_held),
        cmocka_unit_test(a_child_distrusts_what_was_being_carved),
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
        cmocka_unit_test(slabs_are_drained_whose_owner_is_idle),
        cmocka_unit_test(a_child_has_drained_slabs),
        cmocka_unit_test(drained_slabs_of_the_dead_are_given_back),
        cmocka_unit_test(slabs_are_drained_under_their_owners),
    };
    seed = seed_draw();
    cmocka_set_test_filter(argc > 1 ? argv[1] : NULL);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
