/*
 * test_text.c - text in a fixed buffer.
 */
#include "text.h"
#include "unit.h"

static void numbers_are_written_in_full(void **state)
{
    (void)state;
    struct text text;
    hmm_text_clear(&text);
    hmm_text_add_decimal(&text, 0);
    hmm_text_add(&text, " ");
    hmm_text_add_decimal(&text, UINT64_MAX);
    hmm_text_add(&text, " ");
    hmm_text_add_address(&text, 0xdeadbeef);
    assert_string_equal(text.bytes, "0 18446744073709551615 0xdeadbeef");
    assert_int_equal(text.length, strlen(text.bytes));
}

static void what_does_not_fit_is_cut(void **state)
{
    (void)state;
    struct text text;
    hmm_text_clear(&text);
    for (int i = 0; i < TEXT_BYTES_MAX; i++) {
        hmm_text_add(&text, "abc");
    }
    assert_int_equal(text.length, TEXT_BYTES_MAX - 1);
    assert_int_equal(strlen(text.bytes), TEXT_BYTES_MAX - 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(numbers_are_written_in_full),
        cmocka_unit_test(what_does_not_fit_is_cut),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
