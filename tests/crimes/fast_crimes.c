/*
 * fast_crimes.c - one way after the other to break the fast engine's heap, at each level of
 * hardening. Each must end in the right words, or at once.
 *
 * fast_crimes lists the crimes of the level, some of them with a size; fast_crimes CRIME
 * [SIZE] commits one.
 */
#include "fast_crimes.h"
#include "hmm.h"

#include <pthread.h>
#include <sys/mman.h>

void free_sized(void *ptr, size_t bytes);
void free_aligned_sized(void *ptr, size_t alignment, size_t bytes);

/* --------------------------------------------------------------------------------- freed blocks */

/* What is known of a block that is free. */
static const char *freed_at(const void *ptr)
{
    return with_place("", ptr);
}

static void accuse_double_free(const void *ptr)
{
    accuse("free", ptr, "double free", freed_at(ptr));
}

static void free_twice(void)
{
    char *p = block_make();
    accuse_double_free(p);
    free(p);
    free(p);
}

static void free_twice_among_others(void)
{
    char *p = block_make();
    char *others[3] = {block_make(), block_make(), block_make()};
    accuse_double_free(p);
    free(p);
    free(others[0]);
    free(others[1]);
    free(others[2]);
    free(p);
}

static void free_twice_with_many_frees_between(void)
{
    enum { OTHERS = 200 };
    static char *others[OTHERS];
    char *p = block_make();
    int count = is_large() ? 20 : OTHERS;
    for (int i = 0; i < count; i++) {
        others[i] = block_make();
    }
    accuse_double_free(p);
    free(p);
    for (int i = 0; i < count; i++) {
        free(others[i]);
    }
    free(p);
}

static void *free_in_a_thread(void *ptr)
{
    free(ptr);
    return NULL;
}

static void free_elsewhere(void *ptr)
{
    pthread_t thread;
    REQUIRE(pthread_create(&thread, NULL, free_in_a_thread, ptr) == 0);
    pthread_join(thread, NULL);
}

static void free_twice_first_by_another_thread(void)
{
    char *p = block_make();
    accuse_double_free(p);
    free_elsewhere(p);
    free(p);
}

/* The thread is there before, lest it be made of the memory that was freed. */
static pthread_barrier_t barrier;

static void *announce_and_free(void *ptr)
{
    pthread_barrier_wait(&barrier);
    accuse_double_free(ptr);
    free(ptr);
    return NULL;
}

static void free_twice_then_by_another_thread(void)
{
    pthread_t thread;
    char *p = block_make();
    pthread_barrier_init(&barrier, NULL, 2);
    REQUIRE(pthread_create(&thread, NULL, announce_and_free, p) == 0);
    free(p);
    pthread_barrier_wait(&barrier);
    pthread_join(thread, NULL);
}

static void *free_twice_there(void *ptr)
{
    accuse_double_free(ptr);
    free(ptr);
    free(ptr);
    return NULL;
}

static void free_twice_by_another_thread(void)
{
    pthread_t thread;
    char *p = block_make();
    REQUIRE(pthread_create(&thread, NULL, free_twice_there, p) == 0);
    pthread_join(thread, NULL);
}

static void free_after_realloc_moved(void)
{
    char *p = block_make();
    char *moved = realloc(p, 4 * size_bytes);
    REQUIRE(moved != NULL && moved != p);
    accuse_double_free(p);
    free(p);
}

static void free_after_realloc_to_nothing(void)
{
    char *p = block_make();
    accuse_double_free(p);
    REQUIRE(realloc(p, 0) == NULL);
    free(p);
}

static void realloc_of_a_freed_block(void)
{
    char *p = block_make();
    accuse("realloc", p, "freed block", freed_at(p));
    free(p);
    p = realloc(p, size_bytes + 100);
}

static void malloc_usable_size_of_a_freed_block(void)
{
    char *p = block_make();
    accuse("malloc_usable_size", p, "freed block", freed_at(p));
    free(p);
    (void)malloc_usable_size(p);
}

/* ------------------------------------------------------------------------------ pointers inside */

static const char *inside_at(const char *p)
{
    if (is_slot()) {
        return slot_at(p);
    }
    return is_fenced() || is_large() ? run_at(p) : some_block_at(p);
}

static void free_inside(size_t offset)
{
    char *p = block_make();
    accuse("free", p + offset, "invalid pointer, inside a block", inside_at(p));
    free(p + offset);
}

static void free_1_inside(void)
{
    free_inside(1);
}

static void free_8_inside(void)
{
    free_inside(8);
}

static void free_16_inside(void)
{
    free_inside(16);
}

static void free_a_page_inside(void)
{
    free_inside(PAGE);
}

static void realloc_16_inside(void)
{
    char *p = block_make() + 16;
    accuse("realloc", p, "invalid pointer, inside a block", inside_at(p - 16));
    p = realloc(p, 2 * size_bytes);
}

/* No object is as large, but the pointer is looked at first. */
static void realloc_16_inside_to_too_much(void)
{
    volatile size_t too_much = SIZE_MAX - PAGE;
    char *p = block_make() + 16;
    accuse("realloc", p, "invalid pointer, inside a block", inside_at(p - 16));
    p = realloc(p, too_much);
}

static void malloc_usable_size_16_inside(void)
{
    char *p = block_make() + 16;
    accuse("malloc_usable_size", p, "invalid pointer, inside a block", inside_at(p - 16));
    (void)malloc_usable_size(p);
}

/* Beyond its first granule a large block has no descriptor. */
static void free_far_inside(void)
{
    char *p = block_make() + GRANULE;
    accuse("free", p, "invalid pointer, in no block", "");
    free(p);
}

/* ------------------------------------------------------------------------- pointers of nobody's */

static void accuse_foreign(const char *call, const void *ptr)
{
    accuse(call, ptr, "not a heap pointer", "");
}

static void free_foreign(void *ptr)
{
    REQUIRE(malloc(1) != NULL);
    accuse_foreign("free", ptr);
    free(ptr);
}

static char static_memory[64];
static _Thread_local char thread_memory[64];

static void free_of_the_stack(void)
{
    char local[64];
    free_foreign(local + 16 - (uintptr_t)local % 16);
}

static void free_of_static_memory(void)
{
    free_foreign(static_memory);
}

static void free_of_thread_memory(void)
{
    free_foreign(thread_memory);
}

static void free_of_a_string(void)
{
    free_foreign((void *)(uintptr_t) "text");
}

static void free_of_code(void)
{
    free_foreign((void *)(uintptr_t)free_of_code);
}

static void free_of_the_librarys_code(void)
{
    free_foreign((void *)(uintptr_t)HmmFree);
}

static void *mapping(void)
{
    void *got = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    REQUIRE(got != MAP_FAILED);
    return got;
}

static void free_of_a_mapping(void)
{
    free_foreign(mapping());
}

static void free_inside_a_mapping(void)
{
    free_foreign((char *)mapping() + 24);
}

static void free_of_one(void)
{
    free_foreign((void *)1);
}

static void free_of_sixteen(void)
{
    free_foreign((void *)16);
}

static void free_below_the_first_page(void)
{
    free_foreign((void *)(uintptr_t)(PAGE - 16));
}

static void free_of_kernel_space(void)
{
    free_foreign((void *)(UINTPTR_MAX / 2 + 1 + 4096));
}

static void free_of_the_last_address(void)
{
    free_foreign((void *)UINTPTR_MAX);
}

static void free_before_any_allocation(void)
{
    accuse_foreign("free", static_memory);
    free(static_memory);
}

static void realloc_of_the_stack(void)
{
    char local[64];
    REQUIRE(malloc(1) != NULL);
    accuse_foreign("realloc", local);
    (void)!realloc(local, 100);
}

static void malloc_usable_size_of_static_memory(void)
{
    REQUIRE(malloc(1) != NULL);
    accuse_foreign("malloc_usable_size", static_memory);
    (void)malloc_usable_size(static_memory);
}

/* A range that the library has reserved and never used. */
static void free_beyond_what_was_used(void)
{
    char *p = (char *)malloc(10) + ((size_t)256 << 20);
    accuse("free", p, "invalid pointer, in no block", "");
    free(p);
}

static void free_of_a_slot_never_carved(void)
{
    char *p = malloc(40);
    char *q = (char *)((uintptr_t)p & ~(GRANULE - 1UL)) + 48 * 1200;
    accuse("free", q, "invalid pointer, in no block", slot_at(q));
    free(q);
}

/* At level 0 what comes next is the slot behind; nobody else knows. */
static void free_of_a_slot_never_handed_out(void)
{
    char *p = malloc(40);
    char *q = p + malloc_usable_size(p);
    accuse("free", q, "double free", slot_at(q));
    free(q);
}

static void free_of_a_slabs_first_slot(void)
{
    char *p = malloc(40);
    char *q = (char *)((uintptr_t)p & ~(GRANULE - 1UL));
    accuse("free", q, "invalid pointer, in no block", slot_at(q));
    free(q);
}

/* ------------------------------------------------------------------------ blocks of other heaps */

static void accuse_other(const char *call, const void *ptr, const void *heap)
{
    char evidence[100];
    snprintf(evidence, sizeof evidence, "owner heap 0x%lx, ", (unsigned long)heap);
    accuse(call, ptr, "pointer of another heap", evidence);
}

static void *other_block(HmmHeap **heap)
{
    *heap = HmmHeapCreate(0, NULL);
    void *p = *heap != NULL ? HmmHeapAlloc(*heap, size_bytes) : NULL;
    REQUIRE(p != NULL && malloc(1) != NULL);
    return p;
}

static void free_of_another_heaps_block(void)
{
    HmmHeap *heap;
    void *p = other_block(&heap);
    accuse_other("free", p, heap);
    free(p);
}

static void realloc_of_another_heaps_block(void)
{
    HmmHeap *heap;
    void *p = other_block(&heap);
    accuse_other("realloc", p, heap);
    (void)!realloc(p, 2 * size_bytes);
}

static void malloc_usable_size_of_another_heaps_block(void)
{
    HmmHeap *heap;
    void *p = other_block(&heap);
    accuse_other("malloc_usable_size", p, heap);
    (void)malloc_usable_size(p);
}

/* ------------------------------------------------------------------------------ what is claimed */

/* Evidence: two numbers, and the block. */
static const char *instead(const char *ptr, size_t claimed, size_t known)
{
    static char text[100];
    snprintf(text, sizeof text, "%zu instead of %zu, ", claimed, known);
    return with_place(text, ptr);
}

static void free_sized_wrongly(size_t claimed)
{
    char *p = block_make();
    accuse("free_sized", p, "wrong size", instead(p, claimed, size_bytes));
    free_sized(p, claimed);
}

static void free_sized_one_less(void)
{
    free_sized_wrongly(size_bytes - 1);
}

static void free_sized_one_more(void)
{
    free_sized_wrongly(size_bytes + 1);
}

static void free_sized_of_nothing(void)
{
    free_sized_wrongly(0);
}

static char *aligned_make(size_t alignment)
{
    char *p = aligned_alloc(alignment, size_bytes);
    REQUIRE(p != NULL);
    memset(p, 0x5a, size_bytes);
    return p;
}

static void free_aligned_sized_of_another_size(void)
{
    char *p = aligned_make(64);
    accuse("free_aligned_sized", p, "wrong size", instead(p, size_bytes + 64, size_bytes));
    free_aligned_sized(p, 64, size_bytes + 64);
}

static void free_aligned_sized_of_another_alignment(void)
{
    char *p = aligned_make(64);
    accuse("free_aligned_sized", p, "wrong alignment", instead(p, 4096, 64));
    free_aligned_sized(p, 4096, size_bytes);
}

/* Nobody can have asked for that. */
static void free_aligned_sized_of_no_power_of_two(void)
{
    char *p = aligned_make(64);
    accuse("free_aligned_sized", p, "wrong alignment", instead(p, 65, 64));
    free_aligned_sized(p, 65, size_bytes);
}

/* -------------------------------------------------------------------------- writes at the edges */

/* The bytes behind a block, whatever they were. A fenced block ends
 * where the byte behind it cannot be written to at all: size_bytes is not a multiple of 16
 * then, see main. */
static const char *byte_at(const char *ptr, const char *sign, size_t offset)
{
    static char text[60];
    snprintf(text, sizeof text, "byte %s%zu, ", sign, offset);
    if (is_fenced() || is_large()) {
        static char both[160];
        snprintf(both, sizeof both, "%s%s", text, run_at(ptr));
        return both;
    }
    return with_place(text, ptr);
}

/* Room for one byte at least, whichever room it is. */
static char *odd_block_make(void)
{
    size_bytes -= 15;
    return block_make();
}

/* Where the fence begins, or the seal, of which more than 8 bytes leave nothing that says where the
 * block's end was. */
static void overflow(size_t bytes)
{
    char *p = odd_block_make();
    size_t room_bytes =
        is_slot() ? (size_bytes + 8 + 15) / 16 * 16 - 8 : (size_bytes + 15) / 16 * 16;
    if (is_fenced() && size_bytes + bytes > room_bytes) {
        announce_fault();
    } else {
        accuse("free", p, "write past the end",
               byte_at(p, "", bytes <= 8 ? size_bytes : room_bytes));
    }
    damage(p + size_bytes, bytes);
    free(p);
}

static void overflow_by_1(void)
{
    overflow(1);
}

static void overflow_by_8(void)
{
    overflow(8);
}

static void overflow_by_32(void)
{
    overflow(32);
}

static void overflow_then_realloc(void)
{
    char *p = odd_block_make();
    accuse("realloc", p, "write past the end", byte_at(p, "", size_bytes));
    damage(p + size_bytes, 1);
    p = realloc(p, 3 * size_bytes);
}

static void overflow_then_malloc_usable_size(void)
{
    char *p = odd_block_make();
    accuse("malloc_usable_size", p, "write past the end", byte_at(p, "", size_bytes));
    damage(p + size_bytes, 1);
    (void)malloc_usable_size(p);
}

/* A copy is looked at in the secure library, before it is made. */
static void overflow_by_memcpy(void)
{
    char *p = odd_block_make();
    char from[32] = "thirty-two bytes are too many!!";
    char byte[60];
    snprintf(byte, sizeof byte, "byte %zu, ", size_bytes - (size_bytes - 8));
    accuse("memcpy", p + size_bytes - 8, "write past the end", with_place(byte, p));
    memcpy(p + size_bytes - 8, from, sizeof from);
    free(p);
}

static void overflow_by_memmove(void)
{
    char *p = odd_block_make();
    const char *byte = with_place("byte 1, ", p);
    accuse("memmove", p + size_bytes - 1, "write past the end", byte);
    memmove(p + size_bytes - 1, p, 2);
    free(p);
}

static void underflow(size_t bytes, size_t seen)
{
    char *p = block_make();
    if (is_fenced() && (uintptr_t)p % PAGE == 0) {
        announce_fault();
    } else {
        accuse("free", p, "write before the start", byte_at(p, "-", seen));
    }
    damage(p - bytes, bytes);
    free(p);
}

static void underflow_by_8(void)
{
    underflow(8, 8);
}

/* Of a neighbour's seal the first byte that is wrong. */
static void underflow_by_1(void)
{
    underflow(1, 1);
}

/* The block before is all damaged: its seal is nothing that there was. */
static void underflow_by_32(void)
{
    underflow(32, is_fenced() ? 32 : 8);
}

/* --------------------------------------------------------------------------- written after free */

enum { REUSES = 3000, FREED = 64, LEFT_EACH = 7 };

/* Drives what this thread holds back on its way, by blocks of other sizes: short ones and
 * others wait apart. */
static void flush(void)
{
    for (int i = 0; i < REUSES; i++) {
        free(malloc(100));
        free(malloc(1000));
    }
}

/* One of many free blocks of the size, among which others live on. */
static char *freed_make(void)
{
    char *blocks[FREED];
    for (int i = 0; i < FREED; i++) {
        blocks[i] = block_make();
    }
    for (int i = 0; i < FREED; i++) {
        if (i % LEFT_EACH != 0) {
            free(blocks[i]);
        }
    }
    return blocks[FREED / 2];
}

/* What is written to when free is seen when it is handed out. */
static void write_after_free_at(ptrdiff_t offset)
{
    char *p = freed_make();
    char byte[40];
    snprintf(byte, sizeof byte, "byte %td, ", offset);
    accuse("malloc", p, "write after free", with_place(byte, p));
    flush();
    damage(p + offset, 8);
    for (int i = 0; i < REUSES; i++) {
        REQUIRE(malloc(size_bytes) != NULL);
    }
}

static void write_after_free_at_8(void)
{
    write_after_free_at(8);
}

static void write_after_free_at_the_end(void)
{
    write_after_free_at((ptrdiff_t)size_bytes - 8);
}

static void damaged_link(void)
{
    write_after_free_at(0);
}

/* A block that is held back is looked at when it goes. */
static void write_after_free_into_what_is_held_back(void)
{
    char *p = block_make();
    accuse("free", p, "write after free", with_place("byte 0, ", p));
    free(p);
    damage(p, 8);
    flush();
}

static void memcpy_into_a_freed_block(void)
{
    char *p = block_make();
    accuse("memcpy", p, "write into a free block", slot_at(p));
    free(p);
    memcpy(p, "text", 5);
}

/* --------------------------------------------------------------------------------------- faults */

static void write_to_no_bytes(void)
{
    char *p = malloc(0);
    REQUIRE(p != NULL);
    announce_fault();
    damage(p, 1);
}

static void read_of_no_bytes(void)
{
    volatile char *p = malloc(0);
    REQUIRE(p != NULL);
    announce_fault();
    (void)*p;
}

static void write_to_no_bytes_after_realloc(void)
{
    char *p = calloc(0, 8);
    REQUIRE(p != NULL);
    announce_fault();
    damage(p, 1);
}

/* Sizes are multiples of 16. */
static void write_behind_a_fenced_block(void)
{
    char *p = block_make();
    announce_fault();
    damage(p + (size_bytes + 15) / 16 * 16, 1);
}

static void read_behind_a_fenced_block(void)
{
    volatile char *p = block_make();
    announce_fault();
    (void)p[(size_bytes + 15) / 16 * 16];
}

static void write_a_page_before_a_fenced_block(void)
{
    char *p = block_make();
    announce_fault();
    damage(p - PAGE, 1);
}

static void write_after_free_to_a_fenced_block(void)
{
    char *p = block_make();
    announce_fault();
    free(p);
    damage(p + 8, 1);
}

static void read_after_free_of_a_fenced_block(void)
{
    volatile char *p = block_make();
    announce_fault();
    free((void *)(uintptr_t)p);
    (void)p[size_bytes / 2];
}

static void free_twice_of_no_bytes(void)
{
    char *p = malloc(0);
    accuse("free", p, "double free", "");
    free(p);
    free(p);
}

static void free_inside_no_bytes(void)
{
    char *p = malloc(0);
    accuse("free", p + 16, "invalid pointer, inside a block", "");
    free(p + 16);
}

static void free_sized_of_no_bytes(void)
{
    char *p = malloc(0);
    accuse("free_sized", p, "wrong size", "5 instead of 0, ");
    free_sized(p, 5);
}

#define ALL    0, LEVEL_SECURE
#define HARD   1, LEVEL_SECURE
#define SECURE LEVEL_SECURE, LEVEL_SECURE

static const struct fast_crime crimes[] = {
    CRIME(free_twice, SIZES, ALL),
    CRIME(free_twice_among_others, SIZES, ALL),
    CRIME(free_twice_with_many_frees_between, SIZES, ALL),
    CRIME(free_twice_first_by_another_thread, SIZES, ALL),
    CRIME(free_twice_then_by_another_thread, SIZES, ALL),
    CRIME(free_twice_by_another_thread, SIZES, ALL),
    CRIME(free_after_realloc_moved, SLOTS | MEDIUM, ALL),
    CRIME(free_after_realloc_to_nothing, SIZES, ALL),
    CRIME(realloc_of_a_freed_block, SIZES, ALL),
    CRIME(malloc_usable_size_of_a_freed_block, SIZES, ALL),
    CRIME(free_1_inside, SIZES, ALL),
    CRIME(free_8_inside, SIZES, ALL),
    CRIME(free_16_inside, SIZES, ALL),
    CRIME(free_a_page_inside, MEDIUM | LARGE, ALL),
    CRIME(realloc_16_inside, SIZES, ALL),
    CRIME(realloc_16_inside_to_too_much, SIZES, ALL),
    CRIME(malloc_usable_size_16_inside, SIZES, ALL),
    CRIME(free_far_inside, LARGE | FAST_ONLY, ALL),
    CRIME(free_of_the_stack, ANY, ALL),
    CRIME(free_of_static_memory, ANY, ALL),
    CRIME(free_of_thread_memory, ANY, ALL),
    CRIME(free_of_a_string, ANY, ALL),
    CRIME(free_of_code, ANY, ALL),
    CRIME(free_of_the_librarys_code, ANY, ALL),
    CRIME(free_of_a_mapping, ANY, ALL),
    CRIME(free_inside_a_mapping, ANY, ALL),
    CRIME(free_of_one, ANY, ALL),
    CRIME(free_of_sixteen, ANY, ALL),
    CRIME(free_below_the_first_page, ANY, ALL),
    CRIME(free_of_kernel_space, ANY, ALL),
    CRIME(free_of_the_last_address, ANY, ALL),
    CRIME(free_before_any_allocation, ANY, ALL),
    CRIME(realloc_of_the_stack, ANY, ALL),
    CRIME(malloc_usable_size_of_static_memory, ANY, ALL),
    CRIME(free_beyond_what_was_used, FAST_ONLY, ALL),
    CRIME(free_of_a_slot_never_carved, FAST_ONLY, 0, 2),
    CRIME(free_of_a_slot_never_handed_out, ANY, 0, 0),
    CRIME(free_of_a_slabs_first_slot, FAST_ONLY, 1, 2),
    CRIME(free_of_another_heaps_block, SIZES, ALL),
    CRIME(realloc_of_another_heaps_block, SIZES, ALL),
    CRIME(malloc_usable_size_of_another_heaps_block, SIZES, ALL),
    CRIME(free_sized_one_less, SIZES, HARD),
    CRIME(free_sized_one_more, SIZES, HARD),
    CRIME(free_sized_of_nothing, SIZES, HARD),
    CRIME(free_aligned_sized_of_another_size, SIZES, HARD),
    CRIME(free_aligned_sized_of_another_alignment, SIZES, HARD),
    CRIME(free_aligned_sized_of_no_power_of_two, SIZES, HARD),
    CRIME(overflow_by_1, SIZES, HARD),
    CRIME(overflow_by_8, SIZES, HARD),
    CRIME(overflow_by_32, SLOTS | MEDIUM, 1, 2),
    CRIME(overflow_then_realloc, SIZES, HARD),
    CRIME(overflow_then_malloc_usable_size, SIZES, HARD),
    CRIME(overflow_by_memcpy, SLOTS, SECURE),
    CRIME(overflow_by_memmove, SLOTS, SECURE),
    CRIME(memcpy_into_a_freed_block, SLOTS, SECURE),
    CRIME(underflow_by_1, SLOTS | FAST_ONLY, HARD),
    CRIME(underflow_by_8, SLOTS | FAST_ONLY, HARD),
    CRIME(underflow_by_32, SLOTS | FAST_ONLY, HARD),
    CRIME(write_after_free_at_8, SLOTS | FAST_ONLY, 1, 2),
    CRIME(write_after_free_at_8, SLOTS | FAST_ONLY, SECURE),
    CRIME(write_after_free_at_the_end, SLOTS | FAST_ONLY, 1, 2),
    CRIME(write_after_free_at_the_end, SLOTS | FAST_ONLY, SECURE),
    CRIME(damaged_link, SLOTS | FAST_ONLY, 1, 2),
    CRIME(damaged_link, SLOTS | FAST_ONLY, SECURE),
    CRIME(write_after_free_into_what_is_held_back, SLOTS | MEDIUM, 2, 2),
    CRIME(write_after_free_into_what_is_held_back, SLOTS, SECURE),
    CRIME(write_to_no_bytes, FAST_ONLY, 2, LEVEL_SECURE),
    CRIME(read_of_no_bytes, FAST_ONLY, 2, LEVEL_SECURE),
    CRIME(write_to_no_bytes_after_realloc, FAST_ONLY, 2, LEVEL_SECURE),
    CRIME(free_twice_of_no_bytes, FAST_ONLY, 2, LEVEL_SECURE),
    CRIME(free_sized_of_no_bytes, FAST_ONLY, 2, LEVEL_SECURE),
    CRIME(free_inside_no_bytes, FAST_ONLY, 2, LEVEL_SECURE),
    CRIME(write_behind_a_fenced_block, LARGE | FAST_ONLY, 2, 2),
    CRIME(write_behind_a_fenced_block, LARGE | FAST_ONLY, SECURE),
    CRIME(write_behind_a_fenced_block, SIZES | FAST_ONLY, 3, 3),
    CRIME(read_behind_a_fenced_block, LARGE | FAST_ONLY, 2, 2),
    CRIME(read_behind_a_fenced_block, LARGE | FAST_ONLY, SECURE),
    CRIME(read_behind_a_fenced_block, SIZES | FAST_ONLY, 3, 3),
    CRIME(write_a_page_before_a_fenced_block, LARGE | FAST_ONLY, 2, 2),
    CRIME(write_a_page_before_a_fenced_block, SIZES | FAST_ONLY, 3, 3),
    CRIME(write_after_free_to_a_fenced_block, LARGE | FAST_ONLY, 2, 2),
    CRIME(write_after_free_to_a_fenced_block, LARGE | FAST_ONLY, SECURE),
    CRIME(write_after_free_to_a_fenced_block, SIZES | FAST_ONLY, 3, 3),
    CRIME(read_after_free_of_a_fenced_block, LARGE | FAST_ONLY, 2, 2),
    CRIME(read_after_free_of_a_fenced_block, LARGE | FAST_ONLY, SECURE),
    CRIME(read_after_free_of_a_fenced_block, SIZES | FAST_ONLY, 3, 3),
};

int main(int argc, char **argv)
{
    return crimes_main(argc, argv, crimes, sizeof crimes / sizeof crimes[0]);
}
