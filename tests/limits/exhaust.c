/*
 * exhaust.c - memory runs out: NULL and ENOMEM, every block as it was, and everything to be had
 * again once it was freed.
 *
 * The limit comes from outside: of address space, of data, of the library's own option, or of the
 * array. At least LEAST_MEBIBYTES of the environment must be had below it.
 */
#include "cases.h"

#include <errno.h>
#include <malloc.h>
#include <pthread.h>

enum { MEBIBYTE = 1 << 20, LITTLE = 100 };

/* A list through the blocks themselves: it needs no memory of its own. */
struct held {
    struct held *next;
    size_t number;
};

static struct held *held;
static size_t held_count;

static size_t least_bytes(void)
{
    const char *mebibytes = getenv("LEAST_MEBIBYTES");
    REQUIRE(mebibytes != NULL);
    return strtoul(mebibytes, NULL, 10) * MEBIBYTE;
}

/* Takes blocks until there are no more. */
static void take_all(size_t bytes)
{
    errno = 0;
    for (struct held *block = malloc(bytes); block != NULL; block = malloc(bytes)) {
        *block = (struct held){held, held_count++};
        held = block;
        /* The far end is written too: it has to be there. */
        memset((char *)block + bytes - 1, (int)block->number, 1);
    }
    EXPECT_EQUAL(errno, ENOMEM);
    errno = 0;
    EXPECT(calloc(1, bytes) == NULL && errno == ENOMEM);
    void *untouched = &held;
    EXPECT(posix_memalign(&untouched, 64, bytes) == ENOMEM && untouched == &held);
}

static void check_all(size_t bytes)
{
    size_t count = 0;
    for (const struct held *block = held; block != NULL; block = block->next) {
        if (!EXPECT(((const char *)block)[bytes - 1] == (char)block->number)) {
            return;
        }
        count++;
    }
    EXPECT_EQUAL(count, held_count);
}

/* Frees all blocks but every `kept`-th; 0: all. Freeing succeeds and leaves errno alone even now.
 */
static void drop(size_t kept)
{
    struct held **link = &held;
    size_t index = 0;
    errno = EDOM;
    while (*link != NULL) {
        struct held *block = *link;
        if (kept != 0 && index++ % kept == 0) {
            link = &block->next;
        } else {
            *link = block->next;
            held_count--;
            free(block);
        }
    }
    EXPECT_EQUAL(errno, EDOM);
}

static void run_out_and_recover(size_t bytes)
{
    take_all(bytes);
    size_t first_count = held_count;
    EXPECT(first_count * bytes >= least_bytes() / 10 * 8);
    check_all(bytes);

    /* Every second block: what is free now cannot merge, and must do for as many again. */
    drop(2);
    size_t kept_count = held_count;
    take_all(bytes);
    EXPECT(held_count - kept_count >= (first_count - kept_count) / 100 * 95);
    check_all(bytes);

    drop(0);
    take_all(bytes);
    EXPECT(held_count >= first_count / 100 * 95);
    drop(0);
}

/* A limit of address space may have cut it into several ranges, so the whole of it need not be to
 * be had. */
static void expect_large_block(void)
{
    char *large = malloc(least_bytes() / 10 * 4);
    EXPECT(large != NULL);
    free(large);
}

static void mebibyte_blocks_run_out(void)
{
    run_out_and_recover(MEBIBYTE);
    expect_large_block();
}

static void hundred_byte_blocks_run_out(void)
{
    run_out_and_recover(LITTLE);
    expect_large_block();
}

/* From small to large and back, without anything in between. */
static void sizes_follow_each_other(void)
{
    for (size_t bytes = LITTLE; bytes <= 16 * MEBIBYTE; bytes *= 12) {
        take_all(bytes);
        EXPECT(held_count > 0);
        drop(0);
    }
    take_all(LITTLE);
    EXPECT(held_count * LITTLE >= least_bytes() / 10 * 7);
    drop(0);
}

static void a_block_grows_until_it_cannot(void)
{
    size_t bytes = MEBIBYTE;
    unsigned char *block = malloc(bytes);
    REQUIRE(block != NULL);
    memset(block, 0x5a, bytes);
    for (;;) {
        errno = 0;
        unsigned char *grown = realloc(block, bytes + bytes / 4);
        if (grown == NULL) {
            break;
        }
        block = grown;
        memset(block + bytes, 0x5a, bytes / 4);
        bytes += bytes / 4;
    }
    EXPECT_EQUAL(errno, ENOMEM);
    EXPECT(bytes >= least_bytes() / 3);
    size_t i = 0;
    while (i < bytes && block[i] == 0x5a) {
        i++;
    }
    EXPECT_EQUAL(i, bytes);
    block = realloc(block, 100);
    EXPECT(block != NULL && block[99] == 0x5a);
    free(block);
    mebibyte_blocks_run_out();
}

static void *thread_run(void *unused)
{
    (void)unused;
    free(malloc(100));
    return NULL;
}

/* No thread can be had then, or one that has no memory: neither may crash. Once all is freed its
 * stack, which is no memory of ours, must find room again. */
static void threads_start_when_nothing_is_left(void)
{
    pthread_t thread;
    take_all(MEBIBYTE);
    take_all(LITTLE);
    for (int i = 0; i < 10; i++) {
        if (pthread_create(&thread, NULL, thread_run, NULL) == 0) {
            pthread_join(thread, NULL);
        }
    }
    drop(0);
    REQUIRE(pthread_create(&thread, NULL, thread_run, NULL) == 0);
    pthread_join(thread, NULL);
}

/* The library's functions that allocate must fail as they promise, and stdio go on without a
 * buffer. */
static void the_c_library_copes(void)
{
    take_all(MEBIBYTE);
    take_all(1000);
    take_all(16);
    errno = 0;
    EXPECT(strdup("a word") == NULL && errno == ENOMEM);
    EXPECT(fopen("/dev/null", "r") == NULL);
    EXPECT(puts("# still here") >= 0 && fflush(stdout) == 0);
    drop(0);
    char *copy = strdup("a word");
    EXPECT(copy != NULL);
    free(copy);
}

/* Only with the option: it bounds all that the heap takes, to the byte. */
static void the_limit_is_the_limit(void)
{
    size_t limit_bytes = least_bytes() / 9 * 10;
    take_all(LITTLE);
    EXPECT(mallinfo2().arena <= limit_bytes);
    EXPECT(mallinfo2().arena > limit_bytes / 100 * 98);
    drop(0);
    take_all(MEBIBYTE);
    EXPECT(mallinfo2().arena <= limit_bytes);
    drop(0);
    EXPECT(malloc(limit_bytes + 1) == NULL);
}

CASES_MAIN(CASE(mebibyte_blocks_run_out), CASE(hundred_byte_blocks_run_out),
           CASE(sizes_follow_each_other), CASE(a_block_grows_until_it_cannot),
           CASE(threads_start_when_nothing_is_left), CASE(the_c_library_copes),
           CASE(the_limit_is_the_limit))
