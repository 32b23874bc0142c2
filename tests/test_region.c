/*
 * test_region.c - the three regions: their breaks, and how they refuse.
 */
#include "os.h"
#include "region.h"
#include "unit.h"

#include <stdio.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

static _Alignas(64) unsigned char memory[4096];

static void array_grows_by_what_is_wanted_or_what_there_is(void **state)
{
    (void)state;
    struct region *region = hmm_region_array_init(memory, sizeof memory);
    assert_non_null(region);
    uintptr_t start = region->brk;
    assert_int_equal(region->ops->grow(region, 16, 100), start);
    assert_int_equal(region->brk, start + align_up(100, REGION_ALIGN_BYTES));
    uintptr_t brk = region->brk;
    assert_int_equal(region->ops->grow(region, 16, 1 << 20), brk);
    assert_int_equal(region->brk, region->limit);
    assert_int_equal(region->limit, (uintptr_t)memory + sizeof memory);
    assert_int_equal(region->ops->grow(region, 16, 16), 0);
    region->ops->shrink(region, start);
    assert_int_equal(region->brk, start);
    assert_int_equal(region->ops->recover(region), 0);
}

static void array_refuses_what_is_no_memory(void **state)
{
    (void)state;
    assert_null(hmm_region_array_init(NULL, 4096));
    assert_null(hmm_region_array_init(memory + 1, 1024));
    assert_null(hmm_region_array_init(memory + REGION_ALIGN_BYTES / 2, 1024));
    assert_null(hmm_region_array_init(memory, sizeof(struct region) - 1));
    assert_null(hmm_region_array_init(memory, SIZE_MAX));
    assert_null(hmm_region_array_init((void *)(UINTPTR_MAX - 4095), 8192));
}

static size_t resident_pages(uintptr_t start, size_t bytes)
{
    unsigned char map[1024];
    size_t pages = bytes / hmm_os_page_bytes();
    size_t count = 0;
    assert_true(pages <= sizeof map);
    assert_int_equal(mincore((void *)start, bytes, map), 0);
    for (size_t i = 0; i < pages; i++) {
        count += map[i] & 1;
    }
    return count;
}

static void reserve_gives_memory_and_takes_it_back(void **state)
{
    (void)state;
    const size_t page_bytes = hmm_os_page_bytes();
    const size_t limit_bytes = 256 * page_bytes;
    struct region *region = hmm_region_reserve_create(limit_bytes);
    assert_non_null(region);
    assert_int_equal(region->limit - region->base, limit_bytes);
    uintptr_t start = region->ops->grow(region, 100 * page_bytes, 100 * page_bytes);
    assert_int_equal(region->brk - start, 100 * page_bytes);
    memset((void *)start, 1, 100 * page_bytes);
    assert_int_equal(resident_pages(start, 100 * page_bytes), 100);
    region->ops->shrink(region, start + 10 * page_bytes + 1);
    assert_int_equal(region->brk, start + 11 * page_bytes);
    assert_int_equal(resident_pages(start, 100 * page_bytes), 11);
    assert_int_equal(region->ops->grow(region, page_bytes, page_bytes), start + 11 * page_bytes);
    assert_int_equal(*(unsigned char *)(start + 11 * page_bytes), 0);
    assert_int_equal(region->ops->grow(region, limit_bytes, limit_bytes), 0);
    assert_true(region->ops->grow(region, 1, SIZE_MAX / 2) != 0);
    assert_int_equal(region->brk, region->limit);
    region->ops->release(region);
}

static void reserve_keeps_a_limit_that_is_no_page_boundary(void **state)
{
    (void)state;
    const size_t page_bytes = hmm_os_page_bytes();
    struct region *region = hmm_region_reserve_create(3 * page_bytes + 64);
    assert_non_null(region);
    assert_int_equal(region->limit - region->base, 3 * page_bytes + 64);
    const uintptr_t opened = hmm_region_start(region);
    memset((void *)opened, 1, region->brk - opened);
    const size_t more_bytes = region->base + 3 * page_bytes - region->brk;
    assert_true(region->ops->grow(region, more_bytes, more_bytes) != 0);
    assert_int_equal(region->ops->grow(region, 65, 65), 0);
    uintptr_t start = region->ops->grow(region, 64, 1000);
    assert_int_equal(region->brk, region->limit);
    memset((void *)start, 1, 64);
    region->ops->shrink(region, start);
    assert_int_equal(region->brk, start);
    region->ops->release(region);
    assert_null(hmm_region_reserve_create(0));
    assert_null(hmm_region_reserve_create(SIZE_MAX));
    assert_null(hmm_region_reserve_create((size_t)1 << 62));
}

/* Children, because limits and the program break belong to the whole process. */
static void in_child(void (*body)(void))
{
    fflush(NULL);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        body();
        _exit(0);
    }
    int status = 0;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

/* Assertions of cmocka would run on in the child as if it were the parent. */
static void demand(bool condition, int line)
{
    if (!condition) {
        fprintf(stderr, "# line %d: demand failed\n", line);
        _exit(1);
    }
}
#define DEMAND(condition) demand(condition, __LINE__)

static void body_halving(void)
{
    const struct rlimit limit = {500u << 20, 500u << 20};
    DEMAND(setrlimit(RLIMIT_AS, &limit) == 0);
    DEMAND(hmm_region_reserve_create((size_t)1 << 30) == NULL);
    struct region *region = hmm_region_reserve_largest(1 << 20, (size_t)1 << 38);
    DEMAND(region != NULL);
    size_t bytes = region->limit - region->base;
    DEMAND(bytes >= 64u << 20 && bytes <= 256u << 20);
    void *room_for_others = mmap(NULL, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    DEMAND(room_for_others != MAP_FAILED);
    DEMAND(hmm_region_reserve_largest((size_t)1 << 30, (size_t)1 << 38) == NULL);
}

static void reserve_halves_until_the_system_agrees(void **state)
{
    (void)state;
    skip_where_sanitized();
    in_child(body_halving);
}

static void body_data_limit(void)
{
    struct region *region = hmm_region_reserve_create(64u << 20);
    DEMAND(region != NULL);
    const struct rlimit limit = {8u << 20, 8u << 20};
    DEMAND(setrlimit(RLIMIT_DATA, &limit) == 0);
    errno = 77;
    DEMAND(region->ops->grow(region, 32u << 20, 32u << 20) == 0);
    uintptr_t start = region->ops->grow(region, 1u << 20, 32u << 20);
    DEMAND(start != 0);
    memset((void *)start, 1, 1u << 20);
    region->ops->shrink(region, start);
    DEMAND(region->ops->grow(region, 1u << 20, 1u << 20) == start);
    DEMAND(errno == 77);
}

static void reserve_takes_no_from_the_system(void **state)
{
    (void)state;
    skip_where_sanitized();
    in_child(body_data_limit);
}

static void body_sbrk_up(void)
{
    struct region *region = hmm_region_sbrk();
    uintptr_t first = region->ops->grow(region, 4096, 65536);
    DEMAND(first != 0 && region->brk - first >= 65536 && region->gap_bytes == 0);
    uintptr_t brk = region->brk;
    unsigned char *foreign = sbrk(1000);
    memset(foreign, 7, 1000);
    region->ops->shrink(region, first);
    DEMAND(region->brk == brk);
    uintptr_t start = region->ops->grow(region, 4096, 4096);
    DEMAND(start >= brk + 1000 && is_aligned(start, REGION_ALIGN_BYTES));
    DEMAND(region->gap_bytes == start - brk);
    DEMAND(is_aligned(region->brk, REGION_ALIGN_BYTES) && region->brk - start >= 4096);
    memset((void *)start, 1, region->brk - start);
    DEMAND(foreign[0] == 7 && foreign[999] == 7);
    region->ops->shrink(region, start);
    DEMAND(region->brk >= start && region->brk - start < hmm_os_page_bytes());
    DEMAND((uintptr_t)sbrk(0) == region->brk);
}

static void sbrk_leaves_others_their_memory(void **state)
{
    (void)state;
    in_child(body_sbrk_up);
}

static void body_sbrk_down(void)
{
    const intptr_t cut_bytes = 2 * (intptr_t)hmm_os_page_bytes();
    struct region *region = hmm_region_sbrk();
    (void)sbrk(8192);
    uintptr_t start = region->ops->grow(region, 65536, 65536);
    DEMAND(start != 0 && region->ops->recover(region) == 0);
    uintptr_t brk = region->brk;
    (void)sbrk(-cut_bytes);
    DEMAND(region->ops->recover(region) == brk - (uintptr_t)cut_bytes);
    DEMAND((uintptr_t)sbrk(0) == brk && region->brk == brk);
    memset((void *)start, 1, brk - start);
}

static void sbrk_takes_back_what_others_cut_off(void **state)
{
    (void)state;
    in_child(body_sbrk_down);
}

static void body_sbrk_blocked(void)
{
    struct region *region = hmm_region_sbrk();
    DEMAND(region->ops->grow(region, 4096, 4096) != 0);
    void *wall = mmap((void *)align_up(region->brk, 65536), 65536, PROT_NONE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
    DEMAND(wall != MAP_FAILED);
    uintptr_t brk = region->brk;
    DEMAND(region->ops->grow(region, 1 << 20, 1 << 20) == 0);
    DEMAND(region->brk == brk);
}

static void sbrk_takes_no_from_the_system(void **state)
{
    (void)state;
    in_child(body_sbrk_blocked);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(array_grows_by_what_is_wanted_or_what_there_is),
        cmocka_unit_test(array_refuses_what_is_no_memory),
        cmocka_unit_test(reserve_gives_memory_and_takes_it_back),
        cmocka_unit_test(reserve_keeps_a_limit_that_is_no_page_boundary),
        cmocka_unit_test(reserve_halves_until_the_system_agrees),
        cmocka_unit_test(reserve_takes_no_from_the_system),
        cmocka_unit_test(sbrk_leaves_others_their_memory),
        cmocka_unit_test(sbrk_takes_back_what_others_cut_off),
        cmocka_unit_test(sbrk_takes_no_from_the_system),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
