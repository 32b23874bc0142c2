/*
 * test_heap_sites.c - sites in the blocks of hardened heaps: by whom a block was allocated and
 * freed is found as long as its memory is free, and goes when it is handed out again. The words for
 * crimes are in crimes.t.
 */
#include "handle_guarded.h"
#include "heap_guard_block.h"
#include "seed.h"
#include "unit.h"

#include "sites.h"

#include <string.h>

const char *HmmOptions = "sites=1";

enum { ARRAY_BYTES = 256 * 1024, TRAILER_BYTES = RECORD_BYTES + SEAL_BYTES, STEPS = 4000 };

static _Alignas(64) unsigned char array[ARRAY_BYTES];

static HmmHeap *heap_make(HmmHardening level, HmmFit fit)
{
    memset(array, 0xee, sizeof array);
    HmmHeap *heap =
        HmmHeapInit(array, sizeof array, &(HmmHeapOptions){.hardening = level, .fit = fit});
    assert_non_null(heap);
    assert_true(level == HMM_HARDENING_NONE || guard_has_records(handle_guard(heap)));
    return heap;
}

static _Atomic int after_call;

/* Whoever makes and frees blocks does so from two places in the text. */
static __attribute__((noinline)) unsigned char *make_here(HmmHeap *heap, size_t bytes)
{
    unsigned char *ptr = HmmHeapAlloc(heap, bytes);
    after_call++;
    assert_non_null(ptr);
    return memset(ptr, 0x5a, bytes);
}

static __attribute__((noinline)) void free_here(HmmHeap *heap, void *ptr)
{
    HmmHeapFree(heap, ptr);
    after_call++;
}

static __attribute__((noinline)) void *resize_here(HmmHeap *heap, void *ptr, size_t bytes)
{
    void *resized = HmmHeapRealloc(heap, ptr, bytes);
    after_call++;
    return resized;
}

/* The library is a part of this program, so its own frames come first. */
static void assert_from(uint32_t site, const void *function)
{
    uintptr_t frames[SITE_FRAMES_MAX];
    size_t within = 0;
    size_t count = hmm_sites_frames(site, frames, SITE_FRAMES_MAX);
    for (size_t i = 0; i < count; i++) {
        within += frames[i] > (uintptr_t)function && frames[i] < (uintptr_t)function + 200;
    }
    assert_int_equal(within, 1);
}

/* The record that ends a block of `bytes` as it was when it was made. */
static struct record_sites sites_of_block(const HmmHeap *heap, const unsigned char *ptr,
                                          size_t bytes)
{
    size_t block_bytes = block_bytes_for(size_max(bytes, 16) + TRAILER_BYTES);
    uintptr_t record = block_address(block_of(ptr)) + block_bytes - TRAILER_BYTES;
    assert_true(hmm_heap_is_record(&handle_guard(heap)->key, record));
    return record_load(record).sites;
}

static void a_block_says_who_made_and_who_freed_it(void **state)
{
    (void)state;
    for (int level = HMM_HARDENING_SEALS; level <= HMM_HARDENING_QUARANTINE; level++) {
        static const size_t sizes[] = {0, 1, 16, 24, 40, 3000, 9999};
        HmmHeap *heap = heap_make((HmmHardening)level, HMM_FIT_GOOD);
        for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
            unsigned char *ptr = make_here(heap, sizes[i]);
            unsigned char *next = make_here(heap, 8);
            assert_int_equal(HmmHeapUsableSize(heap, ptr), sizes[i]);
            assert_from(sites_of_block(heap, ptr, sizes[i]).allocated, (const void *)make_here);
            assert_int_equal(sites_of_block(heap, ptr, sizes[i]).freed, 0);
            free_here(heap, ptr);
            assert_from(sites_of_block(heap, ptr, sizes[i]).allocated, (const void *)make_here);
            assert_from(sites_of_block(heap, ptr, sizes[i]).freed, (const void *)free_here);
            free_here(heap, next);
            assert_true(HmmHeapCheck(heap));
        }
    }
}

/* Freed one after the other, all become one free block. */
static void what_was_freed_is_known_after_merging(void **state)
{
    (void)state;
    enum { COUNT = 6, BYTES = 100 };
    static const int order[COUNT] = {4, 1, 2, 0, 5, 3};
    unsigned char *blocks[COUNT];
    HmmHeap *heap = heap_make(HMM_HARDENING_SEALS, HMM_FIT_FIRST);
    for (int i = 0; i < COUNT; i++) {
        blocks[i] = make_here(heap, BYTES);
    }
    for (int i = 0; i < COUNT; i++) {
        free_here(heap, blocks[order[i]]);
        assert_true(HmmHeapCheck(heap));
    }
    for (int i = 0; i < COUNT; i++) {
        assert_from(sites_of_block(heap, blocks[i], BYTES).freed, (const void *)free_here);
    }
    /* Handed out again it is 0, records, marks and all. */
    unsigned char *ptr = HmmHeapAlloc(heap, COUNT * BYTES);
    assert_ptr_equal(ptr, blocks[0]);
    for (int i = 0; i < COUNT * BYTES; i++) {
        assert_int_equal(ptr[i], 0);
    }
    assert_true(HmmHeapCheck(heap));
}

static void who_resizes_a_block_has_made_it(void **state)
{
    (void)state;
    HmmHeap *heap = heap_make(HMM_HARDENING_SEALS, HMM_FIT_GOOD);
    unsigned char *ptr = make_here(heap, 1000);
    unsigned char *behind = make_here(heap, 1000);
    assert_ptr_equal(resize_here(heap, ptr, 300), ptr);
    assert_from(sites_of_block(heap, ptr, 300).allocated, (const void *)resize_here);
    assert_true(HmmHeapCheck(heap));
    assert_ptr_equal(resize_here(heap, ptr, 900), ptr);
    assert_from(sites_of_block(heap, ptr, 900).allocated, (const void *)resize_here);
    unsigned char *moved = resize_here(heap, ptr, 5000);
    assert_ptr_not_equal(moved, ptr);
    assert_from(sites_of_block(heap, moved, 5000).allocated, (const void *)resize_here);
    assert_from(sites_of_block(heap, behind, 1000).allocated, (const void *)make_here);
    assert_true(HmmHeapCheck(heap));
}

static void heaps_that_are_not_hardened_have_no_room_for_sites(void **state)
{
    (void)state;
    HmmHeap *heap = heap_make(HMM_HARDENING_NONE, HMM_FIT_GOOD);
    unsigned char *first = make_here(heap, 1000);
    unsigned char *second = make_here(heap, 1000);
    assert_int_equal(second - first, 1000 + sizeof(void *));
}

static uint64_t random_state;

static void step(HmmHeap *heap, unsigned char **place, size_t *place_bytes)
{
    size_t bytes = random_below(&random_state, random_below(&random_state, 8) == 0 ? 9000 : 200);
    for (size_t i = 0; i < *place_bytes; i++) {
        assert_int_equal((*place)[i], 0x5a);
    }
    if (*place != NULL && random_below(&random_state, 3) == 0) {
        unsigned char *resized = HmmHeapRealloc(heap, *place, bytes + 1);
        assert_non_null(resized);
        *place = resized;
        *place_bytes = bytes + 1;
    } else {
        HmmHeapFree(heap, *place);
        *place = random_below(&random_state, 4) == 0
                     ? HmmHeapAlignedAlloc(heap, 16u << random_below(&random_state, 7), bytes)
                     : HmmHeapAlloc(heap, bytes);
        assert_non_null(*place);
        *place_bytes = bytes;
        for (size_t i = 0; i < bytes; i++) {
            assert_int_equal((*place)[i], 0);
        }
    }
    memset(*place, 0x5a, *place_bytes);
}

static void any_order_of_calls_keeps_the_invariants(void **state)
{
    (void)state;
    enum { PLACES = 60, LOOK_EVERY = 8 };
    random_state = 20261121;
    for (int level = HMM_HARDENING_SEALS; level <= HMM_HARDENING_QUARANTINE; level++) {
        for (int fit = HMM_FIT_GOOD; fit <= HMM_FIT_BEST; fit++) {
            unsigned char *places[PLACES] = {NULL};
            size_t places_bytes[PLACES] = {0};
            HmmHeap *heap = heap_make((HmmHardening)level, (HmmFit)fit);
            for (int i = 0; i < STEPS; i++) {
                size_t place = random_below(&random_state, PLACES);
                step(heap, &places[place], &places_bytes[place]);
                assert_true(i % LOOK_EVERY != 0 || HmmHeapCheck(heap));
            }
            HmmHeapStats stats;
            HmmHeapGetStats(heap, &stats);
            assert_true(HmmHeapCheck(heap));
            assert_null(HmmHeapAlloc(heap, stats.largest_free_bytes + 1));
            assert_non_null(HmmHeapAlloc(heap, stats.largest_free_bytes));
        }
    }
}

/* What is refused, and what is not, has room for one block with its record. */
static void every_size_is_refused_or_works(void **state)
{
    (void)state;
    for (int level = HMM_HARDENING_NONE; level <= HMM_HARDENING_QUARANTINE; level++) {
        const HmmHeapOptions options = {.hardening = (HmmHardening)level};
        for (size_t bytes = 1; bytes <= 1500; bytes++) {
            HmmHeap *heap = HmmHeapInit(array, bytes, &options);
            assert_true(heap == NULL ? bytes < 1024 : HmmHeapAlloc(heap, 1) != NULL);
            HmmHeapDestroy(heap);
            heap = HmmHeapCreate(bytes, &options);
            assert_true(heap == NULL ? bytes < 1024 : HmmHeapAlloc(heap, 1) != NULL);
            HmmHeapDestroy(heap);
        }
        HmmHeap *heap = HmmHeapInit(array, 4096, &options);
        for (size_t bytes = 1; bytes <= 300; bytes++) {
            HmmHeapStats stats;
            while (HmmHeapAlloc(heap, 1) != NULL) {
            }
            if (HmmHeapAdd(heap, array + 4096 + 512 * bytes, bytes)) {
                HmmHeapGetStats(heap, &stats);
                assert_true(stats.largest_free_bytes != 0);
            }
        }
        HmmHeapDestroy(heap);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_block_says_who_made_and_who_freed_it),
        cmocka_unit_test(what_was_freed_is_known_after_merging),
        cmocka_unit_test(who_resizes_a_block_has_made_it),
        cmocka_unit_test(heaps_that_are_not_hardened_have_no_room_for_sites),
        cmocka_unit_test(every_size_is_refused_or_works),
        cmocka_unit_test(any_order_of_calls_keeps_the_invariants),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
