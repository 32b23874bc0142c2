/*
 * test_options.c - the table of options, and what becomes of text that people type.
 */
#include "options.h"
#include "unit.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

/* What parsing writes to standard error, through a pipe. */
static const char *complaints(struct options *options, const char *program, const char *environment)
{
    static char text[4096];
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    int saved = dup(STDERR_FILENO);
    dup2(ends[1], STDERR_FILENO);
    hmm_options_parse(options, program, environment);
    dup2(saved, STDERR_FILENO);
    close(saved);
    close(ends[1]);
    ssize_t bytes = read(ends[0], text, sizeof text - 1);
    close(ends[0]);
    text[bytes > 0 ? bytes : 0] = '\0';
    return text;
}

static void nothing_said_means_defaults(void **state)
{
    (void)state;
    struct options options;
    assert_string_equal(complaints(&options, NULL, NULL), "");
    assert_int_equal(options.fit, HMM_FIT_GOOD);
    assert_int_equal(options.region, OPTION_REGION_RESERVE);
    assert_int_equal(options.limit_bytes, 0);
    assert_string_equal(complaints(&options, "", ",,"), "");
}

static void every_word_of_the_table_is_understood(void **state)
{
    (void)state;
    static const char *const fits[] = {"fit=good", "fit=first", "fit=next", "fit=best"};
    struct options options;
    for (int fit = 0; fit < 4; fit++) {
        assert_string_equal(complaints(&options, NULL, fits[fit]), "");
        assert_int_equal(options.fit, fit);
    }
    assert_string_equal(
        complaints(&options, NULL, "engine=block,region=sbrk,limit=12345,stats=exit"), "");
    assert_true(options.has_stats_at_exit);
    assert_int_equal(options.region, OPTION_REGION_SBRK);
    assert_int_equal(options.limit_bytes, 12345);
    assert_false(options.has_backtrace);
    assert_string_equal(complaints(&options, NULL, "backtrace=1"), "");
    assert_true(options.has_backtrace);
    assert_string_equal(complaints(&options, NULL, "claims=0"), "");
    assert_true(options.ignores_claims);
    assert_string_equal(complaints(&options, NULL, "claims=1"), "");
    assert_false(options.ignores_claims);
    assert_false(options.has_scavenger);
    assert_string_equal(complaints(&options, "scavenger=0", "scavenger=1"), "");
    assert_true(options.has_scavenger);
    assert_string_equal(complaints(&options, "scavenger=1", "scavenger=on"),
                        "hmm: HMM_OPTIONS: scavenger=on: ignored, wants 0|1\n");
}

static void sizes_take_one_unit(void **state)
{
    (void)state;
    struct options options;
    assert_string_equal(complaints(&options, NULL, "limit=3k"), "");
    assert_int_equal(options.limit_bytes, 3 << 10);
    assert_string_equal(complaints(&options, NULL, "limit=5M"), "");
    assert_int_equal(options.limit_bytes, 5 << 20);
    assert_string_equal(complaints(&options, NULL, "limit=2G"), "");
    assert_int_equal(options.limit_bytes, (size_t)2 << 30);
    assert_string_equal(complaints(&options, NULL, "limit=1T"), "");
    assert_int_equal(options.limit_bytes, (size_t)1 << 40);
}

static void a_signal_has_a_name_or_a_number(void **state)
{
    (void)state;
    struct options options;
    assert_string_equal(complaints(&options, NULL, NULL), "");
    assert_int_equal(options.stats_signal, 0);
    static const char *const right[] = {"stats_signal=USR1", "stats_signal=SIGUSR1",
                                        "stats_signal=10"};
    for (size_t i = 0; i < sizeof right / sizeof right[0]; i++) {
        assert_string_equal(complaints(&options, NULL, right[i]), "");
        assert_int_equal(options.stats_signal, SIGUSR1);
    }
    static const char *const wrong[] = {
        "stats_signal=KILL", "stats_signal=SIGNAL", "stats_signal=0",
        "stats_signal=65",   "stats_signal=",       "stats_signal=SIGSTOP",
        "stats_signal=10K",  "stats_signal=32",     "stats_signal=33"};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        assert_non_null(strstr(complaints(&options, NULL, wrong[i]), "wants none|SIGNAL"));
        assert_int_equal(options.stats_signal, 0);
    }
    assert_string_equal(complaints(&options, "stats_signal=USR1", "stats_signal=none"), "");
    assert_int_equal(options.stats_signal, 0);
}

static void a_descriptor_has_a_number(void **state)
{
    (void)state;
    struct options options;
    assert_string_equal(complaints(&options, NULL, "leaks=77"), "");
    static const char *const wrong[] = {"leaks=0", "leaks=1K", "leaks=", "leaks=3x",
                                        "leaks=99999999999"};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        assert_non_null(strstr(complaints(&options, NULL, wrong[i]), "wants none|exit|DESCRIPTOR"));
    }
}

static void the_environment_overrides_the_program_key_by_key(void **state)
{
    (void)state;
    struct options options;
    assert_string_equal(complaints(&options, "fit=best,limit=7", "limit=8"), "");
    assert_int_equal(options.fit, HMM_FIT_BEST);
    assert_int_equal(options.limit_bytes, 8);
}

static void nonsense_is_one_line_and_changes_nothing(void **state)
{
    (void)state;
    struct options options;
    assert_string_equal(complaints(&options, NULL, "fit=bst"),
                        "hmm: HMM_OPTIONS: fit=bst: ignored, wants good|first|next|best\n");
    assert_int_equal(options.fit, HMM_FIT_GOOD);
    assert_string_equal(complaints(&options, "fitt=best", NULL),
                        "hmm: HmmOptions: fitt=best: unknown option, ignored\n");
    assert_string_equal(complaints(&options, NULL, "fit"),
                        "hmm: HMM_OPTIONS: fit: ignored, wants good|first|next|best\n");
    assert_string_equal(complaints(&options, NULL, "=,fit=next"),
                        "hmm: HMM_OPTIONS: =: unknown option, ignored\n");
    assert_int_equal(options.fit, HMM_FIT_NEXT);
    static const char *const wrong_sizes[] = {"limit=",         "limit=x",
                                              "limit=-1",       "limit=1KB",
                                              "limit=1.5G",     "limit=99999999999999999999",
                                              "limit=99999999T"};
    for (size_t i = 0; i < sizeof wrong_sizes / sizeof wrong_sizes[0]; i++) {
        assert_non_null(strstr(complaints(&options, NULL, wrong_sizes[i]), "ignored, wants BYTES"));
        assert_int_equal(options.limit_bytes, 0);
    }
}

static void nothing_that_a_terminal_obeys_is_repeated(void **state)
{
    (void)state;
    struct options options;
    assert_string_equal(complaints(&options, NULL, "\033[31m\n"),
                        "hmm: HMM_OPTIONS: ?[31m?: unknown option, ignored\n");
    char junk[600];
    memset(junk, 'a', sizeof junk);
    junk[sizeof junk - 1] = '\0';
    const char *line = complaints(&options, NULL, junk);
    assert_true(strlen(line) < 150);
    assert_non_null(strstr(line, "aaa...: unknown option, ignored\n"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_said_means_defaults),
        cmocka_unit_test(every_word_of_the_table_is_understood),
        cmocka_unit_test(sizes_take_one_unit),
        cmocka_unit_test(a_signal_has_a_name_or_a_number),
        cmocka_unit_test(a_descriptor_has_a_number),
        cmocka_unit_test(the_environment_overrides_the_program_key_by_key),
        cmocka_unit_test(nonsense_is_one_line_and_changes_nothing),
        cmocka_unit_test(nothing_that_a_terminal_obeys_is_repeated),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
