/*
 * account.c - what was freed is not accounted to the process any more, wherever a block lies
 * that lives on. A system that does not overcommit refuses others memory for what is, and the
 * process a fork.
 */
#include "cases.h"

#include <fcntl.h>
#include <pthread.h>
#include <sys/wait.h>

enum {
    MEBIBYTE = 1 << 20,
    BLOCKS = 2000,
    BLOCK_BYTES = 50000,
    LITTLE_BLOCKS = 600000,
    LITTLE_BYTES = 100,
    LARGE_BYTES = 20 * MEBIBYTE,
    THREADS = 8,
    KEPT_BYTES = 24 * MEBIBYTE, /* it is not changed for less than 16 */
};

static char *blocks[LITTLE_BLOCKS];

/* Private and writable memory, resident or not. */
static size_t accounted_bytes(void)
{
    char status[4096];
    int file = open("/proc/self/status", O_RDONLY);
    REQUIRE(file >= 0);
    ssize_t length = read(file, status, sizeof status - 1);
    REQUIRE(length > 0);
    close(file);
    status[length] = '\0';
    const char *line = strstr(status, "VmData:");
    REQUIRE(line != NULL);
    return strtoul(line + strlen("VmData:"), NULL, 10) * 1024;
}

static void take(int count, size_t bytes)
{
    for (int i = 0; i < count; i++) {
        blocks[i] = malloc(bytes);
        REQUIRE(blocks[i] != NULL);
        memset(blocks[i], i, bytes);
    }
}

static void drop(int count)
{
    for (int i = 0; i < count; i++) {
        free(blocks[i]);
    }
}

static void expect_dropped_to(size_t before_bytes)
{
    EXPECT(accounted_bytes() <= before_bytes + KEPT_BYTES);
}

static void all_little_blocks_go(void)
{
    free(malloc(1));
    size_t before_bytes = accounted_bytes();
    take(LITTLE_BLOCKS, LITTLE_BYTES);
    EXPECT(accounted_bytes() >= before_bytes + LITTLE_BLOCKS * LITTLE_BYTES);
    drop(LITTLE_BLOCKS);
    expect_dropped_to(before_bytes);
}

static void one_block_stays_at_the_top(void)
{
    free(malloc(1));
    size_t before_bytes = accounted_bytes();
    take(BLOCKS, BLOCK_BYTES);
    EXPECT(accounted_bytes() >= before_bytes + BLOCKS * BLOCK_BYTES);
    drop(BLOCKS - 1);
    expect_dropped_to(before_bytes);
    EXPECT(blocks[BLOCKS - 1][0] == (char)(BLOCKS - 1));
    free(blocks[BLOCKS - 1]);
}

/* Zero where that is asked for, in places of all sizes, and again and again. */
static void what_was_dropped_comes_back(void)
{
    free(malloc(1));
    size_t before_bytes = accounted_bytes();
    for (int round = 0; round < 3; round++) {
        take(BLOCKS, BLOCK_BYTES);
        char *top = malloc(BLOCK_BYTES);
        REQUIRE(top != NULL);
        drop(BLOCKS);
        expect_dropped_to(before_bytes);
        char *large = calloc(1, LARGE_BYTES);
        REQUIRE(large != NULL);
        for (size_t i = 0; i < LARGE_BYTES; i++) {
            REQUIRE(large[i] == 0);
        }
        memset(large, 1, LARGE_BYTES);
        large = realloc(large, 2 * LARGE_BYTES);
        REQUIRE(large != NULL && large[0] == 1 && large[LARGE_BYTES - 1] == 1);
        memset(large + LARGE_BYTES, 2, LARGE_BYTES);
        free(large);
        free(top);
        expect_dropped_to(before_bytes);
    }
}

static pthread_barrier_t barrier;

static void *hold_one_block(void *unused)
{
    free(malloc(LITTLE_BYTES)); /* the thread has a slab, but not yet at the top */
    pthread_barrier_wait(&barrier);
    pthread_barrier_wait(&barrier);
    char *block = malloc(BLOCK_BYTES / 10);
    REQUIRE(block != NULL);
    pthread_barrier_wait(&barrier);
    pthread_barrier_wait(&barrier);
    free(block);
    return unused;
}

static void threads_hold_the_top(void)
{
    pthread_t threads[THREADS];
    pthread_barrier_init(&barrier, NULL, THREADS + 1);
    for (int i = 0; i < THREADS; i++) {
        REQUIRE(pthread_create(&threads[i], NULL, hold_one_block, NULL) == 0);
    }
    pthread_barrier_wait(&barrier);
    size_t before_bytes = accounted_bytes();
    take(LITTLE_BLOCKS, LITTLE_BYTES);
    pthread_barrier_wait(&barrier);
    pthread_barrier_wait(&barrier);
    drop(LITTLE_BLOCKS);
    expect_dropped_to(before_bytes);
    pthread_barrier_wait(&barrier);
    for (int i = 0; i < THREADS; i++) {
        REQUIRE(pthread_join(threads[i], NULL) == 0);
    }
}

static void a_child_has_it_back(void)
{
    take(BLOCKS, BLOCK_BYTES);
    drop(BLOCKS - 1);
    size_t before_bytes = accounted_bytes();
    pid_t child = fork();
    REQUIRE(child >= 0);
    if (child == 0) {
        take(BLOCKS - 1, BLOCK_BYTES);
        drop(BLOCKS - 1);
        expect_dropped_to(before_bytes);
        _exit(case_failure_count != 0);
    }
    int status = 0;
    REQUIRE(waitpid(child, &status, 0) == child);
    EXPECT_EQUAL(status, 0);
}

CASES_MAIN(CASE(all_little_blocks_go), CASE(one_block_stays_at_the_top),
           CASE(what_was_dropped_comes_back), CASE(threads_hold_the_top), CASE(a_child_has_it_back))
