/*
 * test_leaks.c - which blocks a search for leaks calls lost, and how it says so.
 *
 * The blocks are real, but the walk over them is the test's own: its list holds them complemented,
 * so that the list itself points to none.
 */
#include "alloc.h"
#include "leaks.h"
#include "sites.h"
#include "unit.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

enum { LISTED_MAX = 16, REPORT_BYTES_MAX = 64 * 1024 };

static struct {
    uintptr_t complement;
    size_t bytes;
    uint32_t site;
} listed[LISTED_MAX];
static size_t listed_count;

static void list_walk(leaks_visitor visit, void *context)
{
    for (size_t i = 0; i < listed_count; i++) {
        void *ptr = (void *)~listed[i].complement;
        if (!visit(ptr, listed[i].bytes, listed[i].site, context)) {
            return;
        }
    }
}

/* What earlier calls left on the stack would be roots. */
static __attribute__((noinline)) void stack_clear(void)
{
    volatile char bytes[16 * 1024];
    for (size_t i = 0; i < sizeof bytes; i++) {
        bytes[i] = 0;
    }
}

/* Its address complemented: the compiler keeps nothing else. */
static __attribute__((noinline)) uintptr_t block_create(size_t bytes, uint32_t site)
{
    void **block = HmmCalloc(1, bytes);
    assert_non_null(block);
    listed[listed_count].complement = ~(uintptr_t)block;
    listed[listed_count].bytes = bytes;
    listed[listed_count].site = site;
    return listed[listed_count++].complement;
}

static __attribute__((noinline)) uintptr_t listed_block(size_t bytes, uint32_t site)
{
    uintptr_t complement = block_create(bytes, site);
    stack_clear();
    return complement;
}

static __attribute__((noinline)) void point(uintptr_t from_complement, size_t index,
                                            uintptr_t to_complement)
{
    ((uintptr_t *)~from_complement)[index] = ~to_complement;
}

static const char *report(enum leaks_detail detail)
{
    static char text[REPORT_BYTES_MAX];
    FILE *file = tmpfile();
    assert_non_null(file);
    assert_true(hmm_leaks_report(list_walk, fileno(file), detail));
    rewind(file);
    size_t length = fread(text, 1, sizeof text - 1, file);
    text[length] = '\0';
    fclose(file);
    return text;
}

static int forget(void **state)
{
    (void)state;
    for (size_t i = 0; i < listed_count; i++) {
        HmmFree((void *)~listed[i].complement);
    }
    listed_count = 0;
    return 0;
}

static void *volatile root;

static void no_blocks_no_leaks(void **state)
{
    (void)state;
    assert_string_equal(report(LEAKS_LOST), "SUMMARY: HMM: 0 byte(s) leaked in 0 allocation(s).\n");
}

static void what_nobody_points_to_is_lost(void **state)
{
    (void)state;
    (void)listed_block(100, 0);
    const char *text = report(LEAKS_LOST);
    assert_non_null(strstr(text, "==ERROR: HMM: detected memory leaks\n"));
    assert_non_null(strstr(text, "Direct leak of 100 byte(s) in 1 object(s) allocated from:\n"));
    assert_non_null(strstr(text, "SUMMARY: HMM: 100 byte(s) leaked in 1 allocation(s).\n"));
}

static void what_a_variable_points_into_is_not(void **state)
{
    (void)state;
    uintptr_t block = listed_block(100, 0);
    for (size_t offset = 0; offset < 100; offset += 33) {
        root = (char *)~block + offset;
        assert_non_null(strstr(report(LEAKS_LOST), " 0 byte(s) leaked"));
    }
    root = (char *)~block + 100;
    assert_non_null(strstr(report(LEAKS_LOST), " 100 byte(s) leaked"));
    root = NULL;
}

static void what_is_reachable_through_others_is_not(void **state)
{
    (void)state;
    uintptr_t head = listed_block(64, 0);
    uintptr_t middle = listed_block(20 * 1000, 0);
    uintptr_t large = listed_block(3 << 20, 0);
    point(head, 2, middle);
    point(middle, 2000, large);
    root = (void *)~head;
    assert_non_null(strstr(report(LEAKS_LOST), " 0 byte(s) leaked"));
    const char *text = report(LEAKS_AND_REACHABLE);
    assert_non_null(strstr(text, "Still reachable of "));
    assert_null(strstr(text, "detected memory leaks"));
    root = NULL;
}

static void a_lost_list_is_lost_by_its_head(void **state)
{
    (void)state;
    uintptr_t head = listed_block(64, 0);
    uintptr_t second = listed_block(48, 0);
    uintptr_t third = listed_block(32, 0);
    point(head, 0, second);
    point(second, 0, third);
    point(third, 0, third); /* itself: that does not count */
    const char *text = report(LEAKS_LOST);
    assert_non_null(strstr(text, "Direct leak of 64 byte(s) in 1 object(s)"));
    assert_non_null(strstr(text, "Indirect leak of 80 byte(s) in 2 object(s)"));
    assert_non_null(strstr(text, "SUMMARY: HMM: 144 byte(s) leaked in 3 allocation(s).\n"));
    assert_true(strstr(text, "Direct leak") < strstr(text, "Indirect leak"));
}

static __attribute__((noinline)) uint32_t other_site(void)
{
    return hmm_sites_capture();
}

static void blocks_are_told_by_where_they_come_from(void **state)
{
    (void)state;
    hmm_sites_prepare();
    uint32_t sites[2] = {hmm_sites_capture(), other_site()};
    assert_int_not_equal(sites[0], sites[1]);
    for (int i = 0; i < 3; i++) {
        (void)listed_block(24, sites[0]);
    }
    (void)listed_block(1000, sites[1]);
    const char *text = report(LEAKS_LOST);
    const char *larger = strstr(text, "Direct leak of 1000 byte(s) in 1 object(s)");
    const char *smaller = strstr(text, "Direct leak of 72 byte(s) in 3 object(s)");
    assert_true(larger != NULL && smaller != NULL && larger < smaller);
    assert_non_null(strstr(smaller, "    #0 0x"));
    assert_non_null(strstr(smaller, "test_leaks+0x"));
}

/* The only pointer to a block lies where nobody writes any more, or where others may write, too. */
static void what_a_page_points_to_is_not(int sharing, int protection)
{
    size_t page_bytes = (size_t)sysconf(_SC_PAGESIZE);
    uintptr_t *page =
        mmap(NULL, page_bytes, PROT_READ | PROT_WRITE, sharing | MAP_ANONYMOUS, -1, 0);
    assert_true(page != MAP_FAILED);
    *page = ~listed_block(64, 0);
    assert_int_equal(mprotect(page, page_bytes, protection), 0);
    stack_clear();
    assert_non_null(strstr(report(LEAKS_LOST), " 0 byte(s) leaked"));
    munmap(page, page_bytes);
}

static void what_other_mappings_point_to_is_not(void **state)
{
    (void)state;
    what_a_page_points_to_is_not(MAP_PRIVATE, PROT_READ);
    forget(NULL);
    what_a_page_points_to_is_not(MAP_SHARED, PROT_READ | PROT_WRITE);
}

/* Data that the program has made read-only. */
static union {
    void *pointer;
    char page[64 * 1024];
} sealed __attribute__((aligned(64 * 1024))) = {.page = "data of the file"};

static void what_sealed_data_points_to_is_not(void **state)
{
    (void)state;
    sealed.pointer = (void *)~listed_block(64, 0);
    assert_int_equal(mprotect(&sealed, sizeof sealed, PROT_READ), 0);
    stack_clear();
    assert_non_null(strstr(report(LEAKS_LOST), " 0 byte(s) leaked"));
    assert_int_equal(mprotect(&sealed, sizeof sealed, PROT_READ | PROT_WRITE), 0);
    sealed.pointer = NULL;
}

/* A stack among the program's own variables. */
static struct {
    void *before;
    char stack[256 * 1024];
} surrounded;
static ucontext_t outside;
static bool is_lost_inside;

static void report_inside(void)
{
    is_lost_inside = strstr(report(LEAKS_LOST), " 0 byte(s) leaked") == NULL;
}

static void what_lies_below_a_stack_of_the_programs_is_a_root(void **state)
{
    (void)state;
    static ucontext_t inside;
    surrounded.before = (void *)~listed_block(64, 0);
    assert_int_equal(getcontext(&inside), 0);
    inside.uc_stack = (stack_t){.ss_sp = surrounded.stack, .ss_size = sizeof surrounded.stack};
    inside.uc_link = &outside;
    makecontext(&inside, report_inside, 0);
    assert_int_equal(swapcontext(&outside, &inside), 0);
    assert_false(is_lost_inside);
    surrounded.before = NULL;
}

/* More blocks than anybody wants to see, in an order that is neither up nor down. */
static void walk_many(leaks_visitor visit, void *context)
{
    enum { MANY = 20000, STRIDE = 7919 };
    const uintptr_t start = (uintptr_t)1 << 20;
    for (size_t i = 0; i < MANY; i++) {
        size_t place = i * STRIDE % MANY;
        (void)visit((void *)(start + place * 64), 16 + place % 3, 0, context);
    }
}

static void many_blocks_are_all_counted(void **state)
{
    (void)state;
    FILE *file = tmpfile();
    assert_non_null(file);
    assert_true(hmm_leaks_report(walk_many, fileno(file), LEAKS_AND_REACHABLE));
    fseek(file, 0, SEEK_SET);
    char line[256];
    size_t count = 0;
    size_t here;
    while (fgets(line, sizeof line, file) != NULL) {
        const char *found = strstr(line, " byte(s) in ");
        if (found != NULL && sscanf(found, " byte(s) in %zu", &here) == 1) {
            count += here;
        }
    }
    fclose(file);
    assert_int_equal(count, 20000);
}

int main(void)
{
    if (UNIT_IS_SANITIZED) {
        puts("1..0 # SKIP terabytes of shadow would be looked through");
        return 0;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(no_blocks_no_leaks, forget),
        cmocka_unit_test_teardown(what_nobody_points_to_is_lost, forget),
        cmocka_unit_test_teardown(what_a_variable_points_into_is_not, forget),
        cmocka_unit_test_teardown(what_is_reachable_through_others_is_not, forget),
        cmocka_unit_test_teardown(a_lost_list_is_lost_by_its_head, forget),
        cmocka_unit_test_teardown(blocks_are_told_by_where_they_come_from, forget),
        cmocka_unit_test_teardown(what_other_mappings_point_to_is_not, forget),
        cmocka_unit_test_teardown(what_sealed_data_points_to_is_not, forget),
        cmocka_unit_test_teardown(what_lies_below_a_stack_of_the_programs_is_a_root, forget),
        cmocka_unit_test(many_blocks_are_all_counted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
