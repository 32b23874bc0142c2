/*
 * cmd_leaks.c - `hmm leaks`: what a program never freed, by where it was allocated.
 *
 * The library finds the leaks, at the program's exit, and writes its report to a file that the
 * program and its children inherit; here addresses become functions and lines.
 */
#include "command.h"
#include "launch.h"
#include "run_options.h"
#include "symbols.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
    EXIT_LEAKS = 23, /* LeakSanitizer's */
    LINE_BYTES_MAX = 8192,
    /* A number that programs do not use for files of their own. */
    REPORT_DESCRIPTOR = 1023,
};

static struct command_option options[COMMAND_OPTIONS_MAX + 1] = {
    {.name = "reachable", .help = "also what was never freed, but could still have been"},
    {.name = "exit-status", .value = "N", .help = "the exit status when there are leaks (23)"},
};

enum { OPTION_REACHABLE, OPTION_EXIT_STATUS };

__attribute__((constructor)) static void options_complete(void)
{
    /* The fast engine looks for leaks, and no other. */
    static const char *const keys_out[] = {"leaks", "engine", "fit", "region", NULL};
    run_options_append(options, keys_out);
}

/* -------------------------------------------------------------------------------------- running */

/* The same file at a number that is as far away from those that programs use as the limit of their
 * files allows. -1: there is none. */
static int report_move(int file)
{
    int report = -1;
    for (int number = REPORT_DESCRIPTOR; report < 0 && number > STDERR_FILENO; number--) {
        report = fcntl(file, F_DUPFD, number);
    }
    return report;
}

/* A file without a name, at a number that stays. -1: a line has said why not. */
static int report_open(void)
{
    FILE *file = tmpfile();
    if (file == NULL) {
        command_error("temporary file: %s", strerror(errno));
        return -1;
    }
    bool is_appended_to = fcntl(fileno(file), F_SETFL, O_APPEND) == 0;
    int report = is_appended_to ? report_move(fileno(file)) : -1;
    if (report < 0) {
        command_error("temporary file: %s", strerror(errno));
    }
    fclose(file);
    return report;
}

/* How the program came to its end. */
struct ending {
    pid_t process_id;
    int wait_status; /* as from waitpid */
    bool is_started; /* false: a line has said why not */
};

static void child_run(char *const *arguments, int failure_file)
{
    const int status = program_become(arguments);
    (void)!write(failure_file, &status, sizeof status);
    _exit(status);
}

/* A status like that of a program that could not be started may be the program's own; the pipe
 * tells. */
static struct ending run_to_end(char *const *arguments)
{
    struct ending ending = {.wait_status = EXIT_TROUBLE << CHAR_BIT};
    int failure[2];
    int status;
    if (pipe2(failure, O_CLOEXEC) != 0) {
        command_error("%s", strerror(errno));
        return ending;
    }
    ending.process_id = program_fork();
    if (ending.process_id == 0) {
        child_run(arguments, failure[1]);
    }
    close(failure[1]);
    if (ending.process_id > 0) {
        while (waitpid(ending.process_id, &ending.wait_status, 0) < 0 && errno == EINTR) {
        }
        program_ended();
        ending.is_started = read(failure[0], &status, sizeof status) == 0;
    } else {
        command_error("%s", strerror(errno));
    }
    close(failure[0]);
    return ending;
}

/* ----------------------------------------------------------------------------------- the report */

/* "    #N 0xADDRESS (MODULE+0xOFFSET)": the module and the offset in it. */
static bool frame_parse(char *line, char **address_end, char **module, uintptr_t *offset)
{
    char *open = strstr(line, " (");
    char *plus = open != NULL ? strrchr(open, '+') : NULL;
    if (strncmp(line, "    #", strlen("    #")) != 0 || plus == NULL) {
        return false;
    }
    *address_end = open;
    *module = open + strlen(" (");
    *offset = strtoull(plus + 1, NULL, 16);
    *plus = '\0';
    return true;
}

static void frame_print(FILE *stream, char *line)
{
    char *address_end;
    char *module;
    uintptr_t offset;
    if (!frame_parse(line, &address_end, &module, &offset)) {
        fputs(line, stream);
        return;
    }
    fprintf(stream, "%.*s", (int)(address_end - line), line);
    symbols_print(stream, module, offset);
}

struct outcome {
    size_t report_count; /* processes that came to their end */
    size_t leak_count;
    bool has_own; /* the program itself is among them */
};

/* The line that begins a process's report, and is for us alone. */
static bool line_names(const char *line, pid_t *process_id)
{
    int length = 0;
    return sscanf(line, "==%d==HMM: looked for leaks%n", process_id, &length) == 1 && length != 0;
}

static void line_print(FILE *stream, char *line, bool *is_shown, bool with_reachable,
                       struct outcome *outcome)
{
    size_t bytes;
    size_t count;
    if (sscanf(line, "SUMMARY: HMM: %zu byte(s) leaked in %zu allocation(s).", &bytes, &count) ==
        2) {
        outcome->report_count++;
        outcome->leak_count += count;
        *is_shown = true;
    } else if (strstr(line, " byte(s) in ") != NULL) {
        *is_shown = with_reachable || strncmp(line, "Still", strlen("Still")) != 0;
    }
    if (*is_shown) {
        frame_print(stream, line);
    }
    *is_shown = *is_shown || line[0] == '\n';
}

static struct outcome report_print(int report, pid_t program, bool with_reachable)
{
    char line[LINE_BYTES_MAX];
    struct outcome outcome = {0};
    pid_t process_id;
    bool is_shown = true;
    FILE *file = fdopen(report, "r");
    if (file == NULL) {
        return outcome;
    }
    rewind(file);
    while (fgets(line, sizeof line, file) != NULL) {
        if (line_names(line, &process_id)) {
            outcome.has_own |= process_id == program;
        } else {
            line_print(stderr, line, &is_shown, with_reachable, &outcome);
        }
    }
    fclose(file);
    return outcome;
}

/* The program came to no orderly end on HMM, though others may have: why not. */
static void complain_no_report(const char *program, int wait_status)
{
    if (WIFSIGNALED(wait_status)) {
        command_error(
            "no report: %s was killed by signal %d (%s), which leaves no time to look for "
            "leaks",
            program, WTERMSIG(wait_status), strsignal(WTERMSIG(wait_status)));
    } else {
        command_error("no report: %s ended by _exit or quick_exit, or closed the report's file, or "
                      "did not run on the fast engine of HMM (limit=32M at least); "
                      "hmm doctor -- %s tells which allocator it has",
                      program, program);
    }
}

static bool status_parse(const char *text, int *status)
{
    char *end;
    long value = strtol(text, &end, 10);
    *status = (int)value;
    return *text != '\0' && *end == '\0' && value >= 0 && value <= UINT8_MAX;
}

static int leaks_run(const struct command_line *line)
{
    int status_of_leaks = EXIT_LEAKS;
    char number[16];
    if (!line->is_program || line->operand_count == 0) {
        return COMMAND_TROUBLE("wants -- and a program");
    }
    if (line->options[OPTION_EXIT_STATUS] != NULL &&
        !status_parse(line->options[OPTION_EXIT_STATUS], &status_of_leaks)) {
        return COMMAND_TROUBLE("--exit-status wants a number up to 255");
    }
    if (!command_has_proc()) {
        return EXIT_TROUBLE;
    }
    int report = report_open();
    if (report < 0 || !library_preload() || !run_options_pass(options, line)) {
        return EXIT_TROUBLE;
    }
    snprintf(number, sizeof number, "%d", report);
    library_option("engine", "fast");
    library_option("region", "reserve");
    library_option("leaks", number);
    struct ending ending = run_to_end(line->operands);
    const int status = shell_status(ending.wait_status);
    if (!ending.is_started) {
        return status;
    }
    struct outcome outcome =
        report_print(report, ending.process_id, line->options[OPTION_REACHABLE] != NULL);
    if (!outcome.has_own) {
        complain_no_report(line->operands[0], ending.wait_status);
    }
    if (outcome.leak_count != 0) {
        return status_of_leaks;
    }
    bool is_silent = outcome.report_count == 0 && !WIFSIGNALED(ending.wait_status);
    return is_silent ? EXIT_TROUBLE : status;
}

const struct command command_leaks = {
    .name = "leaks",
    .operands = "-- PROGRAM [ARGUMENT...]",
    .summary = "what a program never freed, by where it was allocated",
    .description =
        "Runs the program on HMM and looks, when it exits, for blocks that nothing in the\n"
        "process points to any more: data, stacks, registers and blocks that are\n"
        "themselves reachable. Each is reported with the call stack that allocated it, as\n"
        "LeakSanitizer does, but without compiling the program anew. An indirect leak is\n"
        "reachable from another leak only.\n"
        "\n"
        "Functions and lines come from the debug information of the modules (cc -g), by\n"
        "elfutils. Processes that the program starts report as well.\n"
        "\n"
        "A program that is killed by a signal or calls _exit has no report, and a line says so,\n"
        "also where processes that it started have one.\n"
        "\n"
        "The exit status is 23 when there are leaks, else the program's (128 and the number of a\n"
        "signal that killed it); 2 when there was no report.\n",
    .options = options,
    .run = leaks_run,
};
