/*
 * trim.c - malloc_trim gives back the whole pages inside free memory, wherever they lie,
 * as glibc's does.
 *
 * What a program sees of it: resident memory, content, and how often the system is asked.
 */
#include "cases.h"
#include "footprint.h"
#include "seed.h"

#include <malloc.h>
#include <pthread.h>
#include <stdint.h>
#include <sys/mman.h>

enum {
    ALL_BYTES = 32 << 20, /* of the blocks of a case */
    BLOCKS_MAX = ALL_BYTES / 1000,
    KEPT_EVERY = 5,
    /* The library's own, and its caches. */
    SLACK_BYTES = 3 << 20,
};

static struct {
    unsigned char *ptr; /* NULL: none */
    size_t bytes;
} blocks[BLOCKS_MAX];

static size_t block_count;

/* -------------------------------------------------------------------------- blocks with content */

static unsigned char byte_of(size_t i)
{
    return (unsigned char)(i * 37 + 1);
}

static bool is_all(const unsigned char *ptr, size_t bytes, unsigned char byte)
{
    size_t i = 0;
    while (i < bytes && ptr[i] == byte) {
        i++;
    }
    return i == bytes;
}

static void block_keep(size_t i, void *ptr, size_t bytes)
{
    REQUIRE(ptr != NULL);
    memset(ptr, byte_of(i), bytes);
    blocks[i].ptr = ptr;
    blocks[i].bytes = bytes;
}

static void block_drop(size_t i)
{
    EXPECT(is_all(blocks[i].ptr, blocks[i].bytes, byte_of(i)));
    free(blocks[i].ptr);
    blocks[i].ptr = NULL;
}

static bool is_kept(size_t i)
{
    return i % KEPT_EVERY == 0;
}

static void *drop_most(void *unused)
{
    for (size_t i = 0; i < block_count; i++) {
        if (!is_kept(i)) {
            block_drop(i);
        }
    }
    return unused;
}

static void *return_at_once(void *unused)
{
    return unused;
}

static void *take_all(void *block_bytes)
{
    size_t bytes = (uintptr_t)block_bytes;
    block_count = ALL_BYTES / bytes;
    for (size_t i = 0; i < block_count; i++) {
        block_keep(i, malloc(bytes), bytes);
    }
    return NULL;
}

static void drop_all(void)
{
    for (size_t i = 0; i < block_count; i++) {
        if (blocks[i].ptr != NULL) {
            block_drop(i);
        }
    }
}

/* The pages on which a block lies may stay, and no others. */
static size_t kept_bytes_most(void)
{
    size_t page_bytes = (size_t)sysconf(_SC_PAGESIZE);
    size_t bytes = SLACK_BYTES;
    for (size_t i = 0; i < block_count; i++) {
        bytes += blocks[i].ptr != NULL ? malloc_usable_size(blocks[i].ptr) + 2 * page_bytes : 0;
    }
    return bytes;
}

/* All that is there is whole, and what comes is zero where it should be. */
static void refill(size_t bytes)
{
    for (size_t i = 0; i < block_count; i++) {
        if (blocks[i].ptr == NULL) {
            unsigned char *ptr = i % 2 == 0 ? malloc(bytes) : calloc(1, bytes);
            EXPECT(ptr == NULL || i % 2 == 0 || is_all(ptr, bytes, 0));
            block_keep(i, ptr, bytes);
        }
    }
}

/* ------------------------------------------------------------------------------ resident memory */

static void give_back(size_t bytes)
{
    memset(blocks, 1, sizeof blocks); /* its pages are not the heap's */
    memset(blocks, 0, sizeof blocks);
    free(malloc(bytes));
    size_t before = resident_bytes();
    (void)take_all((void *)bytes);
    EXPECT(resident_bytes() >= before + ALL_BYTES / 10 * 9);
    (void)drop_most(NULL);
    EXPECT_EQUAL(malloc_trim(0), 1);
    size_t after = resident_bytes();
    if (!EXPECT(after <= before + kept_bytes_most())) {
        case_say("# blocks of %zu bytes: %zu KiB are resident\n", bytes, (after - before) >> 10);
    }
    refill(bytes);
    drop_all();
    (void)malloc_trim(0);
    EXPECT(resident_bytes() <= before + SLACK_BYTES);
}

static void pages_between_blocks_of_9_kilobytes(void)
{
    give_back(9000);
}

static void pages_between_blocks_of_20_kilobytes(void)
{
    give_back(20000);
}

static void pages_between_blocks_of_50_kilobytes(void)
{
    give_back(50000);
}

static void pages_between_blocks_of_100_kilobytes(void)
{
    give_back(100000);
}

static void pages_between_blocks_of_a_page(void)
{
    give_back(4000);
}

static void pages_between_blocks_of_half_a_page(void)
{
    give_back(2000);
}

static void a_second_time_there_is_nothing(void)
{
    for (size_t bytes = 1000; bytes <= 200000; bytes *= 3) {
        (void)take_all((void *)bytes);
        (void)drop_most(NULL);
        (void)malloc_trim(0);
        EXPECT_EQUAL(malloc_trim(0), 0);
        drop_all();
    }
}

static void by_another_thread(void *(*run)(void *), void *argument)
{
    pthread_t thread;
    REQUIRE(pthread_create(&thread, NULL, run, argument) == 0);
    pthread_join(thread, NULL);
}

/* Blocks of a thread that is no more, or blocks that a thread frees. */
static void pages_between_blocks_of_other_threads(void)
{
    static const size_t tried[] = {4000, 9000, 30000};
    for (size_t i = 0; i < 2 * sizeof tried / sizeof tried[0]; i++) {
        size_t bytes = tried[i / 2];
        size_t before = resident_bytes();
        if (i % 2 == 0) {
            by_another_thread(take_all, (void *)bytes);
            (void)drop_most(NULL);
        } else {
            (void)take_all((void *)bytes);
            by_another_thread(drop_most, NULL);
        }
        EXPECT_EQUAL(malloc_trim(0), 1);
        size_t after = resident_bytes();
        if (!EXPECT(after <= before + kept_bytes_most())) {
            case_say("# blocks of %zu bytes: %zu KiB are resident\n", bytes,
                     (after - before) >> 10);
        }
        refill(bytes);
        drop_all();
        (void)malloc_trim(0);
    }
}

/* -------------------------------------------------------------------------------------- content */

static uint64_t random_state = 88172645463325252u;

static void blocks_of_all_sizes_stay_whole(void)
{
    enum { COUNT = 1500, STEPS = 60000, TRIM_STEPS = 200 };
    block_count = COUNT;
    for (size_t step = 0; step < STEPS; step++) {
        size_t i = random_below(&random_state, COUNT);
        if (blocks[i].ptr != NULL && random_below(&random_state, 4) == 0) {
            size_t bytes =
                1 + (random_below(&random_state, 2000) << random_below(&random_state, 7));
            size_t both_bytes = bytes < blocks[i].bytes ? bytes : blocks[i].bytes;
            unsigned char *ptr = realloc(blocks[i].ptr, bytes);
            REQUIRE(ptr != NULL);
            EXPECT(is_all(ptr, both_bytes, byte_of(i)));
            block_keep(i, ptr, bytes);
        } else if (blocks[i].ptr != NULL) {
            block_drop(i);
        } else {
            size_t bytes =
                1 + (random_below(&random_state, 2000) << random_below(&random_state, 7));
            unsigned char *ptr = step % 3 == 0 ? calloc(bytes, 1) : malloc(bytes);
            EXPECT(ptr == NULL || step % 3 != 0 || is_all(ptr, bytes, 0));
            block_keep(i, ptr, bytes);
        }
        if (step % TRIM_STEPS == 0) {
            (void)malloc_trim(
                random_below(&random_state, 3) == 0 ? random_below(&random_state, 1 << 20) : 0);
        }
    }
    drop_all();
}

/* A system that does not take locked pages back (Linux before 5.18): nothing is lost, and when they
 * are not locked they go. */
static void locked_pages_stay_until_they_are_not(void)
{
    const size_t bytes = 20000;
    size_t page_bytes = (size_t)sysconf(_SC_PAGESIZE);
    size_t before = resident_bytes();
    (void)take_all((void *)bytes);
    bool is_locked = mlock((void *)((uintptr_t)blocks[1].ptr & ~(page_bytes - 1)), bytes) == 0;
    (void)drop_most(NULL);
    (void)malloc_trim(0);
    if (is_locked) {
        munlockall();
    }
    (void)malloc_trim(0);
    EXPECT(resident_bytes() <= before + kept_bytes_most());
    refill(bytes);
    drop_all();
}

/* For the script, which counts calls: TRIMS of them. */
static void the_system_is_asked_once_a_block(void)
{
    const char *trims = getenv("TRIMS");
    enum { COUNT = 1000, BYTES = 20000 };
    block_count = COUNT;
    for (size_t i = 0; i < COUNT; i++) {
        block_keep(i, malloc(BYTES), BYTES);
    }
    for (size_t i = 0; i < COUNT; i += 2) {
        block_drop(i);
    }
    for (long left = trims != NULL ? strtol(trims, NULL, 10) : 2; left > 0; left--) {
        (void)malloc_trim(0);
    }
    drop_all();
}

/* Slabs of the thread that makes the second one sleep from then on, and a fifth of each is too
 * little to wake it. */
static void pages_in_slabs_that_sleep(void)
{
    enum { BYTES = 1000, SLAB_BLOCKS = 65, GONE = SLAB_BLOCKS / 5 };
    pthread_t thread;
    size_t gone_bytes = 0;
    (void)take_all((void *)(uintptr_t)BYTES);
    REQUIRE(pthread_create(&thread, NULL, return_at_once, NULL) == 0 &&
            pthread_join(thread, NULL) == 0);
    for (size_t i = 0; i < block_count; i++) {
        if (i % SLAB_BLOCKS < GONE) {
            block_drop(i);
            gone_bytes += BYTES;
        }
    }
    size_t before_bytes = resident_bytes();
    EXPECT(malloc_trim(0) == 1);
    EXPECT(resident_bytes() < before_bytes - gone_bytes / 2);
    drop_all();
}

CASES_MAIN(CASE(pages_between_blocks_of_9_kilobytes), CASE(pages_between_blocks_of_20_kilobytes),
           CASE(pages_between_blocks_of_50_kilobytes), CASE(pages_between_blocks_of_100_kilobytes),
           CASE(pages_between_blocks_of_a_page), CASE(pages_between_blocks_of_half_a_page),
           CASE(a_second_time_there_is_nothing), CASE(pages_between_blocks_of_other_threads),
           CASE(blocks_of_all_sizes_stay_whole), CASE(locked_pages_stay_until_they_are_not),
           CASE(the_system_is_asked_once_a_block), CASE(pages_in_slabs_that_sleep))
