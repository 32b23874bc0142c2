/*
 * locked.c - programs that lock their memory: requests that the limit of locked memory forbids fail
 * like any other, and address space that is only reserved is neither locked nor counted.
 *
 * It starts as root and goes on as nobody, whom the limits bind.
 */
#include "../locked.h"
#include "cases.h"

#include <errno.h>
#include <grp.h>
#include <malloc.h>
#include <sys/mman.h>
#include <sys/resource.h>

enum {
    MEBIBYTE = 1 << 20,
    LOCKED_BYTES = 8 * MEBIBYTE, /* what systems allow everybody */
    TRIED_BYTES = 64 * MEBIBYTE,
    BLOCK_BYTES = 65536,
    NOBODY = 65534,
};

static void become_nobody(void)
{
    const struct rlimit limit = {LOCKED_BYTES, LOCKED_BYTES};
    REQUIRE(setrlimit(RLIMIT_MEMLOCK, &limit) == 0);
    REQUIRE(setgroups(0, NULL) == 0 && setresgid(NOBODY, NOBODY, NOBODY) == 0);
    REQUIRE(setresuid(NOBODY, NOBODY, NOBODY) == 0);
}

/* Takes what there is, up to a bound; returns how many bytes that was. */
static size_t take_and_free(void)
{
    static char *blocks[TRIED_BYTES / BLOCK_BYTES];
    int count = 0;
    errno = 0;
    while (count < TRIED_BYTES / BLOCK_BYTES && (blocks[count] = malloc(BLOCK_BYTES)) != NULL) {
        memset(blocks[count], count, BLOCK_BYTES);
        count++;
    }
    if (count < TRIED_BYTES / BLOCK_BYTES) {
        EXPECT_EQUAL(errno, ENOMEM);
    }
    errno = EDOM;
    for (int i = 0; i < count; i++) {
        EXPECT(blocks[i][0] == (char)i && blocks[i][BLOCK_BYTES - 1] == (char)i);
        free(blocks[i]);
    }
    EXPECT_EQUAL(errno, EDOM);
    return (size_t)count * BLOCK_BYTES;
}

static void all_to_come_is_locked_before_the_first_allocation(void)
{
    become_nobody();
    REQUIRE(mlockall(MCL_FUTURE) == 0);
    size_t taken_bytes = take_and_free();
    EXPECT(taken_bytes >= LOCKED_BYTES / 4);
    EXPECT(take_and_free() >= taken_bytes / 100 * 90);
}

static void all_to_come_is_locked_later(void)
{
    free(malloc(100000));
    become_nobody();
    REQUIRE(mlockall(MCL_FUTURE) == 0);
    size_t taken_bytes = take_and_free();
    EXPECT(taken_bytes >= LOCKED_BYTES / 4);
    EXPECT(take_and_free() >= taken_bytes / 100 * 90);
}

/* A program that locks itself whole. What is reserved counts then, so this is for region=sbrk. */
static void everything_is_locked(void)
{
    free(malloc(100000));
    become_nobody();
    EXPECT_EQUAL(mlockall(MCL_CURRENT | MCL_FUTURE), 0);
    size_t taken_bytes = take_and_free();
    EXPECT(taken_bytes >= LOCKED_BYTES / 4);
    EXPECT(take_and_free() >= taken_bytes / 100 * 90);
}

/* Root may lock what it likes; what is reserved must not become resident by that. */
static void root_locks_everything(void)
{
    struct rusage usage;
    free(malloc(100000));
    REQUIRE(mlockall(MCL_CURRENT | MCL_FUTURE) == 0);
    EXPECT_EQUAL(take_and_free(), TRIED_BYTES);
    REQUIRE(getrusage(RUSAGE_SELF, &usage) == 0);
    EXPECT(usage.ru_maxrss * 1024L < 4L * TRIED_BYTES);
}

static size_t resident_bytes(void)
{
    char line[256];
    size_t kibibytes = 0;
    FILE *status = fopen("/proc/self/status", "r");
    REQUIRE(status != NULL);
    while (fgets(line, sizeof line, status) != NULL &&
           sscanf(line, "VmRSS: %zu", &kibibytes) != 1) {
    }
    (void)fclose(status);
    return kibibytes * 1024;
}

/* What is locked goes back when it is freed, as what is not does, where the system takes it. */
static void what_was_freed_is_not_locked(void)
{
    case_skip_where(!locked_pages_go(), "this kernel takes no locked pages back");
    free(malloc(100000));
    REQUIRE(mlockall(MCL_CURRENT | MCL_FUTURE) == 0);
    size_t before_bytes = resident_bytes();
    for (int round = 0; round < 3; round++) {
        EXPECT_EQUAL(take_and_free(), TRIED_BYTES);
        EXPECT(resident_bytes() < before_bytes + TRIED_BYTES / 2);
    }
}

CASES_MAIN(CASE(all_to_come_is_locked_before_the_first_allocation),
           CASE(all_to_come_is_locked_later), CASE(everything_is_locked),
           CASE(root_locks_everything), CASE(what_was_freed_is_not_locked))
