/*
 * workload.c - blocks of all sizes, and a peak that is dropped, where the system grants little: few
 * system calls, little address space, all memory locked.
 */
#include "cases.h"
#include "content.h"
#include "footprint.h"

#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

enum { MEBIBYTE = 1 << 20, BLOCKS = 400, STEPS = 30000 };

static struct {
    unsigned char *ptr;
    size_t bytes;
} blocks[BLOCKS];

static void block_step(size_t place, uint64_t *random)
{
    unsigned char *ptr = blocks[place].ptr;
    size_t old_bytes = blocks[place].bytes;
    size_t bytes = random_bytes(random) + 1;
    EXPECT(ptr == NULL || content_is(ptr, old_bytes, (uint32_t)place));
    switch (random_below(random, 4)) {
    case 0:
        ptr = realloc(ptr, bytes);
        EXPECT(content_is_kept(ptr, old_bytes, (uint32_t)place, bytes));
        break;
    case 1:
        free(ptr);
        ptr = calloc(1, bytes);
        EXPECT(ptr != NULL && content_is_zero(ptr, bytes));
        break;
    default:
        free(ptr);
        ptr = malloc(bytes);
        break;
    }
    REQUIRE(ptr != NULL);
    blocks[place].ptr = ptr;
    blocks[place].bytes = bytes;
    content_write(ptr, bytes, (uint32_t)place);
}

static void blocks_of_all_sizes(void)
{
    uint64_t random = 88172645463325252u;
    for (int step = 0; step < STEPS; step++) {
        block_step(random_below(&random, BLOCKS), &random);
    }
    for (size_t i = 0; i < BLOCKS; i++) {
        EXPECT(blocks[i].ptr == NULL || content_is(blocks[i].ptr, blocks[i].bytes, (uint32_t)i));
        free(blocks[i].ptr);
        blocks[i].ptr = NULL;
        blocks[i].bytes = 0;
    }
}

/* 200 MiB of each kind of block. */
static void peaks_that_are_dropped(void)
{
    static const size_t peak_bytes[] = {100, 5000, 50000, 2 * MEBIBYTE};
    static void *peak[200 * MEBIBYTE / 100];
    for (int kind = 0; kind < 4; kind++) {
        size_t count = (size_t)200 * MEBIBYTE / peak_bytes[kind];
        for (size_t i = 0; i < count; i++) {
            peak[i] = malloc(peak_bytes[kind]);
            REQUIRE(peak[i] != NULL);
            memset(peak[i], 1, peak_bytes[kind] < 8192 ? peak_bytes[kind] : 8192);
        }
        for (size_t i = 0; i < count; i++) {
            free(peak[i]);
        }
    }
}

static void the_workload(void)
{
    blocks_of_all_sizes();
    peaks_that_are_dropped();
    blocks_of_all_sizes();
}

/* ----------------------------------------------------------------------------- few system calls */

/* From now on only these succeed; all others fail with ENOSYS. */
static void allow_only(const int *calls, size_t count)
{
    struct sock_filter filter[64];
    size_t length = 0;
    filter[length++] =
        (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
    for (size_t i = 0; i < count; i++) {
        filter[length++] =
            (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)calls[i], 0, 1);
        filter[length++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    }
    filter[length++] =
        (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (ENOSYS & 0xffff));
    const struct sock_fprog program = {(unsigned short)length, filter};
    REQUIRE(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
    REQUIRE(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0);
}

static void a_filter_of_system_calls(void)
{
    static const int calls[] = {SYS_mmap, SYS_munmap, SYS_mprotect, SYS_madvise,   SYS_mremap,
                                SYS_brk,  SYS_futex,  SYS_write,    SYS_exit_group};
    free(malloc(1));
    allow_only(calls, sizeof calls / sizeof calls[0]);
    the_workload();
}

/* Nothing moves, nothing goes back, and everything works. */
static void a_stricter_filter(void)
{
    static const int calls[] = {SYS_mprotect, SYS_futex, SYS_write, SYS_exit_group};
    free(malloc(1));
    allow_only(calls, sizeof calls / sizeof calls[0]);
    errno = EDOM;
    the_workload();
    EXPECT_EQUAL(errno, EDOM);
}

/* -------------------------------------------------------------------------------- locked memory */

static void all_memory_is_locked(void)
{
    free(malloc(1));
    REQUIRE(mlockall(MCL_CURRENT | MCL_FUTURE) == 0);
    the_workload();
}

static void all_memory_is_locked_at_once(void)
{
    REQUIRE(mlockall(MCL_CURRENT | MCL_FUTURE) == 0);
    the_workload();
}

/* ------------------------------------------------------------------------------------- mappings */

/* A gibibyte of which only what the heap itself writes is touched; large ones grow and move. */
static void a_large_heap_has_few_mappings(void)
{
    enum { HELD = 200000 };
    static void *held[HELD];
    uint64_t random = 4101842887655102017u;
    size_t before = mapping_count();
    size_t sum_bytes = 0;
    size_t count = 0;
    while (sum_bytes < (size_t)1 << 30 && count < HELD) {
        size_t bytes = random_bytes(&random);
        held[count] = malloc(bytes);
        REQUIRE(held[count] != NULL);
        sum_bytes += bytes;
        if (bytes > MEBIBYTE && count % 2 == 0) {
            held[count] = realloc(held[count], bytes + bytes / 2);
            REQUIRE(held[count] != NULL);
        }
        count++;
    }
    EXPECT(sum_bytes >= (size_t)1 << 30);
    EXPECT(mapping_count() < before + 300);
    for (size_t i = 0; i < count; i += 2) {
        free(held[i]);
        held[i] = NULL;
    }
    EXPECT(mapping_count() < before + 300);
    for (size_t i = 0; i < count; i++) {
        free(held[i]);
    }
    EXPECT(mapping_count() < before + 300);
}

/* Every block of the thread that waits is replaced by another thread, in any order. A quarter of a
 * slab has to come back before it is anybody's, so resident memory may grow by that; if nothing
 * could be used again, it would double. */
enum { REPLACED_BYTES = 100, REPLACED = 32 * MEBIBYTE / REPLACED_BYTES };
static void *replaced[REPLACED];

static void *replace_all(void *argument)
{
    uint64_t random = 4101842887655102017u;
    (void)argument;
    for (size_t i = 0; i < 2 * REPLACED; i++) {
        size_t place = random_below(&random, REPLACED);
        free(replaced[place]);
        replaced[place] = malloc(REPLACED_BYTES);
        REQUIRE(replaced[place] != NULL);
        memset(replaced[place], 1, REPLACED_BYTES);
    }
    return NULL;
}

static void an_idle_thread_keeps_little(void)
{
    pthread_t thread;
    for (size_t i = 0; i < REPLACED; i++) {
        replaced[i] = malloc(REPLACED_BYTES);
        REQUIRE(replaced[i] != NULL);
        memset(replaced[i], 1, REPLACED_BYTES);
    }
    size_t before_bytes = resident_bytes();
    REQUIRE(pthread_create(&thread, NULL, replace_all, NULL) == 0 &&
            pthread_join(thread, NULL) == 0);
    EXPECT(resident_bytes() < before_bytes + before_bytes / 2);
    for (size_t i = 0; i < REPLACED; i++) {
        free(replaced[i]);
    }
}

CASES_MAIN(CASE(the_workload), CASE(a_filter_of_system_calls), CASE(a_stricter_filter),
           CASE(all_memory_is_locked), CASE(all_memory_is_locked_at_once),
           CASE(a_large_heap_has_few_mappings), CASE(an_idle_thread_keeps_little))
