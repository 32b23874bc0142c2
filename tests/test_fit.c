/*
 * test_fit.c - the index of free blocks: every size against its bin, every policy against its rule.
 */
#include "fit.h"
#include "unit.h"

#include <stdlib.h>

enum { BLOCKS = 64, SPACING_BYTES = 8192 };

static const struct block_key key = {.add = 1, .multiply = 3};
static _Alignas(64) unsigned char memory[BLOCKS * SPACING_BYTES];
static _Alignas(64) unsigned char rows_memory[64 * 1024];

static struct block *block_make(size_t index, size_t bytes)
{
    struct block *block = block_at((uintptr_t)memory + index * SPACING_BYTES + BLOCK_TAG_BYTES);
    block_write(&key, block, bytes, BLOCK_IS_FREE);
    return block;
}

static struct fit fit_make(HmmFit policy)
{
    struct fit fit = {.policy = policy};
    if (policy == HMM_FIT_GOOD) {
        fit_set_rows(&fit, rows_memory, fit_row_count(SPACING_BYTES));
    }
    return fit;
}

static void bins_rise_with_sizes_and_leave_none_out(void **state)
{
    (void)state;
    unsigned last = fit_bin(BLOCK_UNIT_BYTES);
    for (size_t bytes = BLOCK_UNIT_BYTES; bytes < 4 << 20; bytes += BLOCK_UNIT_BYTES) {
        unsigned bin = fit_bin(bytes);
        assert_true(bin == last || bin == last + 1);
        last = bin;
    }
    assert_true(fit_row_count(BLOCK_BYTES_MAX) <= 64);
}

/* Within a bin sizes differ by less than one part in FIT_BINS_PER_ROW. */
static void bins_are_narrow(void **state)
{
    (void)state;
    size_t first_bytes = BLOCK_UNIT_BYTES;
    for (size_t bytes = BLOCK_UNIT_BYTES; bytes < 4 << 20; bytes += BLOCK_UNIT_BYTES) {
        if (fit_bin(bytes) != fit_bin(first_bytes)) {
            first_bytes = bytes;
        }
        assert_true((bytes - first_bytes) * FIT_BINS_PER_ROW < first_bytes);
    }
}

static void good_finds_the_smallest_bin_that_holds(void **state)
{
    (void)state;
    struct fit fit = fit_make(HMM_FIT_GOOD);
    struct block *small = block_make(0, 64);
    struct block *large = block_make(1, 4096);
    fit_insert(&fit, large);
    fit_insert(&fit, small);
    assert_ptr_equal(fit_find(&fit, 48), small);
    assert_ptr_equal(fit_find(&fit, 64), small);
    assert_ptr_equal(fit_find(&fit, 80), large);
    assert_ptr_equal(fit_find(&fit, 4096), large);
    assert_null(fit_find(&fit, 4112));
    assert_null(fit_find(&fit, (size_t)1 << 30));
    assert_int_equal(fit_largest(&fit), 4096);
    fit_remove(&fit, large, block_bytes(large));
    assert_null(fit_find(&fit, 80));
    fit_remove(&fit, small, block_bytes(small));
    assert_null(fit_find(&fit, 32));
    assert_int_equal(fit_largest(&fit), 0);
}

static void good_looks_at_its_own_bin_first(void **state)
{
    (void)state;
    struct fit fit = fit_make(HMM_FIT_GOOD);
    size_t width = 4096 / FIT_BINS_PER_ROW;
    struct block *fits = block_make(0, 4096 + width - BLOCK_UNIT_BYTES);
    struct block *next_bin = block_make(1, 4096 + width);
    fit_insert(&fit, next_bin);
    fit_insert(&fit, fits);
    for (size_t i = 0; i + 1 < FIT_PROBE_COUNT; i++) {
        fit_insert(&fit, block_make(2 + i, 4096));
    }
    assert_ptr_equal(fit_find(&fit, 4096 + BLOCK_UNIT_BYTES), fits);
    fit_insert(&fit, block_make(10, 4096));
    assert_ptr_equal(fit_find(&fit, 4096 + BLOCK_UNIT_BYTES), next_bin);
}

/* The promise behind largest_free_bytes: found up to there, not found above. */
static void largest_is_what_find_finds(void **state)
{
    (void)state;
    srand(7);
    for (int policy = HMM_FIT_GOOD; policy <= HMM_FIT_BEST; policy++) {
        for (int round = 0; round < 200; round++) {
            struct fit fit = fit_make((HmmFit)policy);
            size_t count = (size_t)rand() % BLOCKS;
            for (size_t i = 0; i < count; i++) {
                size_t units = 2 + (size_t)rand() % (round % 2 == 0 ? 8 : 500);
                fit_insert(&fit, block_make(i, units * BLOCK_UNIT_BYTES));
            }
            size_t largest_bytes = fit_largest(&fit);
            for (size_t bytes = BLOCK_BYTES_MIN; bytes < SPACING_BYTES; bytes += BLOCK_UNIT_BYTES) {
                assert_int_equal(fit_find(&fit, bytes) != NULL, bytes <= largest_bytes);
            }
        }
    }
}

static void first_takes_the_lowest_address(void **state)
{
    (void)state;
    struct fit fit = fit_make(HMM_FIT_FIRST);
    struct block *blocks[] = {block_make(0, 64), block_make(1, 256), block_make(2, 128)};
    fit_insert(&fit, blocks[2]);
    fit_insert(&fit, blocks[0]);
    fit_insert(&fit, blocks[1]);
    assert_ptr_equal(fit_find(&fit, 64), blocks[0]);
    assert_ptr_equal(fit_find(&fit, 128), blocks[1]);
    fit_remove(&fit, blocks[1], block_bytes(blocks[1]));
    assert_ptr_equal(fit_find(&fit, 128), blocks[2]);
    assert_null(fit_find(&fit, 144));
}

static void next_goes_on_where_it_was_and_wraps(void **state)
{
    (void)state;
    struct fit fit = fit_make(HMM_FIT_NEXT);
    struct block *blocks[] = {block_make(0, 64), block_make(1, 128), block_make(2, 64),
                              block_make(3, 128)};
    for (size_t i = 0; i < 4; i++) {
        fit_insert(&fit, blocks[i]);
    }
    assert_ptr_equal(fit_find(&fit, 128), blocks[1]);
    fit_remove(&fit, blocks[1], block_bytes(blocks[1]));
    assert_ptr_equal(fit_find(&fit, 128), blocks[3]);
    fit_remove(&fit, blocks[3], block_bytes(blocks[3]));
    assert_ptr_equal(fit_find(&fit, 64), blocks[2]);
    fit_remove(&fit, blocks[2], block_bytes(blocks[2]));
    assert_ptr_equal(fit_find(&fit, 64), blocks[0]);
    assert_null(fit_find(&fit, 80));
}

static void best_takes_the_smallest_that_fits(void **state)
{
    (void)state;
    struct fit fit = fit_make(HMM_FIT_BEST);
    static const size_t sizes[] = {512, 96, 256, 96, 4096, 128};
    struct block *blocks[6];
    for (size_t i = 0; i < 6; i++) {
        blocks[i] = block_make(i, sizes[i]);
        fit_insert(&fit, blocks[i]);
    }
    assert_ptr_equal(fit_find(&fit, 96), blocks[1]);
    assert_ptr_equal(fit_find(&fit, 112), blocks[5]);
    assert_ptr_equal(fit_find(&fit, 144), blocks[2]);
    assert_ptr_equal(fit_find(&fit, 528), blocks[4]);
    assert_int_equal(fit_largest(&fit), 4096);
}

/* Every offset of a block against every alignment: the payload is aligned, and what is left in
 * front is nothing or a block. */
static void placement_is_aligned_and_leaves_whole_blocks(void **state)
{
    (void)state;
    for (size_t offset = 0; offset < 4096; offset += BLOCK_UNIT_BYTES) {
        for (size_t alignment = BLOCK_UNIT_BYTES; alignment <= 2048; alignment *= 2) {
            struct block *block =
                block_at((uintptr_t)memory + BLOCK_UNIT_BYTES - BLOCK_TAG_BYTES + offset);
            size_t lead_bytes;
            assert_true(fit_can_place(block, 8192, 64, alignment, &lead_bytes));
            assert_true(lead_bytes == 0 || lead_bytes >= BLOCK_BYTES_MIN);
            assert_true(lead_bytes < alignment + BLOCK_BYTES_MIN);
            assert_int_equal(((uintptr_t)block_payload(block) + lead_bytes) % alignment, 0);
            assert_false(fit_can_place(block, lead_bytes + 48, 64, alignment, &lead_bytes));
        }
    }
    size_t lead_bytes;
    assert_false(
        fit_can_place(block_make(0, 64), BLOCK_BYTES_MAX, 64, SIZE_MAX / 2 + 1, &lead_bytes));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bins_rise_with_sizes_and_leave_none_out),
        cmocka_unit_test(bins_are_narrow),
        cmocka_unit_test(good_finds_the_smallest_bin_that_holds),
        cmocka_unit_test(good_looks_at_its_own_bin_first),
        cmocka_unit_test(largest_is_what_find_finds),
        cmocka_unit_test(first_takes_the_lowest_address),
        cmocka_unit_test(next_goes_on_where_it_was_and_wraps),
        cmocka_unit_test(best_takes_the_smallest_that_fits),
        cmocka_unit_test(placement_is_aligned_and_leaves_whole_blocks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
