/*
 * cmd_check.c - `hmm check`: whether the heap is whole.
 */
#include "command.h"
#include "reader.h"

#include <stdlib.h>

static int run_check(const struct command_line *line)
{
    struct reader *reader = reader_open(line->operands, line->is_program);
    if (reader == NULL) {
        return EXIT_USAGE;
    }
    char text[CHECK_TEXT_MAX] = "";
    bool has_changed = false;
    int status = EXIT_SUCCESS;
    const char *mark = "";
    switch (reader_check(reader, text, &has_changed)) {
    case CHECK_HOLDS:
        mark = has_changed ? " (it changed while it was read)" : "";
        printf("%s: every invariant holds%s\n", reader_name(reader), mark);
        break;
    case CHECK_BROKEN:
        printf("%s: broken: %s\n", reader_name(reader), text);
        status = EXIT_FAILURE;
        break;
    case CHECK_UNDECIDED:
        printf("%s: changes too busily to tell; no invariant was seen broken twice\n",
               reader_name(reader));
        break;
    case CHECK_UNREADABLE:
        status = EXIT_USAGE;
        break;
    }
    (void)reader_close(reader);
    int finished = command_finish(stdout);
    return status != EXIT_SUCCESS ? status : finished;
}

const struct command command_check = {
    .name = "check",
    .operands = "PID|CORE|-- PROGRAM [ARGUMENT...]",
    .summary = "whether the heap is whole: every invariant, from outside",
    .description =
        "Checks on a copy of the heap's tables, lists and tags every invariant that the\n"
        "library's own audits check, and names the first that is broken, and where. Exit status\n"
        "1 if one is. A process that runs is not stopped; what is seen broken in it counts only\n"
        "if each of five looks sees the same.\n",
    .run = run_check,
};
