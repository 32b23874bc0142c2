/*
 * test_heap_guard.c - hardened block heaps: what is zero, what waits, what is counted, and that
 * a crime leaves everything as it was. The words for crimes are in crimes.t, and random
 * operations in model.c.
 */
#include "handle_guarded.h"
#include "unit.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

enum { ARRAY_BYTES = 256 * 1024, PIECE_BYTES = 64 * 1024, SMALL_BYTES = 4096 };

static _Alignas(64) unsigned char array[ARRAY_BYTES];
static _Alignas(64) unsigned char piece[PIECE_BYTES];

/* In memory that is anything but 0. */
static HmmHeap *heap_make(HmmHardening level, size_t memory_bytes)
{
    memset(array, 0xee, sizeof array);
    HmmHeap *heap = HmmHeapInit(array, memory_bytes, &(HmmHeapOptions){.hardening = level});
    assert_non_null(heap);
    return heap;
}

static void *block_make(HmmHeap *heap, size_t bytes)
{
    unsigned char *ptr = HmmHeapAlloc(heap, bytes);
    assert_non_null(ptr);
    return memset(ptr, 0x5a, bytes);
}

static bool is_zero(const unsigned char *ptr, size_t bytes)
{
    size_t count = 0;
    for (size_t i = 0; i < bytes; i++) {
        count += ptr[i] != 0;
    }
    return count == 0;
}

static bool is_held(const HmmHeap *heap, const void *ptr)
{
    const struct heap_guard *guard = handle_guard(heap);
    size_t place = 0;
    while (place < guard->place_count && guard->places[place] != ptr) {
        place++;
    }
    return place < guard->place_count;
}

/* ------------------------------------------------------------------------------ crimes survived */

static jmp_buf after_crime;
static char crime_line[300];

static void crime_handler(const char *message, const void *ptr, void *context)
{
    (void)ptr;
    (void)context;
    strncpy(crime_line, message, sizeof crime_line - 1);
    longjmp(after_crime, 1);
}

/* What happens in between may end in after_crime, and its line is seen by the handler alone. */
struct watch {
    HmmFatalHandler before;
    int errors; /* where they went */
};

static struct watch watch_begin(void)
{
    struct watch watch = {HmmSetFatalHandler(crime_handler, NULL), dup(STDERR_FILENO)};
    int nowhere = open("/dev/null", O_WRONLY);
    dup2(nowhere, STDERR_FILENO);
    close(nowhere);
    return watch;
}

static void watch_end(struct watch watch)
{
    dup2(watch.errors, STDERR_FILENO);
    close(watch.errors);
    HmmSetFatalHandler(watch.before, NULL);
}

enum call { CALL_ALLOC, CALL_FREE, CALL_REALLOC, CALL_USABLE, CALL_STATS };

/* Whether the call ended in a crime of these words. */
static bool is_crime(HmmHeap *heap, enum call call, void *ptr, size_t bytes, const char *what)
{
    HmmHeapStats stats;
    volatile bool is_seen = true;
    volatile bool is_done = true;
    struct watch watch = watch_begin();
    if (setjmp(after_crime) == 0) {
        switch (call) {
        case CALL_ALLOC:
            is_done = HmmHeapAlloc(heap, bytes) != NULL;
            break;
        case CALL_FREE:
            HmmHeapFree(heap, ptr);
            break;
        case CALL_REALLOC:
            is_done = HmmHeapRealloc(heap, ptr, bytes) != NULL;
            break;
        case CALL_USABLE:
            is_done = HmmHeapUsableSize(heap, ptr) == bytes;
            break;
        case CALL_STATS:
            HmmHeapGetStats(heap, &stats);
            break;
        }
        is_seen = false;
    }
    watch_end(watch);
    assert_true(is_done);
    return is_seen && strstr(crime_line, what) != NULL;
}

struct misplaced {
    HmmHeap *heap; /* not its own, nor the walked one */
    void *ptr;
};

static bool visit_and_free(void *ptr, size_t usable_bytes, bool is_used, void *context)
{
    (void)ptr;
    (void)usable_bytes;
    (void)is_used;
    const struct misplaced *misplaced = context;
    HmmHeapFree(misplaced->heap, misplaced->ptr);
    return true;
}

/* The walked heap's lock is held while all heaps are asked for the pointer. */
static void a_visitor_frees_a_block_of_another_heap(void **state)
{
    (void)state;
    HmmHeap *heap = HmmHeapCreate(0, NULL);
    HmmHeap *owner = HmmHeapCreate(0, NULL);
    struct misplaced misplaced = {HmmHeapCreate(0, &(HmmHeapOptions){.unlocked = true}),
                                  HmmHeapAlloc(owner, 100)};
    assert_non_null(HmmHeapAlloc(heap, 100));
    struct watch watch = watch_begin();
    crime_line[0] = '\0';
    if (setjmp(after_crime) == 0) {
        HmmHeapWalk(heap, visit_and_free, &misplaced);
    }
    watch_end(watch);
    assert_non_null(strstr(crime_line, "pointer of another heap"));
    HmmHeapDestroy(misplaced.heap);
    HmmHeapDestroy(owner);
}

static void a_crime_leaves_everything_as_it_was(void **state)
{
    (void)state;
    for (int level = HMM_HARDENING_SEALS; level <= HMM_HARDENING_QUARANTINE; level++) {
        HmmHeap *heap = heap_make((HmmHardening)level, ARRAY_BYTES);
        unsigned char *first = block_make(heap, 100);
        unsigned char *second = block_make(heap, 100);
        unsigned char *third = block_make(heap, 100);
        HmmHeapFree(heap, first);
        assert_true(is_crime(heap, CALL_FREE, first, 0, "double free"));
        assert_true(is_crime(heap, CALL_REALLOC, first, 50, "freed block"));
        assert_true(is_crime(heap, CALL_USABLE, first, 0, "freed block"));
        assert_true(HmmHeapCheck(heap));
        second[100] = 1;
        assert_false(HmmHeapCheck(heap));
        assert_true(is_crime(heap, CALL_FREE, second, 0, "write past the end: byte 100"));
        assert_true(is_crime(heap, CALL_REALLOC, second, 300, "write past the end: byte 100"));
        second[100] = 0;
        assert_true(HmmHeapCheck(heap));
        assert_int_equal(HmmHeapUsableSize(heap, second), 100);
        HmmHeapFree(heap, second);
        HmmHeapFree(heap, third);
        HmmHeapStats stats;
        HmmHeapGetStats(heap, &stats);
        assert_int_equal(stats.live_count, 0);
        assert_int_equal(stats.free_count, 1);
        assert_true(HmmHeapCheck(heap));
    }
}

static void a_write_after_free_leaves_everything_as_it_was(void **state)
{
    (void)state;
    HmmHeap *heap = heap_make(HMM_HARDENING_SEALS, ARRAY_BYTES);
    unsigned char *ptr = block_make(heap, 1000);
    (void)block_make(heap, 1000);
    HmmHeapFree(heap, ptr);
    ptr[500] = 1;
    assert_true(is_crime(heap, CALL_ALLOC, NULL, 900, "write after free: byte 500"));
    ptr[500] = 0;
    assert_true(HmmHeapCheck(heap));
    assert_ptr_equal(HmmHeapAlloc(heap, 900), ptr);

    heap = heap_make(HMM_HARDENING_QUARANTINE, ARRAY_BYTES);
    ptr = block_make(heap, 1000);
    HmmHeapFree(heap, ptr);
    ptr[999] = 1;
    assert_true(is_crime(heap, CALL_STATS, NULL, 0, "write after free: byte 999"));
    assert_true(is_crime(heap, CALL_FREE, ptr, 0, "double free"));
    ptr[999] = 0;
    assert_true(HmmHeapCheck(heap));
    assert_false(is_crime(heap, CALL_STATS, NULL, 0, ""));
}

/* What waits at the far end of a heap that has dropped would keep all of it; elsewhere blocks
 * wait as ever. */
static void what_waits_holds_up_no_break(void **state)
{
    (void)state;
    enum { BLOCKS = 1000, LIVE = 100, BLOCK_BYTES = 20000 };
    enum { ORDER_UP, ORDER_DOWN, ORDER_NONE, ORDERS };
    for (int order = 0; order < ORDERS; order++) {
        const HmmHeapOptions options = {.hardening = HMM_HARDENING_QUARANTINE};
        HmmHeap *heap = HmmHeapCreate(0, &options);
        assert_non_null(heap);
        void *blocks[BLOCKS];
        for (int i = 0; i < BLOCKS; i++) {
            blocks[i] = block_make(heap, BLOCK_BYTES);
        }
        HmmHeapFree(heap, blocks[LIVE - 1]);
        assert_int_equal(handle_guard(heap)->held_count, 1);
        blocks[LIVE - 1] = NULL;
        for (int i = 0; i < BLOCKS - LIVE; i++) {
            int place = order == ORDER_UP     ? i
                        : order == ORDER_DOWN ? BLOCKS - LIVE - 1 - i
                                              : i * 7 % (BLOCKS - LIVE);
            HmmHeapFree(heap, blocks[LIVE + place]);
        }
        assert_true(hmm_heap_used_bytes(&heap->heap) <= 4 * LIVE * BLOCK_BYTES); /* of 1000 */
        HmmHeapFree(heap, blocks[0]);
        assert_true(is_held(heap, blocks[0]));
        blocks[1] = HmmHeapRealloc(heap, blocks[1], 100);
        assert_non_null(blocks[1]);
        assert_true(HmmHeapCheck(heap));
        HmmHeapDestroy(heap);
    }
}

/* The second free of a block that was freed among any neighbours, whatever order they went in. */
static void every_second_free_is_seen(void **state)
{
    (void)state;
    enum { BLOCKS = 5, ORDERS = 120 };
    for (int level = HMM_HARDENING_SEALS; level <= HMM_HARDENING_QUARANTINE; level++) {
        for (unsigned order = 0; order < ORDERS; order++) {
            HmmHeap *heap = heap_make((HmmHardening)level, ARRAY_BYTES);
            void *blocks[BLOCKS];
            for (unsigned i = 0; i < BLOCKS; i++) {
                blocks[i] = block_make(heap, 24 + 16 * i);
            }
            (void)block_make(heap, 24);
            void *left[BLOCKS];
            memcpy(left, blocks, sizeof left);
            unsigned code = order;
            for (unsigned count = BLOCKS; count > 0; count--) {
                unsigned chosen = code % count;
                code /= count;
                HmmHeapFree(heap, left[chosen]);
                left[chosen] = left[count - 1];
            }
            for (unsigned i = 0; i < BLOCKS; i++) {
                assert_true(is_crime(heap, CALL_FREE, blocks[i], 0, "double free"));
            }
            assert_true(HmmHeapCheck(heap));
        }
    }
}

/* ------------------------------------------------------------------------------------ what is 0 */

static void new_and_freed_memory_is_zero(void **state)
{
    (void)state;
    static const size_t sizes[] = {0, 1, 24, 40, 1000, 5000, 30000};
    for (int level = HMM_HARDENING_SEALS; level <= HMM_HARDENING_QUARANTINE; level++) {
        HmmHeap *heap = heap_make((HmmHardening)level, ARRAY_BYTES);
        memset(piece, 0xdd, sizeof piece);
        assert_true(HmmHeapAdd(heap, piece, sizeof piece));
        for (int round = 0; round < 50; round++) {
            for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
                unsigned char *ptr = round % 2 == 0 ? HmmHeapAlloc(heap, sizes[i])
                                                    : HmmHeapAlignedAlloc(heap, 256, sizes[i]);
                assert_non_null(ptr);
                assert_true(is_zero(ptr, sizes[i]));
                assert_int_equal(HmmHeapUsableSize(heap, ptr), sizes[i]);
                memset(ptr, 0x5a, sizes[i]);
                HmmHeapFree(heap, ptr);
                /* The first two words may be links. */
                assert_true(sizes[i] < 16 || is_zero(ptr + 16, sizes[i] - 16));
            }
        }
        assert_true(HmmHeapCheck(heap));
    }
}

/* Memory that comes back to the heap after its break was lower may hold anything. */
static void what_growing_brings_is_zero(void **state)
{
    (void)state;
    HmmHeap *heap = heap_make(HMM_HARDENING_SEALS, ARRAY_BYTES);
    unsigned char *ptr = block_make(heap, 100000);
    HmmHeapFree(heap, ptr);
    assert_true(hmm_handle_trim(heap, "trim", 0));
    memset(ptr + 20000, 0x77, 50000);
    ptr = HmmHeapAlloc(heap, 150000);
    assert_non_null(ptr);
    assert_true(is_zero(ptr, 150000));
    assert_true(HmmHeapCheck(heap));
}

static size_t resident_peak_kib(void)
{
    struct rusage usage;
    assert_int_equal(getrusage(RUSAGE_SELF, &usage), 0);
    return (size_t)usage.ru_maxrss;
}

/* Nobody's zeros are written over with zeros. */
static void memory_that_nobody_touched_stays_untouched(void **state)
{
    (void)state;
    skip_where_sanitized();
    size_t before_kib = resident_peak_kib();
    HmmHeap *heap =
        HmmHeapCreate((size_t)1 << 30, &(HmmHeapOptions){.hardening = HMM_HARDENING_QUARANTINE});
    assert_non_null(heap);
    unsigned char *ptr = HmmHeapAlloc(heap, (size_t)512 << 20);
    assert_non_null(ptr);
    ptr[1000] = 1;
    HmmHeapFree(heap, ptr);
    ptr = HmmHeapCalloc(heap, 1, (size_t)512 << 20);
    assert_non_null(ptr);
    assert_int_equal(ptr[1000], 0);
    HmmHeapFree(heap, ptr);
    assert_true(resident_peak_kib() - before_kib < 16 * 1024);
    HmmHeapDestroy(heap);
}

/* Both ways, in place and moved, with free and used neighbours: kept content, and 0 behind it. */
static void resizing_keeps_what_it_should(void **state)
{
    (void)state;
    static const size_t sizes[] = {1, 24, 40, 56, 200, 1000, 3000, 9000};
    enum { SIZES = sizeof sizes / sizeof sizes[0] };
    for (int level = HMM_HARDENING_SEALS; level <= HMM_HARDENING_QUARANTINE; level++) {
        HmmHeap *heap = heap_make((HmmHardening)level, ARRAY_BYTES);
        for (size_t i = 0; i < SIZES * SIZES * 4; i++) {
            size_t from_bytes = sizes[i % SIZES];
            size_t to_bytes = sizes[i / SIZES % SIZES];
            unsigned char *ptr = block_make(heap, from_bytes);
            unsigned char *next = block_make(heap, 500);
            unsigned char *last = i % 3 == 0 ? NULL : block_make(heap, 40);
            if (i / (SIZES * SIZES) % 2 == 0) {
                HmmHeapFree(heap, next);
                next = NULL;
            }
            ptr = HmmHeapRealloc(heap, ptr, to_bytes);
            assert_non_null(ptr);
            size_t kept_bytes = size_min(from_bytes, to_bytes);
            for (size_t byte = 0; byte < kept_bytes; byte++) {
                assert_true(ptr[byte] == 0x5a);
            }
            assert_true(is_zero(ptr + kept_bytes, to_bytes - kept_bytes));
            assert_int_equal(HmmHeapUsableSize(heap, ptr), to_bytes);
            assert_true(HmmHeapCheck(heap));
            HmmHeapFree(heap, next);
            HmmHeapFree(heap, last);
            HmmHeapFree(heap, ptr);
            assert_true(HmmHeapCheck(heap));
        }
    }
}

/* ----------------------------------------------------------------------------------- what waits */

static void a_freed_block_waits(void **state)
{
    (void)state;
    HmmHeap *heap = heap_make(HMM_HARDENING_QUARANTINE, ARRAY_BYTES);
    void *ptr = block_make(heap, 100);
    (void)block_make(heap, 100);
    HmmHeapFree(heap, ptr);
    for (int i = 0; i < 20; i++) {
        assert_ptr_not_equal(block_make(heap, 100), ptr);
    }
}

static void what_waits_is_bounded_and_used_before_memory_is_short(void **state)
{
    (void)state;
    static const size_t memories[] = {SMALL_BYTES, ARRAY_BYTES};
    for (size_t i = 0; i < 2; i++) {
        HmmHeap *heap = heap_make(HMM_HARDENING_QUARANTINE, memories[i]);
        const struct heap_guard *guard = handle_guard(heap);
        static void *blocks[ARRAY_BYTES / 48];
        for (int round = 0; round < 3; round++) {
            size_t count = 0;
            while ((blocks[count] = HmmHeapAlloc(heap, 30)) != NULL) {
                count++;
            }
            assert_true(count * 64 > memories[i] * 2 / 3);
            assert_int_equal(guard->held_count, 0);
            for (size_t j = 0; j < count; j++) {
                HmmHeapFree(heap, blocks[j]);
                assert_true(guard->held_bytes <= memories[i] / 8);
            }
            assert_true(guard->held_count > 0);
            assert_true(HmmHeapCheck(heap));
        }
        /* Larger ones meet the bound on bytes before that on places. */
        for (size_t j = 0; j < 1000; j++) {
            HmmHeapFree(heap, block_make(heap, memories[i] / 32));
            assert_true(guard->held_bytes <= memories[i] / 8);
        }
        /* One that is as large as all memory gets it. */
        HmmHeapStats stats;
        HmmHeapGetStats(heap, &stats);
        HmmHeapFree(heap, HmmHeapAlloc(heap, 30));
        HmmHeapFree(heap, HmmHeapAlloc(heap, 60));
        void *all = HmmHeapAlloc(heap, stats.largest_free_bytes);
        assert_non_null(all);
        HmmHeapFree(heap, all);
        assert_true(HmmHeapCheck(heap));
    }
}

static void trimming_flushes_first(void **state)
{
    (void)state;
    HmmHeap *heap =
        HmmHeapCreate((size_t)16 << 20, &(HmmHeapOptions){.hardening = HMM_HARDENING_QUARANTINE});
    assert_non_null(heap);
    void *ptr = block_make(heap, 200000);
    HmmHeapFree(heap, ptr);
    assert_int_equal(handle_guard(heap)->held_count, 1);
    assert_true(hmm_handle_trim(heap, "trim", 0));
    assert_int_equal(handle_guard(heap)->held_count, 0);
    assert_true(HmmHeapCheck(heap));
    HmmHeapDestroy(heap);
}

/* ------------------------------------------------------------------------------ what is counted */

static bool count_blocks(void *ptr, size_t usable_bytes, bool is_used, void *context)
{
    size_t *bytes = context;
    (void)ptr;
    *bytes += is_used ? usable_bytes : 0;
    return true;
}

static void numbers_are_those_of_the_caller(void **state)
{
    (void)state;
    for (int level = HMM_HARDENING_SEALS; level <= HMM_HARDENING_QUARANTINE; level++) {
        HmmHeap *heap = heap_make((HmmHardening)level, ARRAY_BYTES);
        void *first = block_make(heap, 101);
        void *second = block_make(heap, 1002);
        void *third = HmmHeapRealloc(heap, block_make(heap, 7), 333);
        HmmHeapStats stats;
        HmmHeapFree(heap, second);
        size_t walked_bytes = 0;
        assert_true(HmmHeapWalk(heap, count_blocks, &walked_bytes));
        assert_int_equal(walked_bytes, 101 + 333);
        HmmHeapGetStats(heap, &stats);
        assert_int_equal(stats.live_bytes, 101 + 333);
        assert_int_equal(stats.live_count, 2);
        assert_true(stats.peak_live_bytes >= 101 + 1002 + 7);
        assert_int_equal(stats.break_bytes,
                         stats.live_bytes + stats.free_bytes + stats.overhead_bytes);
        HmmHeapFree(heap, first);
        HmmHeapFree(heap, third);
    }
}

/* What a call claims is held against what the block says; the doors of malloc claim things. */
static void claims_are_verified(void **state)
{
    (void)state;
    static const struct {
        struct claim claim;
        const char *crime;
    } cases[] = {
        {{.call = "free", .origin = ORIGIN_MALLOC}, "mismatched call: allocated by operator new"},
        {{.call = "delete", .origin = ORIGIN_NEW, .bytes = 99, .has_bytes = true},
         "wrong size: 99 instead of 100"},
        {{.call = "delete", .origin = ORIGIN_NEW, .alignment = 64},
         "wrong alignment: 64 instead of 128"},
    };
    HmmHeap *heap = heap_make(HMM_HARDENING_SEALS, ARRAY_BYTES);
    void *ptr = hmm_handle_allocate_as(heap, "new", 128, 100, ORIGIN_NEW);
    assert_non_null(ptr);
    /* Not the first where a sanitizer brings operators of its own. */
    for (size_t i = UNIT_IS_SANITIZED ? 1 : 0; i < sizeof cases / sizeof cases[0]; i++) {
        volatile bool is_seen = true;
        struct watch watch = watch_begin();
        if (setjmp(after_crime) == 0) {
            hmm_handle_free(heap, ptr, &cases[i].claim);
            is_seen = false;
        }
        watch_end(watch);
        assert_true(is_seen);
        assert_non_null(strstr(crime_line, cases[i].crime));
    }
    assert_true(is_crime(heap, CALL_REALLOC, ptr, 200, "mismatched call"));
    hmm_handle_free(heap, ptr,
                    &(struct claim){.call = "delete",
                                    .origin = ORIGIN_NEW,
                                    .bytes = 100,
                                    .has_bytes = true,
                                    .alignment = 128});
    assert_true(HmmHeapCheck(heap));
}

/* Alignments that a seal cannot say are as good as the largest that it can. */
static void every_alignment_is_freed_with_itself(void **state)
{
    (void)state;
    HmmHeap *heap =
        HmmHeapCreate((size_t)64 << 20, &(HmmHeapOptions){.hardening = HMM_HARDENING_SEALS});
    assert_non_null(heap);
    for (size_t alignment = 1; alignment <= (size_t)16 << 20; alignment *= 2) {
        void *ptr = HmmHeapAlignedAlloc(heap, alignment, 100);
        assert_non_null(ptr);
        assert_int_equal((uintptr_t)ptr % alignment, 0);
        assert_true(HmmHeapCheck(heap));
        hmm_handle_free(heap, ptr, &(struct claim){.call = "free", .alignment = alignment});
    }
    assert_true(HmmHeapCheck(heap));
    HmmHeapDestroy(heap);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_visitor_frees_a_block_of_another_heap),
        cmocka_unit_test(a_crime_leaves_everything_as_it_was),
        cmocka_unit_test(a_write_after_free_leaves_everything_as_it_was),
        cmocka_unit_test(what_waits_holds_up_no_break),
        cmocka_unit_test(every_second_free_is_seen),
        cmocka_unit_test(new_and_freed_memory_is_zero),
        cmocka_unit_test(what_growing_brings_is_zero),
        cmocka_unit_test(memory_that_nobody_touched_stays_untouched),
        cmocka_unit_test(resizing_keeps_what_it_should),
        cmocka_unit_test(a_freed_block_waits),
        cmocka_unit_test(what_waits_is_bounded_and_used_before_memory_is_short),
        cmocka_unit_test(trimming_flushes_first),
        cmocka_unit_test(numbers_are_those_of_the_caller),
        cmocka_unit_test(claims_are_verified),
        cmocka_unit_test(every_alignment_is_freed_with_itself),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
