/*
 * leftovers.c - what is left to a program that does no crime that anybody could see: stale bytes,
 * blocks that come back at once. And what is no crime at any level. LEVEL as for fast_crimes.h; at
 * level 0 only the latter holds.
 */
#include "cases.h"

#include <errno.h>
#include <malloc.h>
#include <pthread.h>
#include <stdint.h>
#include <sys/wait.h>

enum { SMALL = 40, LARGER = 4096, MEDIUM = 20000, LARGE = 300000, STALE = 0x5a, PAGE = 4096 };

static const size_t sizes[] = {SMALL, LARGER, MEDIUM, LARGE};
enum { SIZE_COUNT = sizeof sizes / sizeof sizes[0] };

static int level(void)
{
    const char *name = getenv("LEVEL");
    REQUIRE(name != NULL);
    return strcmp(name, "secure") == 0 ? 2 : name[0] - '0';
}

static void *block(size_t bytes)
{
    void *ptr = malloc(bytes);
    REQUIRE(ptr != NULL);
    return ptr;
}

static size_t count_stale(const volatile unsigned char *ptr, size_t bytes)
{
    size_t count = 0;
    for (size_t i = 0; i < bytes; i++) {
        count += ptr[i] == STALE;
    }
    return count;
}

/* Eight of them in a row would be what somebody wrote. */
static void nothing_is_left_in_freed_blocks(void)
{
    for (int i = 0; level() >= 1 && i < (level() == 3 ? 0 : 3); i++) {
        unsigned char *ptr = memset(block(sizes[i]), STALE, sizes[i]);
        free(ptr);
        EXPECT(count_stale(ptr, sizes[i]) < 8);
    }
}

static void nothing_is_left_in_new_blocks(void)
{
    enum { COUNT = 100 };
    static unsigned char *blocks[COUNT];
    for (int i = 0; level() >= 1 && i < SIZE_COUNT; i++) {
        for (int round = 0; round < 3; round++) {
            for (int j = 0; j < COUNT; j++) {
                blocks[j] = block(sizes[i]);
                EXPECT(count_stale(blocks[j], sizes[i]) < 8);
                memset(blocks[j], STALE, sizes[i]);
            }
            for (int j = 0; j < COUNT; j++) {
                free(blocks[j]);
            }
        }
    }
}

static void nothing_is_left_by_realloc(void)
{
    for (int i = 0; level() >= 1 && i < SIZE_COUNT; i++) {
        for (int shrunk = 0; shrunk < i; shrunk++) {
            unsigned char *ptr = memset(block(sizes[i]), STALE, sizes[i]);
            ptr = realloc(ptr, sizes[shrunk]);
            REQUIRE(ptr != NULL && count_stale(ptr, sizes[shrunk]) == sizes[shrunk]);
            ptr = realloc(ptr, sizes[i]);
            REQUIRE(ptr != NULL);
            EXPECT(count_stale(ptr, sizes[i]) - sizes[shrunk] < 8);
            free(ptr);
        }
    }
}

static void blocks_do_not_come_back_at_once(void)
{
    const char *name = getenv("LEVEL");
    /* The secure library holds back slots, and fenced blocks. */
    for (int i = 0; level() >= 2 && i < SIZE_COUNT; i++) {
        if (sizes[i] == MEDIUM && strcmp(name, "secure") == 0) {
            continue;
        }
        uintptr_t old = (uintptr_t)block(sizes[i]);
        free((void *)old);
        for (int j = 0; j < 3; j++) {
            EXPECT((uintptr_t)block(sizes[i]) != old);
        }
    }
}

static void usable_is_what_was_asked_for(void)
{
    for (size_t bytes = 0; bytes < 20000; bytes = bytes < 300 ? bytes + 1 : bytes * 9 / 8) {
        void *ptr = block(bytes);
        size_t usable_bytes = malloc_usable_size(ptr);
        EXPECT(level() >= 1 ? usable_bytes == bytes : usable_bytes >= bytes);
        memset(ptr, STALE, usable_bytes);
        free(ptr);
    }
}

static void every_alignment(void)
{
    for (size_t alignment = 8; alignment <= (size_t)4 << 20; alignment *= 2) {
        static const size_t bytes[] = {0, 1, 16, 24, 100, 4096, 8184, 8192, 20000, 262144, 300000};
        for (size_t i = 0; i < sizeof bytes / sizeof bytes[0]; i++) {
            void *ptr = NULL;
            EXPECT_EQUAL(posix_memalign(&ptr, alignment, bytes[i]), 0);
            REQUIRE(ptr != NULL && (uintptr_t)ptr % alignment == 0);
            memset(ptr, STALE, bytes[i]);
            ptr = realloc(ptr, bytes[i] + 10);
            REQUIRE(ptr != NULL && count_stale(ptr, bytes[i]) == bytes[i]);
            free(ptr);
        }
    }
}

/* Up and down through all rooms, by steps that never are the same. */
static void realloc_through_all_rooms(void)
{
    unsigned char *ptr = NULL;
    size_t old_bytes = 0;
    for (int i = 0; i < 400; i++) {
        size_t bytes = 1 + (size_t)(i % 40) * (size_t)(i % 40) * 307 % 700000;
        ptr = realloc(ptr, bytes);
        REQUIRE(ptr != NULL);
        size_t kept_bytes = old_bytes < bytes ? old_bytes : bytes;
        EXPECT(count_stale(ptr, kept_bytes) == kept_bytes);
        memset(ptr, STALE, bytes);
        old_bytes = bytes;
    }
    free(ptr);
}

static void calloc_is_zero(void)
{
    for (int round = 0; round < 4; round++) {
        for (size_t bytes = 1; bytes < 1000000; bytes = bytes * 5 / 4 + 1) {
            unsigned char *ptr = calloc(1, bytes);
            REQUIRE(ptr != NULL);
            EXPECT(ptr[0] == 0 && memcmp(ptr, ptr + 1, bytes - 1) == 0);
            memset(ptr, STALE, bytes);
            free(ptr);
        }
    }
}

static void success_leaves_errno_alone(void)
{
    for (int i = 0; i < SIZE_COUNT; i++) {
        errno = 77;
        void *ptr = realloc(block(sizes[i]), 2 * sizes[i]);
        free(ptr);
        free(malloc(0));
        EXPECT_EQUAL(errno, 77);
    }
}

static void *free_there(void *ptr)
{
    free(ptr);
    return block(SMALL);
}

/* Each thread frees what another has made, and leaves something behind. */
static void threads_free_what_others_made(void)
{
    for (int i = 0; i < 200; i++) {
        pthread_t thread;
        void *left = NULL;
        REQUIRE(pthread_create(&thread, NULL, free_there, block(sizes[i % SIZE_COUNT])) == 0);
        pthread_join(thread, &left);
        free(left);
    }
}

static void a_child_frees_what_its_parent_made(void)
{
    void *blocks[SIZE_COUNT];
    int status = -1;
    for (int i = 0; i < SIZE_COUNT; i++) {
        blocks[i] = block(sizes[i]);
        free(block(sizes[i]));
    }
    pid_t child = fork();
    for (int i = 0; i < SIZE_COUNT; i++) {
        free(blocks[i]);
        free(block(sizes[i]));
    }
    if (child == 0) {
        _exit(EXIT_SUCCESS);
    }
    EXPECT(waitpid(child, &status, 0) == child && status == 0);
}

/* All that are short, and some that are not: from one end of their slots to the other. */
static void short_blocks_of_all_sizes_come_and_go(void)
{
    enum { COUNT = 40, BYTES_MAX = 300 };
    unsigned char *blocks[COUNT];
    for (size_t bytes = 1; bytes <= BYTES_MAX; bytes++) {
        for (int round = 0; round < 3; round++) {
            for (int i = 0; i < COUNT; i++) {
                blocks[i] = block(bytes);
                EXPECT(level() == 0 || count_stale(blocks[i], bytes) == 0);
                memset(blocks[i], STALE, bytes);
            }
            for (int i = 0; i < COUNT; i++) {
                EXPECT(count_stale(blocks[i], bytes) == bytes);
                free(blocks[i]);
            }
        }
    }
}

/* The program ends where a byte behind its block has changed, or before it, in the slot before. */
static void each_byte_around_a_short_block_is_looked_at(void)
{
    enum { BYTES_MAX = 160, SEAL_BYTES = 8 };
    for (size_t bytes = 1; level() >= 1 && bytes <= BYTES_MAX; bytes++) {
        ptrdiff_t offsets[] = {(ptrdiff_t)bytes, (ptrdiff_t)(bytes + SEAL_BYTES - 1),
                               -1 - (ptrdiff_t)(bytes % SEAL_BYTES)};
        volatile unsigned char *ptr = block(bytes);
        for (size_t i = 0; i < sizeof offsets / sizeof offsets[0]; i++) {
            int status = 0;
            pid_t child = fork();
            if (child == 0) {
                close(STDERR_FILENO);
                ptr[offsets[i]] ^= STALE;
                free((void *)ptr);
                _exit(EXIT_SUCCESS);
            }
            EXPECT(waitpid(child, &status, 0) == child && WIFSIGNALED(status));
        }
        free((void *)ptr);
    }
}

static void too_much_is_refused(void)
{
    errno = 0;
    EXPECT(malloc(PTRDIFF_MAX) == NULL && errno == ENOMEM);
    void *ptr = block(100);
    errno = 0;
    EXPECT(realloc(ptr, SIZE_MAX - 8) == NULL && errno == ENOMEM);
    errno = 0;
    EXPECT(calloc(SIZE_MAX / 2, 3) == NULL && errno == ENOMEM);
    free(ptr);
}

CASES_MAIN(CASE(nothing_is_left_in_freed_blocks), CASE(nothing_is_left_in_new_blocks),
           CASE(nothing_is_left_by_realloc), CASE(blocks_do_not_come_back_at_once),
           CASE(usable_is_what_was_asked_for), CASE(every_alignment),
           CASE(realloc_through_all_rooms), CASE(calloc_is_zero), CASE(success_leaves_errno_alone),
           CASE(threads_free_what_others_made), CASE(a_child_frees_what_its_parent_made),
           CASE(short_blocks_of_all_sizes_come_and_go),
           CASE(each_byte_around_a_short_block_is_looked_at), CASE(too_much_is_refused))
