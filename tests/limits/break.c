/*
 * break.c - the program break is everybody's: others move it up and down between our calls, or
 * stand in its way.
 *
 * It runs with region=sbrk.
 */
#include "cases.h"

#include <errno.h>
#include <malloc.h>
#include <stdint.h>
#include <sys/mman.h>

enum { BLOCKS = 400, BLOCK_BYTES = 9000, FOREIGNERS = 60, MEBIBYTE = 1 << 20, PATTERN = 0xe7 };

static char *blocks[BLOCKS];

static char *break_now(void)
{
    return sbrk(0);
}

/* The heap lies below the break, or the test is of no use. */
static void require_sbrk(void)
{
    static char in_the_program;
    char *block = malloc(100);
    REQUIRE(block > &in_the_program && block < break_now());
    free(block);
}

static bool is_filled(const char *bytes, int value, size_t count)
{
    size_t i = 0;
    while (i < count && bytes[i] == (char)value) {
        i++;
    }
    return i == count;
}

static void blocks_take(void)
{
    for (int i = 0; i < BLOCKS; i++) {
        blocks[i] = malloc(BLOCK_BYTES);
        REQUIRE(blocks[i] != NULL);
        memset(blocks[i], i, BLOCK_BYTES);
    }
}

static void blocks_check(void)
{
    for (int i = 0; i < BLOCKS; i++) {
        if (!EXPECT(is_filled(blocks[i], i, BLOCK_BYTES))) {
            return;
        }
    }
}

static void blocks_drop(void)
{
    for (int i = 0; i < BLOCKS; i++) {
        free(blocks[(i * 7) % BLOCKS]);
    }
}

struct foreign {
    char *start;
    size_t bytes;
};

/* Somebody else takes memory at the break, of any odd size. */
static struct foreign foreign_take(size_t bytes)
{
    struct foreign foreign = {sbrk((intptr_t)bytes), bytes};
    REQUIRE(foreign.start != (char *)-1);
    memset(foreign.start, PATTERN, bytes);
    return foreign;
}

static void others_take_memory_between_our_calls(void)
{
    static struct foreign foreigners[FOREIGNERS];
    require_sbrk();
    for (int i = 0; i < FOREIGNERS; i++) {
        foreigners[i] = foreign_take((size_t)1 + (size_t)i * 677 % 9000);
        char *block = malloc((size_t)20000 * (size_t)(i % 5 + 1));
        REQUIRE(block != NULL);
        memset(block, 1, (size_t)20000 * (size_t)(i % 5 + 1));
        blocks[i] = block;
    }
    for (int i = 0; i < FOREIGNERS; i++) {
        EXPECT(is_filled(blocks[i], 1, (size_t)20000 * (size_t)(i % 5 + 1)));
        free(blocks[i]);
    }
    (void)malloc_trim(0);
    blocks_take();
    blocks_check();
    blocks_drop();
    for (int i = 0; i < FOREIGNERS; i++) {
        EXPECT(is_filled(foreigners[i].start, PATTERN, foreigners[i].bytes));
        EXPECT(break_now() >= foreigners[i].start + foreigners[i].bytes);
    }
}

/* What others hold above our memory keeps the break where it is, whatever we free. */
static void the_break_never_sinks_below_others(void)
{
    require_sbrk();
    blocks_take();
    struct foreign foreign = foreign_take(12345);
    char *after = break_now();
    blocks_drop();
    (void)malloc_trim(0);
    EXPECT(break_now() == after);
    EXPECT(is_filled(foreign.start, PATTERN, foreign.bytes));
    /* And once they give it back, ours can follow. */
    REQUIRE(sbrk(-12345) != (void *)-1);
    (void)malloc_trim(0);
    EXPECT(break_now() < foreign.start);
    blocks_take();
    blocks_check();
    blocks_drop();
}

/* They took memory, we grew above it, and now they give back "theirs": the break sinks into our
 * free memory. Nothing that we handed out was there, so nobody may notice. */
static void others_give_back_what_is_ours_by_now(void)
{
    require_sbrk();
    for (int round = 0; round < 40; round++) {
        intptr_t bytes = 1 + round * 1361 % 60000;
        blocks_take();
        REQUIRE(sbrk(bytes) != (void *)-1);
        char *above = malloc((size_t)2 * MEBIBYTE);
        REQUIRE(above != NULL);
        memset(above, 1, (size_t)2 * MEBIBYTE);
        free(above);
        /* What a freed block leaves at the break is more than what they cut off. */
        REQUIRE(sbrk(-bytes) != (void *)-1);
        blocks_check();
        char *next = malloc((size_t)3 * MEBIBYTE);
        REQUIRE(next != NULL);
        memset(next, 2, (size_t)3 * MEBIBYTE);
        char *zeroed = calloc(1, 40000);
        REQUIRE(zeroed != NULL);
        EXPECT(is_filled(zeroed, 0, 40000));
        free(zeroed);
        free(next);
        blocks_check();
        blocks_drop();
    }
}

static void the_cut_is_found_by_free_and_trim(void)
{
    require_sbrk();
    for (int round = 0; round < 20; round++) {
        blocks_take();
        char *last = malloc(100);
        char *above = malloc(MEBIBYTE);
        REQUIRE(last != NULL && above != NULL);
        free(above);
        REQUIRE(sbrk(-4096 * (1 + round % 10)) != (void *)-1);
        if (round % 2 == 0) {
            (void)malloc_trim(0);
        }
        blocks_drop();
        free(last);
        blocks_take();
        blocks_check();
        blocks_drop();
    }
}

/* They cut off what we handed out: its content is lost, and saying so is all that is left to do. */
static void others_cut_off_a_block(void)
{
    require_sbrk();
    char *block = malloc((size_t)4 * MEBIBYTE);
    REQUIRE(block != NULL && malloc(100) != NULL);
    REQUIRE(sbrk(-2 * MEBIBYTE) != (void *)-1);
    EXPECT(malloc((size_t)8 * MEBIBYTE) != NULL);
}

/* A mapping right above the break: it can never move again, and memory has to come from elsewhere.
 */
static void a_mapping_stands_in_the_way(void)
{
    require_sbrk();
    size_t page_bytes = (size_t)sysconf(_SC_PAGESIZE);
    uintptr_t above = ((uintptr_t)break_now() + page_bytes - 1) & ~(uintptr_t)(page_bytes - 1);
    char *wall = mmap((void *)above, page_bytes, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
    REQUIRE(wall == (char *)above);
    memset(wall, PATTERN, page_bytes);
    errno = EDOM;
    static char *large[64];
    for (int round = 0; round < 3; round++) {
        blocks_take();
        for (int i = 0; i < 64; i++) {
            large[i] = malloc(MEBIBYTE);
            REQUIRE(large[i] != NULL);
            memset(large[i], i, MEBIBYTE);
        }
        for (int i = 0; i < 64; i++) {
            EXPECT(is_filled(large[i], i, MEBIBYTE));
            free(large[i]);
        }
        blocks_check();
        blocks_drop();
        (void)malloc_trim(0);
    }
    EXPECT_EQUAL(errno, EDOM);
    EXPECT(is_filled(wall, PATTERN, page_bytes));
}

/* Not even the first page of the heap can come from the break. */
static void a_mapping_stands_in_the_way_from_the_start(void)
{
    size_t page_bytes = (size_t)sysconf(_SC_PAGESIZE);
    uintptr_t above = ((uintptr_t)break_now() + page_bytes - 1) & ~(uintptr_t)(page_bytes - 1);
    REQUIRE(mmap((void *)above, page_bytes, PROT_NONE,
                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0) == (void *)above);
    blocks_take();
    blocks_check();
    blocks_drop();
}

/* Memory of others that lies between ours is nobody's block. */
static void free_of_others_memory(void)
{
    require_sbrk();
    struct foreign foreign = foreign_take(65536);
    EXPECT(malloc(MEBIBYTE) != NULL);
    char *inside = (char *)(((uintptr_t)foreign.start + 32768) & ~(uintptr_t)15);
    free(inside);
}

/* The break really comes down, and not only our idea of it. */
static void the_break_comes_down(void)
{
    require_sbrk();
    char *before = break_now();
    blocks_take();
    EXPECT(break_now() >= before + (size_t)(BLOCKS - 20) * BLOCK_BYTES);
    blocks_drop();
    EXPECT(break_now() <= before + MEBIBYTE);
    (void)malloc_trim(0);
    EXPECT(break_now() <= before);
}

CASES_MAIN(CASE(others_take_memory_between_our_calls), CASE(the_break_never_sinks_below_others),
           CASE(others_give_back_what_is_ours_by_now), CASE(the_cut_is_found_by_free_and_trim),
           CASE(others_cut_off_a_block), CASE(a_mapping_stands_in_the_way),
           CASE(a_mapping_stands_in_the_way_from_the_start), CASE(free_of_others_memory),
           CASE(the_break_comes_down))
