/*
 * cmd_check.c - `hmm check`: whether the heap is whole.
 */
#include "command.h"
#include "reader.h"

#include <stdlib.h>

/* Neither whole nor broken: what was seen may have been half done. */
static void complain_undecided(const struct reader *reader, const char *text)
{
    const bool goes_on = reader_kind(reader) == READER_PROCESS;
    if (reader_is_cut(reader)) {
        command_error("%s: cannot tell what is missing from what is broken%s%s",
                      reader_name(reader), text[0] != '\0' ? ": " : "", text);
        return;
    }
    command_error("%s: cannot tell: a thread %s changing what looks broken%s%s%s",
                  reader_name(reader), goes_on ? "is" : "was", text[0] != '\0' ? ": " : "", text,
                  goes_on ? "; look again later" : "");
}

static int run_check(const struct command_line *line)
{
    struct reader *reader = reader_open(line->operands, line->is_program);
    if (reader == NULL) {
        return EXIT_TROUBLE;
    }
    char text[CHECK_TEXT_MAX];
    bool has_changed;
    int status = EXIT_TROUBLE;
    switch (reader_check(reader, text, &has_changed)) {
    case CHECK_HOLDS:
        printf("%s: every invariant holds%s\n", reader_name(reader),
               has_changed ? " (it changed while it was read)" : "");
        status = EXIT_SUCCESS;
        break;
    case CHECK_BROKEN:
        printf("%s: broken: %s\n", reader_name(reader), text);
        status = EXIT_FAILURE;
        break;
    case CHECK_UNDECIDED:
        complain_undecided(reader, text);
        break;
    case CHECK_UNREADABLE:
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
        "Checks on a copy of the heap's tables, lists and tags the invariants that the library's\n"
        "own audits check, but for seals, and names the first that is broken, and where. Exit\n"
        "status 1 if one is.\n"
        "\n"
        "A process that runs is not stopped. Its heap is looked at part by part, and a part that\n"
        "changed meanwhile again. What is seen broken counts only if it stays so while nothing\n"
        "near it changes; where that cannot be told, a line says so, and the exit status is 2.\n",
    .run = run_check,
};
