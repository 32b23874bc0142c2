/*
 * test_sizeclass.c - every request against its class: there are few enough of both.
 */
#include "slab.h"
#include "unit.h"

enum { LINEAR_BYTES = 256 };

static void classes_are_ascending_multiples_of_the_unit(void **state)
{
    (void)state;
    size_t before_bytes = 0;
    for (unsigned size_class = 0; size_class < CLASS_COUNT; size_class++) {
        size_t bytes = class_bytes(size_class);
        assert_true(bytes > before_bytes);
        assert_true(is_aligned(bytes, SLOT_UNIT_BYTES));
        before_bytes = bytes;
    }
    assert_int_equal(class_bytes(0), SLOT_UNIT_BYTES);
    assert_int_equal(before_bytes, SMALL_BYTES_MAX);
}

/* Steps of a unit to 256 bytes; the powers of two, and what lies just above them. */
static void the_documented_classes_are_there(void **state)
{
    (void)state;
    for (size_t bytes = SLOT_UNIT_BYTES; bytes <= LINEAR_BYTES; bytes += SLOT_UNIT_BYTES) {
        assert_int_equal(class_bytes(class_of(bytes)), bytes);
    }
    for (size_t bytes = LINEAR_BYTES; bytes <= SMALL_BYTES_MAX; bytes *= 2) {
        assert_int_equal(class_bytes(class_of(bytes)), bytes);
    }
    assert_int_equal(class_bytes(class_of(513)), 528);
    assert_int_equal(class_bytes(class_of(1025)), 1040);
}

/* The last slot of a granule ends at the granule's end, or nearly so. */
static void large_slots_fill_their_granule(void **state)
{
    (void)state;
    const size_t granule_bytes = 65536;
    for (unsigned size_class = class_of(2049); size_class < CLASS_COUNT; size_class++) {
        size_t bytes = class_bytes(size_class);
        assert_true(granule_bytes % bytes < granule_bytes / bytes * SLOT_UNIT_BYTES);
    }
}

/* What is behind the last slot is no page: it would be free to whoever looks (slab.c). */
static void no_page_is_without_a_slot(void **state)
{
    (void)state;
    for (unsigned size_class = 0; size_class < CLASS_COUNT; size_class++) {
        assert_true(GRANULE_BYTES % class_bytes(size_class) < 4096);
    }
}

/* All offsets in a granule, in slots of all classes, against the division that the
 * product stands for. */
static void every_offset_is_so_far_into_its_slot(void **state)
{
    (void)state;
    for (unsigned size_class = 0; size_class < CLASS_COUNT; size_class++) {
        struct granule slab = {.slot_bytes = (uint32_t)class_bytes(size_class),
                               .slot_fraction = class_slot_fraction(size_class)};
        for (uintptr_t offset = 0; offset < GRANULE_BYTES; offset++) {
            const void *ptr = (const void *)(ARENA_ALIGN_BYTES + offset);
            if (slab_slot_offset(&slab, ptr) != offset % class_bytes(size_class)) {
                fail_msg("class %u, offset %zu", size_class, (size_t)offset);
            }
        }
    }
}

static void slots_know_what_they_are_aligned_to(void **state)
{
    (void)state;
    for (unsigned size_class = 0; size_class < CLASS_COUNT; size_class++) {
        size_t alignment = class_alignment(size_class);
        assert_true(is_power_of_two(alignment));
        assert_true(is_aligned(class_bytes(size_class), alignment));
        assert_false(is_aligned(class_bytes(size_class), 2 * alignment));
    }
}

static void every_size_has_the_smallest_class_that_fits(void **state)
{
    (void)state;
    for (size_t bytes = 0; bytes <= SMALL_BYTES_MAX; bytes++) {
        unsigned size_class = class_of(bytes);
        assert_true(size_class < CLASS_COUNT);
        assert_true(class_bytes(size_class) >= bytes);
        assert_true(size_class == 0 || class_bytes(size_class - 1) < bytes);
    }
}

static void a_larger_size_has_no_smaller_class(void **state)
{
    (void)state;
    for (size_t bytes = 1; bytes <= SMALL_BYTES_MAX; bytes++) {
        assert_true(class_of(bytes - 1) <= class_of(bytes));
    }
}

static void every_class_is_its_own(void **state)
{
    (void)state;
    for (unsigned size_class = 0; size_class < CLASS_COUNT; size_class++) {
        assert_int_equal(class_of(class_bytes(size_class)), size_class);
        assert_int_equal(hmm_class_table[class_bytes(size_class) >> SLOT_UNIT_SHIFT], size_class);
    }
}

/* Less than a unit up to 256 bytes, and about an eighth of the request beyond. */
static void little_is_wasted(void **state)
{
    (void)state;
    size_t wasted_sum = 0;
    size_t requested_sum = 0;
    for (size_t bytes = 1; bytes <= SMALL_BYTES_MAX; bytes++) {
        size_t wasted_bytes = class_bytes(class_of(bytes)) - bytes;
        assert_true(bytes <= LINEAR_BYTES ? wasted_bytes < SLOT_UNIT_BYTES
                                          : wasted_bytes * 15 < bytes * 2);
        wasted_sum += wasted_bytes;
        requested_sum += bytes;
    }
    assert_true(wasted_sum * 18 <= requested_sum);
}

static void every_alignment_has_the_first_class_that_keeps_it(void **state)
{
    (void)state;
    for (size_t alignment = 1; alignment <= 4 * SMALL_BYTES_MAX; alignment *= 2) {
        for (unsigned from = 0; from < CLASS_COUNT; from++) {
            unsigned found = class_aligned(from, alignment);
            assert_true(found >= from);
            assert_true(found <= CLASS_NONE);
            for (unsigned size_class = from; size_class < found; size_class++) {
                assert_false(is_aligned(class_bytes(size_class), alignment));
            }
            assert_true(found == CLASS_NONE || is_aligned(class_bytes(found), alignment));
            assert_int_equal(found == CLASS_NONE, alignment > SMALL_BYTES_MAX);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(classes_are_ascending_multiples_of_the_unit),
        cmocka_unit_test(the_documented_classes_are_there),
        cmocka_unit_test(large_slots_fill_their_granule),
        cmocka_unit_test(no_page_is_without_a_slot),
        cmocka_unit_test(every_offset_is_so_far_into_its_slot),
        cmocka_unit_test(slots_know_what_they_are_aligned_to),
        cmocka_unit_test(every_size_has_the_smallest_class_that_fits),
        cmocka_unit_test(a_larger_size_has_no_smaller_class),
        cmocka_unit_test(every_class_is_its_own),
        cmocka_unit_test(little_is_wasted),
        cmocka_unit_test(every_alignment_has_the_first_class_that_keeps_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
