/*
 * forked.h - unit tests of the whole process heap: each runs in a process of its own, so that it
 * begins with a heap that nobody has touched, and with options of its own.
 */
#ifndef HMM_TESTS_FORKED_H
#define HMM_TESTS_FORKED_H

#include "alloc.h"
#include "doors/cases.h"
#include "hmm.h"
#include "unit.h"

#include <sys/wait.h>
#include <unistd.h>

/* Some hundred times what a test takes; under a sanitizer the longest takes a minute. */
enum { CHILD_SECONDS = UNIT_IS_SANITIZED ? 600 : 60 };

/* The status of a process that ran the test: 0, if all that it expected came true. Does not return
 * where it cannot run. */
static inline int status_with(const char *options, void (*run)(void))
{
    int status = -1;
    pid_t child = fork();
    if (child == 0) {
        alarm(CHILD_SECONDS);
        HmmOptions = options;
        run();
        _exit(case_status());
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    if (WIFEXITED(status) && WEXITSTATUS(status) == CASE_SKIPPED) {
        skip();
    }
    return status;
}

/* A test, and what runs in its process, by in_a_process_with. */
#define TEST_WITH(name, options)                                                                   \
    static void name##_run(void);                                                                  \
    static void name(void **state)                                                                 \
    {                                                                                              \
        (void)state;                                                                               \
        in_a_process_with(options, name##_run);                                                    \
    }                                                                                              \
    static void name##_run(void)

static inline void audit(void)
{
    const char *broken = hmm_alloc_audit();
    if (broken != NULL) {
        case_say("# %s\n", broken);
        case_fail();
    }
}

#endif
