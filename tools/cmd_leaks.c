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
#include <signal.h>
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
    REPORT_DESCRIPTOR_LOW = 200,
};

static struct command_option options[COMMAND_OPTIONS_MAX + 1] = {
    {.name = "reachable", .help = "also what was never freed, but could still have been"},
    {.name = "exit-status", .value = "N", .help = "the exit status when there are leaks (23)"},
};

enum { OPTION_REACHABLE, OPTION_EXIT_STATUS };

__attribute__((constructor)) static void options_complete(void)
{
    run_options_append(options);
}

/* ------------------------------------------------------------------------------------ running */

/* A file without a name, at a number that stays. -1: a line has said why not. */
static int report_open(void)
{
    FILE *file = tmpfile();
    if (file == NULL) {
        command_error("temporary file: %s", strerror(errno));
        return -1;
    }
    int appending = fcntl(fileno(file), F_SETFL, O_APPEND);
    int report = fcntl(fileno(file), F_DUPFD, REPORT_DESCRIPTOR);
    report = report >= 0 ? report : fcntl(fileno(file), F_DUPFD, REPORT_DESCRIPTOR_LOW);
    if (report < 0 || appending < 0) {
        command_error("temporary file: %s", strerror(errno));
    }
    fclose(file);
    return report;
}

/* Ctrl-C is for the program; what it says at its end is still wanted. Its status,
 * as from waitpid. */
static int run_to_end(char *const *arguments)
{
    pid_t child = fork();
    if (child == 0) {
        _exit(program_become(arguments));
    }
    signal(SIGINT, SIG_IGN);
    signal(SIGQUIT, SIG_IGN);
    int status = 0;
    while (child > 0 && waitpid(child, &status, 0) < 0 && errno == EINTR) {
    }
    if (child < 0) {
        command_error("%s", strerror(errno));
    }
    return child > 0 ? status : EXIT_FAILURE << CHAR_BIT;
}

/* ---------------------------------------------------------------------------------- the report */

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
    struct place place = symbols_find(module, offset);
    fprintf(stream, "%.*s", (int)(address_end - line), line);
    if (place.function != NULL) {
        fprintf(stream, " in %s", place.function);
    }
    if (place.file != NULL) {
        fprintf(stream, " %s:%d\n", place.file, place.line);
    } else {
        fprintf(stream, " (%s+0x%zx)\n", module, (size_t)offset);
    }
}

struct outcome {
    size_t report_count; /* processes that came to their end */
    size_t leak_count;
};

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

static struct outcome report_print(int report, bool with_reachable)
{
    char line[LINE_BYTES_MAX];
    struct outcome outcome = {0, 0};
    bool is_shown = true;
    FILE *file = fdopen(report, "r");
    if (file == NULL) {
        return outcome;
    }
    rewind(file);
    while (fgets(line, sizeof line, file) != NULL) {
        line_print(stderr, line, &is_shown, with_reachable, &outcome);
    }
    fclose(file);
    return outcome;
}

/* No process came to an orderly end on HMM: why not. The exit status. */
static int complain_no_report(const char *program, int wait_status)
{
    const int status = shell_status(wait_status);
    if (WIFSIGNALED(wait_status)) {
        command_error(
            "no report: %s was killed by signal %d (%s), which leaves no time to look for "
            "leaks",
            program, WTERMSIG(wait_status), strsignal(WTERMSIG(wait_status)));
        return status;
    }
    /* That it could not be started was said already. */
    if (status != EXIT_NOT_EXECUTABLE && status != EXIT_NOT_FOUND) {
        command_error("no report: %s ended by _exit, or did not run on the fast engine of HMM; "
                      "hmm doctor -- %s tells which allocator it has",
                      program, program);
        return EXIT_USAGE;
    }
    return status;
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
        return COMMAND_USAGE("wants -- and a program");
    }
    if (line->options[OPTION_EXIT_STATUS] != NULL &&
        !status_parse(line->options[OPTION_EXIT_STATUS], &status_of_leaks)) {
        return COMMAND_USAGE("--exit-status wants a number up to 255");
    }
    int report = report_open();
    if (report < 0 || !library_preload() || !run_options_pass(options, line)) {
        return EXIT_USAGE;
    }
    snprintf(number, sizeof number, "%d", report);
    library_option("leaks", number);
    int wait_status = run_to_end(line->operands);
    struct outcome outcome = report_print(report, line->options[OPTION_REACHABLE] != NULL);
    if (outcome.report_count == 0) {
        return complain_no_report(line->operands[0], wait_status);
    }
    return outcome.leak_count != 0 ? status_of_leaks : shell_status(wait_status);
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
        "A program that is killed by a signal or calls _exit has no report, and a line says so.\n"
        "\n"
        "The exit status is 23 when there are leaks, else the program's (128 and the number of a\n"
        "signal that killed it); 2 when there was no report.\n",
    .options = options,
    .run = leaks_run,
};
