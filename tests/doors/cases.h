/*
 * cases.h - a program of many small cases.
 *
 * Without an argument the program lists its cases; with one it runs that case alone, so that each
 * starts on a fresh heap and a crash costs no other. What fails is a comment on standard error, and
 * the exit status. Nothing here allocates: the words for a broken heap must not need it.
 */
#ifndef CASES_H
#define CASES_H

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct test_case {
    const char *name;
    void (*run)(void);
};

/* Of a case that fails in a loop the first few lines say enough. */
enum { CASE_LINES_MAX = 5 };

static int
    case_failure_count; /* by __atomic calls: threads fail as well, and C++ shares this file */

/* What a process ends with. */
static inline int case_status(void)
{
    return case_failure_count == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

/* Counts a failure, and says whether it is among those to be told. */
static inline bool case_fail(void)
{
    return __atomic_fetch_add(&case_failure_count, 1, __ATOMIC_RELAXED) < CASE_LINES_MAX;
}

__attribute__((format(printf, 1, 2))) static inline void case_say(const char *format, ...)
{
    char line[512];
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    length = length < (int)sizeof line ? length : (int)sizeof line - 1;
    if (length > 0 && write(STDERR_FILENO, line, (size_t)length) != length) {
        _exit(EXIT_FAILURE);
    }
}

static inline bool case_judge(bool is_good, const char *file, int line, const char *what)
{
    if (!is_good && case_fail()) {
        case_say("# %s:%d: %s\n", file, line, what);
    }
    return is_good;
}

static inline bool case_judge_equal(long long got, long long wanted, const char *file, int line,
                                    const char *what)
{
    if (got != wanted && case_fail()) {
        case_say("# %s:%d: %s is %lld (0x%llx), wanted %lld (0x%llx)\n", file, line, what, got,
                 (unsigned long long)got, wanted, (unsigned long long)wanted);
    }
    return got == wanted;
}

/* Both go on after a failure and say whether it was none. */
#define EXPECT(condition) case_judge((condition), __FILE__, __LINE__, #condition)
#define EXPECT_EQUAL(got, wanted)                                                                  \
    case_judge_equal((long long)(got), (long long)(wanted), __FILE__, __LINE__, #got)

/* Where the case cannot go on. */
#define REQUIRE(condition)                                                                         \
    do {                                                                                           \
        if (!EXPECT(condition)) {                                                                  \
            _exit(EXIT_FAILURE);                                                                   \
        }                                                                                          \
    } while (0)

/* The exit status of a case that cannot run here. */
enum { CASE_SKIPPED = 77 };

/* Its process ends, and has said why. */
static inline void case_skip_where(bool cannot_run, const char *why)
{
    if (cannot_run) {
        dprintf(STDOUT_FILENO, "# skipped: %s\n", why);
        _exit(CASE_SKIPPED);
    }
}

static inline int cases_main(int argc, char **argv, const struct test_case *cases, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (argc < 2) {
            puts(cases[i].name);
        } else if (strcmp(argv[1], cases[i].name) == 0) {
            cases[i].run();
            return __atomic_load_n(&case_failure_count, __ATOMIC_RELAXED) != 0 ? EXIT_FAILURE
                                                                               : EXIT_SUCCESS;
        }
    }
    if (argc >= 2) {
        case_say("# no case is called %s\n", argv[1]);
    }
    return argc < 2 ? EXIT_SUCCESS : EXIT_FAILURE;
}

#define CASE(function)                                                                             \
    {                                                                                              \
#function, function                                                                        \
    }
#define CASES_MAIN(...)                                                                            \
    int main(int argc, char **argv)                                                                \
    {                                                                                              \
        const struct test_case cases[] = {__VA_ARGS__};                                            \
        return cases_main(argc, argv, cases, sizeof cases / sizeof cases[0]);                      \
    }

#endif
