/*
 * test_words.c - looking through memory and clearing it: every length, and every byte of it.
 */
#include "unit.h"
#include "words.h"

enum { LONGEST_BYTES = 24 * PAIR_BYTES, AROUND_BYTES = 4 * PAIR_BYTES, DIRT = 0xa5 };

/* Memory with others' on both sides of it. */
struct piece {
    _Alignas(PAIR_BYTES) unsigned char before[AROUND_BYTES];
    unsigned char bytes[LONGEST_BYTES + AROUND_BYTES];
};

static struct piece dirty_around(size_t bytes)
{
    struct piece piece;
    memset(&piece, DIRT, sizeof piece);
    memset(piece.bytes, 0, bytes);
    return piece;
}

static bool is_joined(const struct piece *piece, size_t bytes)
{
    word_pair all;
    pairs_join_short(&all, (const char *)piece->bytes, bytes);
    return (all[0] | all[1]) != 0;
}

static void each_byte_of_whole_pairs_is_seen_and_no_other(void **state)
{
    (void)state;
    for (size_t bytes = PAIR_BYTES; bytes <= LONGEST_BYTES; bytes += PAIR_BYTES) {
        struct piece piece = dirty_around(bytes);
        bool is_short = bytes <= PAIRS_SHORT_BYTES;
        assert_true(pairs_are_zero(piece.bytes, bytes));
        assert_false(is_short && is_joined(&piece, bytes));
        for (size_t at = 0; at < bytes; at++) {
            piece.bytes[at] = 1;
            assert_false(pairs_are_zero(piece.bytes, bytes));
            assert_true(!is_short || is_joined(&piece, bytes));
            piece.bytes[at] = 0;
        }
    }
    assert_true(pairs_are_zero(dirty_around(0).bytes, 0));
}

static void any_bytes_are_looked_at_up_to_the_last_one(void **state)
{
    (void)state;
    for (size_t start = 0; start < PAIR_BYTES; start++) {
        for (size_t end = start + PAIR_BYTES; end <= LONGEST_BYTES; end += 7) {
            struct piece piece = dirty_around(end);
            memset(piece.bytes, DIRT, start);
            const char *from = (const char *)piece.bytes;
            assert_true(bytes_are_zero(from + start, from + end));
            for (size_t at = start; at < end; at++) {
                piece.bytes[at] = 1;
                assert_false(bytes_are_zero(from + start, from + end));
                piece.bytes[at] = 0;
            }
        }
    }
}

static void assert_cleared(const struct piece *piece, size_t bytes)
{
    for (size_t at = 0; at < sizeof piece->before; at++) {
        assert_int_equal(piece->before[at], DIRT);
    }
    for (size_t at = 0; at < sizeof piece->bytes; at++) {
        assert_int_equal(piece->bytes[at], at < bytes ? 0 : DIRT);
    }
}

static void whole_pairs_are_cleared_and_nothing_else(void **state)
{
    (void)state;
    for (size_t bytes = PAIR_BYTES; bytes <= LONGEST_BYTES; bytes += PAIR_BYTES) {
        if (bytes <= PAIRS_SHORT_BYTES) {
            struct piece piece = dirty_around(0);
            pairs_clear_short((char *)piece.bytes, bytes);
            assert_cleared(&piece, bytes);
        }
        if (bytes >= PAIRS_AT_ONCE * PAIR_BYTES) {
            struct piece piece = dirty_around(0);
            pairs_clear_long((char *)piece.bytes, bytes);
            assert_cleared(&piece, bytes);
        }
    }
}

static void the_first_byte_that_is_not_0_is_found(void **state)
{
    (void)state;
    for (size_t start = 0; start < PAIR_BYTES; start++) {
        for (size_t end = PAIR_BYTES; end <= LONGEST_BYTES; end += sizeof(uint64_t)) {
            struct piece piece = dirty_around(end);
            memset(piece.bytes, DIRT, start);
            assert_null(first_nonzero(piece.bytes + start, piece.bytes + end));
            for (size_t at = start; at < end; at += 3) {
                piece.bytes[at] = piece.bytes[end - 1] = 1;
                assert_ptr_equal(first_nonzero(piece.bytes + start, piece.bytes + end),
                                 piece.bytes + at);
                piece.bytes[at] = piece.bytes[end - 1] = 0;
            }
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_byte_of_whole_pairs_is_seen_and_no_other),
        cmocka_unit_test(any_bytes_are_looked_at_up_to_the_last_one),
        cmocka_unit_test(whole_pairs_are_cleared_and_nothing_else),
        cmocka_unit_test(the_first_byte_that_is_not_0_is_found),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
