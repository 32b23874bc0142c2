/*
 * footprint.c - what was freed goes back: the break comes down, pages are returned, and the kernel
 * has few mappings to keep.
 */
#include "cases.h"
#include "footprint.h"

#include <malloc.h>
#include <stdint.h>

enum {
    BLOCKS = 2000,
    BLOCK_BYTES = 50000,
    LITTLE = 100,
    LITTLE_BLOCKS = 600000,
    MEBIBYTE = 1 << 20
};

/* Free memory at the break that is kept for the next request: this much, and a share of the peak.
 */
enum { KEPT_BYTES = MEBIBYTE, KEPT_SHARE = 7 };

static char *blocks[LITTLE_BLOCKS];

static size_t break_bytes(void)
{
    return mallinfo2().arena;
}

static void take(int count, size_t bytes)
{
    for (int i = 0; i < count; i++) {
        blocks[i] = malloc(bytes);
        REQUIRE(blocks[i] != NULL);
        memset(blocks[i], 1, bytes);
    }
}

/* A fixed permutation: 7919 divides neither number of blocks. */
static void drop_in_disorder(int count)
{
    for (int i = 0; i < count; i++) {
        int place = (int)((unsigned long)i * 7919 % (unsigned long)count);
        free(blocks[place]);
    }
}

/* The break comes second: who asks for it has a hardened heap use what waits. */
static void expect_returned(size_t resident_before, size_t break_before, size_t peak_bytes)
{
    size_t kept_bytes = KEPT_BYTES + peak_bytes / KEPT_SHARE;
    EXPECT(resident_bytes() <= resident_before + kept_bytes + MEBIBYTE);
    EXPECT(break_bytes() <= break_before + kept_bytes);
}

static void peak_of_large_blocks(void)
{
    free(malloc(1));
    size_t resident_before = resident_bytes();
    size_t break_before = break_bytes();
    take(BLOCKS, BLOCK_BYTES);
    EXPECT(break_bytes() >= (size_t)BLOCKS * BLOCK_BYTES);
    EXPECT(resident_bytes() >= (size_t)BLOCKS * BLOCK_BYTES);
    drop_in_disorder(BLOCKS);
    expect_returned(resident_before, break_before, (size_t)BLOCKS * BLOCK_BYTES);
}

static void peak_of_little_blocks(void)
{
    free(malloc(1));
    memset(blocks, 1, sizeof blocks); /* its pages are not the heap's */
    size_t resident_before = resident_bytes();
    size_t break_before = break_bytes();
    take(LITTLE_BLOCKS, LITTLE);
    drop_in_disorder(LITTLE_BLOCKS);
    expect_returned(resident_before, break_before, (size_t)LITTLE_BLOCKS * LITTLE);
}

/* One block at the top holds everything back; when it goes, all of it goes. */
static void the_last_one_holds_the_break(void)
{
    size_t resident_before = resident_bytes();
    size_t break_before = break_bytes();
    take(BLOCKS, BLOCK_BYTES);
    for (int i = 0; i < BLOCKS - 1; i++) {
        free(blocks[i]);
    }
    EXPECT(break_bytes() >= (size_t)BLOCKS * BLOCK_BYTES);
    EXPECT_EQUAL(blocks[BLOCKS - 1][BLOCK_BYTES - 1], 1);
    free(blocks[BLOCKS - 1]);
    expect_returned(resident_before, break_before, (size_t)BLOCKS * BLOCK_BYTES);
}

/* Whatever was freed last. */
static void a_share_stays_live(void)
{
    enum { SHARE = 8 };
    size_t resident_before = resident_bytes();
    size_t break_before = break_bytes();
    take(BLOCKS, BLOCK_BYTES);
    for (int i = BLOCKS / SHARE; i < BLOCKS; i++) {
        free(blocks[i]);
    }
    size_t live_bytes = (size_t)BLOCKS / SHARE * BLOCK_BYTES;
    expect_returned(resident_before + live_bytes, break_before + live_bytes,
                    (size_t)BLOCKS * BLOCK_BYTES);
}

/* malloc_trim gives back what was kept, down to a page or so. */
static void malloc_trim_gives_the_rest(void)
{
    char *kept = malloc(100);
    take(BLOCKS, BLOCK_BYTES);
    drop_in_disorder(BLOCKS);
    (void)malloc_trim(0);
    size_t page_bytes = (size_t)sysconf(_SC_PAGESIZE);
    EXPECT(break_bytes() <= mallinfo2().uordblks + 2 * page_bytes);
    take(10, BLOCK_BYTES);
    drop_in_disorder(10);
    free(kept);
}

static void realloc_gives_back_too(void)
{
    size_t resident_before = resident_bytes();
    size_t break_before = break_bytes();
    char *block = malloc((size_t)100 * MEBIBYTE);
    REQUIRE(block != NULL);
    memset(block, 1, (size_t)100 * MEBIBYTE);
    block = realloc(block, 1000);
    REQUIRE(block != NULL);
    EXPECT_EQUAL(block[999], 1);
    expect_returned(resident_before, break_before, (size_t)100 * MEBIBYTE);
    free(block);
}

/* A block that comes and goes at the break must not move it each time: that would be a system call
 * each. What stays is seen by its content, which fresh pages would have lost. */
static void a_block_at_the_break_comes_and_goes(void)
{
    enum { SMALL_BYTES = 100000 };
    volatile char *first = malloc(SMALL_BYTES);
    REQUIRE(first != NULL);
    first[SMALL_BYTES - 100] = 77;
    free((void *)first);
    size_t before = break_bytes();
    for (int i = 0; i < 100; i++) {
        volatile char *again = malloc(SMALL_BYTES);
        REQUIRE(again == first);
        EXPECT_EQUAL(again[SMALL_BYTES - 100], 77);
        free((void *)again);
        EXPECT_EQUAL(break_bytes(), before);
    }
}

/* Up and down again and again; the limit of mappings is the system's, and others need them. */
static void mappings_stay_few(void)
{
    take(10, BLOCK_BYTES);
    drop_in_disorder(10);
    size_t before = mapping_count();
    for (int round = 0; round < 40; round++) {
        take(BLOCKS / 20 * (1 + round % 3), BLOCK_BYTES);
        EXPECT(mapping_count() <= before + 3);
        drop_in_disorder(BLOCKS / 20 * (1 + round % 3));
        (void)malloc_trim(0);
        EXPECT(mapping_count() <= before + 3);
    }
}

/* What is not touched must not be resident, however much of it was asked for. */
static void untouched_memory_costs_nothing(void)
{
    size_t before = resident_bytes();
    char *block = malloc((size_t)512 * MEBIBYTE);
    REQUIRE(block != NULL);
    block[0] = 1;
    block[(size_t)512 * MEBIBYTE - 1] = 1;
    EXPECT(resident_bytes() <= before + KEPT_BYTES);
    free(block);
}

CASES_MAIN(CASE(peak_of_large_blocks), CASE(peak_of_little_blocks),
           CASE(the_last_one_holds_the_break), CASE(a_share_stays_live),
           CASE(malloc_trim_gives_the_rest), CASE(realloc_gives_back_too),
           CASE(a_block_at_the_break_comes_and_goes), CASE(mappings_stay_few),
           CASE(untouched_memory_costs_nothing))
