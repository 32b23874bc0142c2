/*
 * own.c - a program limits its own address space while it runs: the heap keeps to that, what was
 * there before stays as it is, and the rest of the program has room.
 */
#include "footprint.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>

enum {
    MEBIBYTE = 1 << 20,
    LIMIT_BYTES = 600 * MEBIBYTE,
    LEAST_BYTES = 400 * MEBIBYTE, /* of it for the heap */
    OTHERS_BYTES = 100 * MEBIBYTE,
    BLOCKS_MAX = LIMIT_BYTES / 100,
    THREADS = 4,
};

static char *blocks[BLOCKS_MAX];
static int block_count;

static void limit_to(rlim_t bytes)
{
    struct rlimit limit;
    REQUIRE(getrlimit(RLIMIT_AS, &limit) == 0);
    limit.rlim_cur = bytes;
    EXPECT_EQUAL(setrlimit(RLIMIT_AS, &limit), 0);
}

/* Takes such blocks until there are no more, or so many. How many bytes that was. */
static size_t take(size_t bytes, int count_max)
{
    errno = 0;
    block_count = 0;
    while (block_count < count_max && (blocks[block_count] = malloc(bytes)) != NULL) {
        memset(blocks[block_count], block_count, bytes);
        block_count++;
    }
    if (block_count < count_max) {
        EXPECT_EQUAL(errno, ENOMEM);
    }
    return (size_t)block_count * bytes;
}

static void drop(size_t bytes)
{
    for (int i = 0; i < block_count; i++) {
        EXPECT(blocks[i][0] == (char)i && blocks[i][bytes - 1] == (char)i);
        free(blocks[i]);
    }
    block_count = 0;
}

static void expect_limited(size_t bytes)
{
    size_t had_bytes = take(bytes, BLOCKS_MAX);
    EXPECT(had_bytes <= LIMIT_BYTES);
    EXPECT(had_bytes >= LEAST_BYTES);
    drop(bytes);
    EXPECT(take(bytes, BLOCKS_MAX) >= had_bytes / 10 * 9);
    drop(bytes);
}

static void large_blocks_are_limited(void)
{
    free(malloc(1));
    limit_to(LIMIT_BYTES);
    expect_limited(MEBIBYTE);
}

static void little_blocks_are_limited(void)
{
    free(malloc(1));
    limit_to(LIMIT_BYTES);
    expect_limited(1000);
}

static void before_the_first_block(void)
{
    limit_to(LIMIT_BYTES);
    expect_limited(MEBIBYTE);
}

static void blocks_stay_what_they_are(void)
{
    enum { COUNT = 3000, BYTES = 100000 };
    REQUIRE(take(BYTES, COUNT) == (size_t)COUNT * BYTES);
    limit_to(LIMIT_BYTES);
    drop(BYTES);
    expect_limited(BYTES);
}

static void *answer(void *question)
{
    return question;
}

static void others_have_room(void)
{
    pthread_t thread;
    void *got = NULL;
    free(malloc(1));
    limit_to(LIMIT_BYTES);
    void *mapping = mmap(NULL, OTHERS_BYTES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    EXPECT(mapping != MAP_FAILED);
    REQUIRE(pthread_create(&thread, NULL, answer, blocks) == 0);
    REQUIRE(pthread_join(thread, &got) == 0);
    EXPECT(got == blocks);
}

static void a_limit_that_goes_up_again(void)
{
    free(malloc(1));
    limit_to(LIMIT_BYTES / 2);
    EXPECT(take(MEBIBYTE, BLOCKS_MAX) <= LIMIT_BYTES / 2);
    drop(MEBIBYTE);
    limit_to(LIMIT_BYTES);
    expect_limited(MEBIBYTE);
    limit_to(RLIM_INFINITY);
    EXPECT_EQUAL(take(2000000, 1000), 2000000000);
    drop(2000000);
}

static void limits_of_other_kinds(void)
{
    struct rlimit limit, same;
    free(malloc(1));
    REQUIRE(getrlimit(RLIMIT_NOFILE, &limit) == 0);
    EXPECT_EQUAL(setrlimit(RLIMIT_NOFILE, &limit), 0);
    EXPECT_EQUAL(prlimit(getpid(), RLIMIT_NOFILE, NULL, &same), 0);
    EXPECT(same.rlim_cur == limit.rlim_cur && same.rlim_max == limit.rlim_max);
    errno = 0;
    EXPECT_EQUAL(setrlimit((__rlimit_resource_t)1000, &limit), -1);
    EXPECT_EQUAL(errno, EINVAL);
    limit = (struct rlimit){2, 1};
    EXPECT_EQUAL(setrlimit(RLIMIT_AS, &limit), -1);
    EXPECT_EQUAL(take(2000000, 1000), 2000000000); /* nothing was limited */
    drop(2000000);
}

static void other_names_of_the_call(void)
{
    struct rlimit limit;
    free(malloc(1));
    REQUIRE(getrlimit(RLIMIT_AS, &limit) == 0);
    limit.rlim_cur = LIMIT_BYTES;
    EXPECT_EQUAL(prlimit(0, RLIMIT_AS, &limit, NULL), 0);
    expect_limited(MEBIBYTE);
    struct rlimit64 limit64 = {LIMIT_BYTES / 2, limit.rlim_max};
    EXPECT_EQUAL(setrlimit64(RLIMIT_AS, &limit64), 0);
    EXPECT(take(MEBIBYTE, BLOCKS_MAX) <= LIMIT_BYTES); /* what was had may be had again */
    drop(MEBIBYTE);
    struct rlimit64 old64 = {0, 0};
    EXPECT_EQUAL(prlimit64(getpid(), RLIMIT_AS, &limit64, &old64), 0);
    EXPECT(old64.rlim_cur == LIMIT_BYTES / 2);
}

/* The kernel reads the new limit before it writes the old one. */
static void the_old_limit_in_place_of_the_new_one(void)
{
    struct rlimit limit;
    free(malloc(1));
    REQUIRE(getrlimit(RLIMIT_AS, &limit) == 0);
    const rlim_t before = limit.rlim_cur;
    limit.rlim_cur = LIMIT_BYTES;
    EXPECT_EQUAL(prlimit(0, RLIMIT_AS, &limit, &limit), 0);
    EXPECT(limit.rlim_cur == before);
    void *mapping = mmap(NULL, OTHERS_BYTES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    REQUIRE(mapping != MAP_FAILED);
    REQUIRE(munmap(mapping, OTHERS_BYTES) == 0);
    expect_limited(MEBIBYTE);
}

/* It has a limit of its own, but our memory. */
static void a_child_that_borrows_the_heap(void)
{
    int status = -1;
    free(malloc(1));
    size_t before_bytes = mapped_bytes();
    pid_t child = vfork();
    if (child == 0) {
        _exit(setrlimit(RLIMIT_AS, &(struct rlimit){LIMIT_BYTES, LIMIT_BYTES}));
    }
    REQUIRE(child > 0 && waitpid(child, &status, 0) == child);
    EXPECT_EQUAL(status, 0);
    EXPECT(mapped_bytes() >= before_bytes / 10 * 9);
}

static void a_forked_child(void)
{
    int status = -1;
    free(malloc(1));
    pid_t child = fork();
    if (child == 0) {
        limit_to(LIMIT_BYTES);
        expect_limited(MEBIBYTE);
        _exit(case_failure_count != 0);
    }
    REQUIRE(child > 0 && waitpid(child, &status, 0) == child);
    EXPECT_EQUAL(status, 0);
}

static atomic_bool is_over;

static void *come_and_go(void *unused)
{
    char *mine[100] = {NULL};
    for (unsigned step = 0; !atomic_load(&is_over); step++) {
        char **place = &mine[step * 7919 % 100];
        free(*place);
        *place = malloc(1 + step * 31 % 40000);
        if (*place != NULL) {
            **place = 1;
        }
    }
    for (int i = 0; i < 100; i++) {
        free(mine[i]);
    }
    return unused;
}

static void while_threads_run(void)
{
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++) {
        REQUIRE(pthread_create(&threads[i], NULL, come_and_go, NULL) == 0);
    }
    for (rlim_t bytes = (rlim_t)64 << 30; bytes > LIMIT_BYTES; bytes /= 2) {
        limit_to(bytes);
        REQUIRE(usleep(10000) == 0);
    }
    limit_to(LIMIT_BYTES);
    REQUIRE(usleep(100000) == 0);
    EXPECT(take(MEBIBYTE, BLOCKS_MAX) <= LIMIT_BYTES);
    drop(MEBIBYTE);
    atomic_store(&is_over, true);
    for (int i = 0; i < THREADS; i++) {
        REQUIRE(pthread_join(threads[i], NULL) == 0);
    }
}

CASES_MAIN(CASE(large_blocks_are_limited), CASE(little_blocks_are_limited),
           CASE(before_the_first_block), CASE(blocks_stay_what_they_are), CASE(others_have_room),
           CASE(a_limit_that_goes_up_again), CASE(limits_of_other_kinds),
           CASE(other_names_of_the_call), CASE(the_old_limit_in_place_of_the_new_one),
           CASE(a_child_that_borrows_the_heap), CASE(a_forked_child), CASE(while_threads_run))
