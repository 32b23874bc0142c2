/*
 * malloc_crimes.c - one way after the other to break the process heap. Each must end in the right
 * words.
 *
 * malloc_crimes lists its crimes, some of them with a size; malloc_crimes CRIME [SIZE] commits one.
 */
#include "announce.h"

#include <alloca.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>

extern char **environ;

static size_t size_bytes; /* from the command line */

/* p and its two neighbours lie side by side, and a last block keeps them away from the break. */
struct row {
    char *before;
    char *p;
    char *after;
};

static bool is_adjacent(char *a, const char *b)
{
    return a + malloc_usable_size(a) + TAG_BYTES == b;
}

static struct row row_make(void)
{
    struct row row;
    row.before = malloc(size_bytes);
    row.p = malloc(size_bytes);
    row.after = malloc(size_bytes);
    char *last = malloc(24);
    REQUIRE(row.before != NULL && row.p != NULL && row.after != NULL && last != NULL);
    REQUIRE(is_adjacent(row.before, row.p) && is_adjacent(row.p, row.after));
    memset(row.p, 0x5a, size_bytes);
    return row;
}

/* ---------------------------------------------------------------------------------- double free */

static void free_twice(void)
{
    struct row row = row_make();
    announce("free", row.p, "double free", block_at(row.p));
    free(row.p);
    free(row.p);
}

static void free_twice_among_others(void)
{
    struct row row = row_make();
    struct row others[3] = {row_make(), row_make(), row_make()};
    announce("free", row.p, "double free", block_at(row.p));
    free(row.p);
    free(others[0].p);
    free(others[1].p);
    free(others[2].p);
    free(row.p);
}

static void free_twice_with_1024_frees_between(void)
{
    enum { OTHERS = 1024 };
    static void *others[2 * OTHERS];
    struct row row = row_make();
    for (int i = 0; i < 2 * OTHERS; i++) {
        others[i] = malloc(200);
        REQUIRE(others[i] != NULL);
    }
    announce("free", row.p, "double free", block_at(row.p));
    free(row.p);
    for (int i = 0; i < OTHERS; i++) {
        free(others[2 * i]);
    }
    free(row.p);
}

static void free_twice_merged_into_the_one_before(void)
{
    struct row row = row_make();
    announce("free", row.p, "double free", block_at(row.p));
    free(row.before);
    free(row.p);
    free(row.p);
}

static void free_twice_swallowed_by_the_one_before(void)
{
    struct row row = row_make();
    announce("free", row.p, "double free", block_at(row.p));
    free(row.p);
    free(row.before);
    free(row.p);
}

static void free_twice_merged_both_ways(void)
{
    struct row row = row_make();
    announce("free", row.p, "double free", block_at(row.p));
    free(row.before);
    free(row.after);
    free(row.p);
    free(row.p);
}

/* The last block merges with all that is free at the break, or goes back to the system. */
static void free_twice_at_the_break(void)
{
    (void)row_make();
    char *p = malloc(size_bytes);
    REQUIRE(p != NULL);
    announce("free", p, "double free", some_block_at(p));
    free(p);
    free(p);
}

/* What was freed at the break has mostly gone back; the block's own tag is still there, but not all
 * that it speaks of. */
static void free_twice_merged_and_trimmed(void)
{
    char *before = malloc(100000);
    char *p = malloc(200000);
    REQUIRE(before != NULL && p != NULL && is_adjacent(before, p));
    announce("free", p, "double free", some_block_at(p));
    free(p);
    free(before);
    free(p);
}

static void free_twice_after_reuse(void)
{
    struct row row = row_make();
    announce("free", row.p, "double free", block_at(row.p));
    free(row.p);
    char *again = malloc(size_bytes);
    REQUIRE(again == row.p);
    free(row.p);
    free(again);
}

/* What was freed lies within a block that somebody else has by now. */
static void free_twice_within_a_new_block(void)
{
    struct row row = row_make();
    size_t block_bytes = malloc_usable_size(row.p) + TAG_BYTES;
    free(row.before);
    free(row.p);
    char *wide = malloc(2 * size_bytes);
    REQUIRE(wide == row.before);
    announce("free", row.p, "double free", block_of_bytes(row.p, block_bytes));
    free(row.p);
}

static void realloc_moved_and_freed(void)
{
    struct row row = row_make();
    announce("free", row.p, "double free", block_at(row.p));
    REQUIRE(realloc(row.p, 2 * size_bytes + 4096) != row.p);
    free(row.p);
}

static void realloc_to_nothing_and_freed(void)
{
    struct row row = row_make();
    announce("free", row.p, "double free", block_at(row.p));
    REQUIRE(realloc(row.p, 0) == NULL);
    free(row.p);
}

static pthread_barrier_t both_ready;

static void *free_together(void *ptr)
{
    pthread_barrier_wait(&both_ready);
    free(ptr);
    return NULL;
}

/* One of the two succeeds, and the other is seen. */
static void free_by_two_threads(void)
{
    struct row row = row_make();
    pthread_t threads[2];
    announce_line("hmm: free(0x%lx): double free: %sheap HEAP, thread TID\n", (unsigned long)row.p,
                  block_at(row.p));
    REQUIRE(pthread_barrier_init(&both_ready, NULL, 2) == 0);
    for (int i = 0; i < 2; i++) {
        REQUIRE(pthread_create(&threads[i], NULL, free_together, row.p) == 0);
    }
    for (int i = 0; i < 2; i++) {
        pthread_join(threads[i], NULL);
    }
}

/* ------------------------------------------------------------------- blocks that are free already
 */

static void realloc_of_a_freed_block(void)
{
    struct row row = row_make();
    announce("realloc", row.p, "freed block", block_at(row.p));
    free(row.p);
    EXPECT(realloc(row.p, size_bytes + 100) == NULL);
}

static void reallocarray_of_a_freed_block(void)
{
    struct row row = row_make();
    announce("realloc", row.p, "freed block", block_at(row.p));
    free(row.p);
    EXPECT(reallocarray(row.p, 2, size_bytes) == NULL);
}

static void malloc_usable_size_of_a_freed_block(void)
{
    struct row row = row_make();
    announce("malloc_usable_size", row.p, "freed block", block_at(row.p));
    free(row.p);
    EXPECT_EQUAL(malloc_usable_size(row.p), 0);
}

/* -------------------------------------------------------------------------- pointers into blocks
 */

static void free_inside(size_t offset)
{
    struct row row = row_make();
    announce("free", row.p + offset, "invalid pointer, inside a block", block_at(row.p));
    free(row.p + offset);
}

static void free_inside_by_1(void)
{
    free_inside(1);
}

static void free_inside_by_8(void)
{
    free_inside(8);
}

static void free_inside_by_16(void)
{
    free_inside(16);
}

static void free_inside_by_4096(void)
{
    free_inside(4096);
}

static void free_inside_zeroes(void)
{
    struct row row = row_make();
    memset(row.p, 0, size_bytes);
    announce("free", row.p + 16, "invalid pointer, inside a block", block_at(row.p));
    free(row.p + 16);
}

/* A good tag in the wrong place. */
static void free_inside_behind_a_copied_tag(void)
{
    struct row row = row_make();
    memcpy(row.p + 8, row.p - TAG_BYTES, TAG_BYTES);
    announce("free", row.p + 16, "invalid pointer, inside a block", block_at(row.p));
    free(row.p + 16);
}

static void free_just_below(void)
{
    struct row row = row_make();
    announce("free", row.p - 1, "invalid pointer, inside a block", block_at(row.before));
    free(row.p - 1);
}

static void free_inside_a_freed_block(void)
{
    struct row row = row_make();
    announce("free", row.p + 16, "invalid pointer, inside a free block", block_at(row.p));
    free(row.p);
    free(row.p + 16);
}

static void realloc_inside(void)
{
    struct row row = row_make();
    announce("realloc", row.p + 16, "invalid pointer, inside a block", block_at(row.p));
    EXPECT(realloc(row.p + 16, size_bytes) == NULL);
}

static void malloc_usable_size_inside(void)
{
    struct row row = row_make();
    announce("malloc_usable_size", row.p + 8, "invalid pointer, inside a block", block_at(row.p));
    EXPECT_EQUAL(malloc_usable_size(row.p + 8), 0);
}

static void free_inside_an_aligned_block(void)
{
    char *p = aligned_alloc(4096, size_bytes);
    REQUIRE(p != NULL && malloc(24) != NULL);
    announce("free", p + 16, "invalid pointer, inside a block", block_at(p));
    free(p + 16);
}

/* --------------------------------------------------------------------------- damage below a block
 */

static void tag_overwritten(const void *value, size_t bytes)
{
    struct row row = row_make();
    announce("free", row.p, "damaged tag", tag_at(row.p));
    memcpy(row.p - TAG_BYTES, value, bytes);
    free(row.p);
}

static void tag_overwritten_by_text(void)
{
    tag_overwritten("AAAAAAAA", 8);
}

static void tag_overwritten_by_zeroes(void)
{
    tag_overwritten("\0\0\0\0\0\0\0", 8);
}

static void tag_overwritten_by_a_neighbours(void)
{
    struct row row = row_make();
    announce("free", row.p, "damaged tag", tag_at(row.p));
    memcpy(row.p - TAG_BYTES, row.after - TAG_BYTES, TAG_BYTES);
    free(row.p);
}

/* Each byte of the tag alone, from the highest on, and then the tail of the block before as well.
 */
static void underflow_by_each_length(void)
{
    size_t bytes = size_bytes;
    size_bytes = 100;
    struct row row = row_make();
    announce("free", row.p, "damaged tag", tag_at(row.p));
    damage(row.p - bytes, bytes);
    free(row.p);
}

static void tag_damaged_then_realloc(void)
{
    struct row row = row_make();
    announce("realloc", row.p, "damaged tag", tag_at(row.p));
    damage(row.p - 3, 1);
    EXPECT(realloc(row.p, size_bytes + 1) == NULL);
}

static void tag_damaged_then_malloc_usable_size(void)
{
    struct row row = row_make();
    announce("malloc_usable_size", row.p, "damaged tag", tag_at(row.p));
    damage(row.p - TAG_BYTES, 1);
    EXPECT_EQUAL(malloc_usable_size(row.p), 0);
}

/* --------------------------------------------------------------------------- damage above a block
 */

static void overflow(size_t bytes)
{
    struct row row = row_make();
    announce("free", row.p, "damaged tag", tag_at(row.after));
    damage(row.p + malloc_usable_size(row.p), bytes);
    free(row.p);
}

static void overflow_by_1(void)
{
    overflow(1);
}

static void overflow_by_each_length(void)
{
    size_t bytes = size_bytes;
    size_bytes = 100;
    overflow(bytes);
}

static void overflow_into_a_freed_block(void)
{
    struct row row = row_make();
    announce("free", row.p, "damaged tag", tag_at(row.after));
    free(row.after);
    damage(row.p + malloc_usable_size(row.p), 16);
    free(row.p);
}

/* What lies at the break is free memory, whose tag is damaged. */
static void overflow_at_the_break(void)
{
    (void)row_make();
    char *p = malloc(size_bytes);
    REQUIRE(p != NULL);
    char *above = p + malloc_usable_size(p) + TAG_BYTES;
    announce("free", p, "damaged tag", tag_at(above));
    damage(above - TAG_BYTES, 3);
    free(p);
}

static void overflow_then_realloc(void)
{
    struct row row = row_make();
    announce("realloc", row.p, "damaged tag", tag_at(row.after));
    damage(row.p + malloc_usable_size(row.p), 2);
    EXPECT(realloc(row.p, size_bytes + 1000) == NULL);
}

/* Freeing the neighbour reads the damaged tag as its own. */
static void overflow_then_free_of_the_neighbour(void)
{
    struct row row = row_make();
    announce("free", row.after, "damaged tag", tag_at(row.after));
    damage(row.p + malloc_usable_size(row.p), 8);
    free(row.after);
}

/* ----------------------------------------------------------------------- writes to a freed block
 */

/* The two links of a freed block are its first words. */
static void links_overwritten(uintptr_t next, uintptr_t prev)
{
    struct row row = row_make();
    const uintptr_t links[] = {next, prev};
    announce("malloc", NULL, "damaged free block", block_at(row.p));
    free(row.p);
    memcpy(row.p, links, sizeof links);
    EXPECT(malloc(size_bytes) != NULL);
}

static void links_overwritten_by_text(void)
{
    links_overwritten((uintptr_t)0x4141414141414141, (uintptr_t)0x4141414141414141);
}

static void links_overwritten_by_small_numbers(void)
{
    links_overwritten(16, 24);
}

static void link_forward_into_kernel_space(void)
{
    links_overwritten(UINTPTR_MAX - 63, 0);
}

static void link_back_into_nowhere(void)
{
    links_overwritten(0, (uintptr_t)0x4141414141414141);
}

/* Readable memory, which an attacker would have prepared. */
static void links_overwritten_by_our_own_block(void)
{
    static uintptr_t prepared[64];
    links_overwritten((uintptr_t)prepared, (uintptr_t)prepared);
}

/* The block before merges with the freed one, and unlinks it. */
static void links_overwritten_then_merged(void)
{
    struct row row = row_make();
    announce("free", row.before, "damaged free block", block_at(row.p));
    free(row.p);
    memset(row.p, 'A', 16);
    free(row.before);
}

static void links_overwritten_then_merged_from_above(void)
{
    struct row row = row_make();
    announce("free", row.after, "damaged free block", block_at(row.p));
    free(row.p);
    memset(row.p, 0, 16);
    memcpy(row.p, "\x10", 1);
    free(row.after);
}

/* A whole freed block written over, as memset of a stale pointer does. The next block's tag is
 * good. */
static void freed_block_filled_then_reused(void)
{
    struct row row = row_make();
    announce("malloc", NULL, "damaged free block", block_at(row.p));
    size_t usable_bytes = malloc_usable_size(row.p);
    free(row.p);
    memset(row.p, 'x', usable_bytes);
    EXPECT(malloc(size_bytes) != NULL);
}

static void freed_block_reused_by(const char *call)
{
    static uintptr_t prepared[64];
    const uintptr_t links[] = {(uintptr_t)prepared, (uintptr_t)prepared};
    struct row row = row_make();
    announce(call, NULL, "damaged free block", block_at(row.p));
    free(row.p);
    memcpy(row.p, links, sizeof links);
}

static void freed_block_damaged_then_calloc(void)
{
    freed_block_reused_by("calloc");
    EXPECT(calloc(1, size_bytes) != NULL);
}

static void freed_block_damaged_then_aligned_alloc(void)
{
    freed_block_reused_by("aligned_alloc");
    EXPECT(aligned_alloc(16, size_bytes) != NULL);
}

/* The last word of a freed block repeats its size, for the block after. */
static void freed_block_end_overwritten_then_neighbour_freed(void)
{
    struct row row = row_make();
    announce("free", row.after, "damaged free block before", block_at(row.after));
    size_t usable_bytes = malloc_usable_size(row.p);
    free(row.p);
    memset(row.p + usable_bytes - TAG_BYTES, 'x', TAG_BYTES);
    free(row.after);
}

static void freed_block_end_overwritten_then_reused(void)
{
    struct row row = row_make();
    announce("malloc", NULL, "damaged free block", block_at(row.p));
    size_t usable_bytes = malloc_usable_size(row.p);
    free(row.p);
    damage(row.p + usable_bytes - TAG_BYTES, 1);
    EXPECT(malloc(size_bytes) != NULL);
}

static void freed_block_tag_damaged_then_reused(void)
{
    struct row row = row_make();
    announce("malloc", NULL, "damaged tag", tag_at(row.p));
    free(row.p);
    damage(row.p - 1, 1);
    EXPECT(malloc(size_bytes) != NULL);
}

/* ---------------------------------------------------------------------------- not from any heap */

static char static_bytes[64];
static _Thread_local char thread_bytes[64];

static void free_foreign(const void *ptr)
{
    EXPECT(malloc(24) != NULL);
    announce("free", ptr, "not a heap pointer", "");
    free((void *)(uintptr_t)ptr);
}

static void free_of_the_stack(void)
{
    char bytes[64] = {0};
    free_foreign(bytes + 16);
}

static void free_of_alloca(void)
{
    free_foreign(memset(alloca(100), 0, 100));
}

static void free_of_static_memory(void)
{
    free_foreign(static_bytes + 16);
}

static void free_of_thread_memory(void)
{
    free_foreign(thread_bytes);
}

static void free_of_a_string(void)
{
    free_foreign("a string that nobody allocated");
}

static void free_of_code(void)
{
    free_foreign((const void *)(uintptr_t)free_of_code);
}

static void free_of_the_librarys_code(void)
{
    free_foreign((const void *)(uintptr_t)malloc);
}

static void free_of_the_environment(void)
{
    free_foreign(environ[0]);
}

static void free_of_one(void)
{
    free_foreign((const void *)1);
}

static void free_of_sixteen(void)
{
    free_foreign((const void *)16);
}

static void free_of_an_unmapped_page(void)
{
    size_t page_bytes = (size_t)sysconf(_SC_PAGESIZE);
    char *page = mmap(NULL, page_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    REQUIRE(page != MAP_FAILED && munmap(page, page_bytes) == 0);
    free_foreign(page + 16);
}

static void free_of_kernel_space(void)
{
    free_foreign((const void *)(UINTPTR_MAX / 2 + 1 + 4096));
}

static void free_of_the_last_address(void)
{
    free_foreign((const void *)UINTPTR_MAX);
}

static void free_of_the_last_aligned_address(void)
{
    free_foreign((const void *)(UINTPTR_MAX - 15));
}

static void free_of_a_foreign_mapping(void)
{
    size_t page_bytes = (size_t)sysconf(_SC_PAGESIZE);
    char *page =
        mmap(NULL, 4 * page_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    REQUIRE(page != MAP_FAILED);
    free_foreign(page + page_bytes);
}

/* Behind the break of the heap; the address may be reserved for it, but nothing is there yet. */
static void free_above_the_break(void)
{
    char *p = malloc(24);
    REQUIRE(p != NULL);
    free_foreign(p + ((size_t)64 << 20));
}

static void realloc_of_the_stack(void)
{
    char bytes[64] = {0};
    EXPECT(malloc(24) != NULL);
    announce("realloc", bytes, "not a heap pointer", "");
    EXPECT(realloc(bytes, 100) == NULL);
}

static void malloc_usable_size_of_the_stack(void)
{
    char bytes[64] = {0};
    EXPECT(malloc(24) != NULL);
    announce("malloc_usable_size", bytes, "not a heap pointer", "");
    EXPECT_EQUAL(malloc_usable_size(bytes), 0);
}

/* There is no heap yet that could not know the pointer. */
static void free_before_any_allocation(void)
{
    announce("free", static_bytes, "not a heap pointer", "");
    free(static_bytes);
}

/* ----------------------------------------------------------------------------- the message itself
 */

/* A handler may ask for memory: no lock is held any more. */
static void abort_handle(int signal)
{
    (void)signal;
    for (size_t bytes = 1; bytes < 100000; bytes = bytes * 2 + 1) {
        char *block = malloc(bytes);
        REQUIRE(block != NULL);
        memset(block, 1, bytes);
        block = realloc(block, 3 * bytes);
        REQUIRE(block != NULL);
        free(block);
    }
    _exit(case_failure_count == 0 ? 77 : EXIT_FAILURE);
}

static void a_handler_of_the_abort_allocates(void)
{
    REQUIRE(signal(SIGABRT, abort_handle) != SIG_ERR);
    size_bytes = 24;
    free_twice();
}

static void *free_twice_thread(void *unused)
{
    (void)unused;
    free_twice();
    return NULL;
}

static void the_thread_is_named(void)
{
    pthread_t thread;
    size_bytes = 24;
    REQUIRE(pthread_create(&thread, NULL, free_twice_thread, NULL) == 0);
    pthread_join(thread, NULL);
}

/* ------------------------------------------------------------------------------------------- main
 */

enum sizes { NO_SIZE, SIZES, LARGER_SIZES, LENGTHS };

struct crime {
    const char *name;
    void (*commit)(void);
    enum sizes sizes;
};

#define CRIME(function, sizes)                                                                     \
    {                                                                                              \
#function, function, sizes                                                                 \
    }

static const struct crime crimes[] = {
    CRIME(free_twice, SIZES),
    CRIME(free_twice_among_others, SIZES),
    CRIME(free_twice_with_1024_frees_between, SIZES),
    CRIME(free_twice_merged_into_the_one_before, SIZES),
    CRIME(free_twice_swallowed_by_the_one_before, SIZES),
    CRIME(free_twice_merged_both_ways, SIZES),
    CRIME(free_twice_at_the_break, SIZES),
    CRIME(free_twice_merged_and_trimmed, NO_SIZE),
    CRIME(free_twice_after_reuse, SIZES),
    CRIME(free_twice_within_a_new_block, SIZES),
    CRIME(realloc_moved_and_freed, SIZES),
    CRIME(realloc_to_nothing_and_freed, SIZES),
    CRIME(free_by_two_threads, SIZES),
    CRIME(realloc_of_a_freed_block, SIZES),
    CRIME(reallocarray_of_a_freed_block, SIZES),
    CRIME(malloc_usable_size_of_a_freed_block, SIZES),
    CRIME(free_inside_by_1, SIZES),
    CRIME(free_inside_by_8, SIZES),
    CRIME(free_inside_by_16, SIZES),
    CRIME(free_inside_by_4096, LARGER_SIZES),
    CRIME(free_inside_zeroes, SIZES),
    CRIME(free_inside_behind_a_copied_tag, SIZES),
    CRIME(free_just_below, SIZES),
    CRIME(free_inside_a_freed_block, SIZES),
    CRIME(realloc_inside, SIZES),
    CRIME(malloc_usable_size_inside, SIZES),
    CRIME(free_inside_an_aligned_block, SIZES),
    CRIME(tag_overwritten_by_text, SIZES),
    CRIME(tag_overwritten_by_zeroes, SIZES),
    CRIME(tag_overwritten_by_a_neighbours, SIZES),
    CRIME(underflow_by_each_length, LENGTHS),
    CRIME(tag_damaged_then_realloc, SIZES),
    CRIME(tag_damaged_then_malloc_usable_size, SIZES),
    CRIME(overflow_by_1, SIZES),
    CRIME(overflow_by_each_length, LENGTHS),
    CRIME(overflow_into_a_freed_block, SIZES),
    CRIME(overflow_at_the_break, SIZES),
    CRIME(overflow_then_realloc, SIZES),
    CRIME(overflow_then_free_of_the_neighbour, SIZES),
    CRIME(links_overwritten_by_text, SIZES),
    CRIME(links_overwritten_by_small_numbers, SIZES),
    CRIME(link_forward_into_kernel_space, SIZES),
    CRIME(link_back_into_nowhere, SIZES),
    CRIME(links_overwritten_by_our_own_block, SIZES),
    CRIME(links_overwritten_then_merged, SIZES),
    CRIME(links_overwritten_then_merged_from_above, SIZES),
    CRIME(freed_block_filled_then_reused, SIZES),
    CRIME(freed_block_damaged_then_calloc, SIZES),
    CRIME(freed_block_damaged_then_aligned_alloc, SIZES),
    CRIME(freed_block_end_overwritten_then_neighbour_freed, SIZES),
    CRIME(freed_block_end_overwritten_then_reused, SIZES),
    CRIME(freed_block_tag_damaged_then_reused, SIZES),
    CRIME(free_of_the_stack, NO_SIZE),
    CRIME(free_of_alloca, NO_SIZE),
    CRIME(free_of_static_memory, NO_SIZE),
    CRIME(free_of_thread_memory, NO_SIZE),
    CRIME(free_of_a_string, NO_SIZE),
    CRIME(free_of_code, NO_SIZE),
    CRIME(free_of_the_librarys_code, NO_SIZE),
    CRIME(free_of_the_environment, NO_SIZE),
    CRIME(free_of_one, NO_SIZE),
    CRIME(free_of_sixteen, NO_SIZE),
    CRIME(free_of_an_unmapped_page, NO_SIZE),
    CRIME(free_of_kernel_space, NO_SIZE),
    CRIME(free_of_the_last_address, NO_SIZE),
    CRIME(free_of_the_last_aligned_address, NO_SIZE),
    CRIME(free_of_a_foreign_mapping, NO_SIZE),
    CRIME(free_above_the_break, NO_SIZE),
    CRIME(realloc_of_the_stack, NO_SIZE),
    CRIME(malloc_usable_size_of_the_stack, NO_SIZE),
    CRIME(free_before_any_allocation, NO_SIZE),
    CRIME(the_thread_is_named, NO_SIZE),
    CRIME(a_handler_of_the_abort_allocates, NO_SIZE),
};

static const size_t sizes[] = {24, 5000, (size_t)2 << 20};

static void crime_list(const struct crime *crime)
{
    enum { LENGTH_MAX = 16 };
    if (crime->sizes == NO_SIZE) {
        puts(crime->name);
    }
    for (size_t length = 1; crime->sizes == LENGTHS && length <= LENGTH_MAX; length++) {
        printf("%s %zu\n", crime->name, length);
    }
    if (crime->sizes == SIZES || crime->sizes == LARGER_SIZES) {
        for (size_t i = crime->sizes == SIZES ? 0 : 1; i < sizeof sizes / sizeof sizes[0]; i++) {
            printf("%s %zu\n", crime->name, sizes[i]);
        }
    }
}

/* Returning means that the crime was not seen. */
int main(int argc, char **argv)
{
    announce_start();
    size_bytes = argc > 2 ? strtoul(argv[2], NULL, 10) : 0;
    for (size_t i = 0; i < sizeof crimes / sizeof crimes[0]; i++) {
        if (argc < 2) {
            crime_list(&crimes[i]);
        } else if (strcmp(argv[1], crimes[i].name) == 0) {
            crimes[i].commit();
            return EXIT_SUCCESS;
        }
    }
    return argc < 2 ? EXIT_SUCCESS : EXIT_FAILURE;
}
