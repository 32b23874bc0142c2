/*
 * cmd_doctor.c - `hmm doctor`: whether HMM can do its work here, and for a program.
 */
#include "command.h"
#include "doctor.h"
#include "launch.h"

#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

enum { ADVICE_MAX = 16 };

static char *advice[ADVICE_MAX];
static size_t advice_count;

void finding(const char *name, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    printf("  %-14s ", name);
    vprintf(format, arguments);
    putchar('\n');
    va_end(arguments);
}

void advise(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    if (advice_count < ADVICE_MAX && vasprintf(&advice[advice_count], format, arguments) >= 0) {
        advice_count++;
    }
    va_end(arguments);
}

static void print_advice(void)
{
    for (size_t i = 0; i < advice_count; i++) {
        printf("advice: %s\n", advice[i]);
        free(advice[i]);
    }
    advice_count = 0;
}

static const char *verdict_text(enum program_verdict verdict)
{
    switch (verdict) {
    case PROGRAM_RUNS:
        return "runs on HMM";
    case PROGRAM_IS_OURS:
        return "has HMM linked in";
    case PROGRAM_MIXED:
        return "runs on HMM in part";
    default:
        return "does not run on HMM";
    }
}

static int doctor_run(const struct command_line *line)
{
    if (line->operand_count != 0 && !line->is_program) {
        return COMMAND_TROUBLE("wants -- before the program");
    }
    const char *program = line->operand_count != 0 ? line->operands[0] : NULL;
    char path[LAUNCH_PATH_BYTES];
    if (program != NULL && !program_find(program, path)) {
        return COMMAND_TROUBLE("%s: %s", program,
                               errno == ENOENT ? "there is no such program" : strerror(errno));
    }
    if (!command_has_proc()) {
        return EXIT_TROUBLE;
    }
    enum program_verdict verdict = PROGRAM_RUNS;
    puts("this machine");
    machine_examine();
    bool has_library = library_find(path);
    finding("library", "%s", has_library ? path : "none beside this command");
    if (program != NULL) {
        printf("%s\n", program);
        verdict = program_examine(program);
    }
    bool is_good = has_library && (verdict == PROGRAM_RUNS || verdict == PROGRAM_IS_OURS);
    if (!has_library) {
        printf("verdict: there is no library to run programs on\n");
    } else if (program != NULL) {
        printf("verdict: %s %s\n", program, verdict_text(verdict));
    } else {
        printf("verdict: programs can run on HMM here\n");
    }
    print_advice();
    int status = command_finish(stdout);
    return status != EXIT_SUCCESS ? status : is_good ? EXIT_SUCCESS : EXIT_FAILURE;
}

const struct command command_doctor = {
    .name = "doctor",
    .operands = "[-- PROGRAM]",
    .summary = "whether HMM can do its work here, and for a program",
    .description =
        "Prints what of the machine matters to a heap: page size, address space, huge\n"
        "pages, overcommit, limits, cgroup. With a program, also what becomes of its\n"
        "malloc when it is started on the library: whether the loader may preload it\n"
        "(not into static and set-uid programs), whether the program has an allocator of\n"
        "its own, and to which module each call resolves. The loader binds the symbols;\n"
        "nothing of the program is executed.\n"
        "\n"
        "The exit status is 0 when all is well, 1 when not.\n",
    .options = NULL,
    .run = doctor_run,
};
