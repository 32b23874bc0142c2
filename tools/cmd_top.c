/*
 * cmd_top.c - `hmm top`: a live screen of a process's heap.
 */
#include "top.h"

#include <errno.h>
#include <stdlib.h>

enum { INTERVAL_MS_DEFAULT = 1000, INTERVAL_MS_MIN = 50, INTERVAL_MS_MAX = 3600 * 1000 };
enum { OPTION_INTERVAL };

static const struct command_option top_options[] = {
    [OPTION_INTERVAL] = {.name = "interval",
                         .value = "SECONDS",
                         .letter = 'i',
                         .help = "between two samples (1), 0.05 at least"},
    {.name = NULL},
};

/* 0: not a time that can be waited for. */
static int interval_parse(const char *text)
{
    const double ms_per_second = 1000;
    char *end;
    errno = 0;
    double ms = strtod(text, &end) * ms_per_second;
    bool is_good =
        errno == 0 && end != text && *end == '\0' && ms >= INTERVAL_MS_MIN && ms <= INTERVAL_MS_MAX;
    return is_good ? (int)ms : 0;
}

static int run_top(const struct command_line *line)
{
    const char *interval = line->options[OPTION_INTERVAL];
    int interval_ms = interval != NULL ? interval_parse(interval) : INTERVAL_MS_DEFAULT;
    if (interval_ms == 0) {
        return COMMAND_TROUBLE("--interval wants from 0.05 to 3600 seconds, not %s", interval);
    }
    if (line->is_program || line->operand_count != 1) {
        return COMMAND_TROUBLE("wants a process id");
    }
    if (!top_screen_can_open()) {
        return EXIT_TROUBLE;
    }
    struct reader *reader = reader_open(line->operands, false);
    if (reader == NULL) {
        return EXIT_TROUBLE;
    }
    struct top *top = calloc(1, sizeof *top);
    int status = EXIT_TROUBLE;
    if (top == NULL) {
        command_error("no memory");
    } else if (reader_kind(reader) != READER_PROCESS) {
        status = COMMAND_TROUBLE("wants a process id; %s is a core, which does not change",
                                 line->operands[0]);
    } else {
        status = top_screen_run(reader, top, interval_ms);
        top_end(top);
    }
    free(top);
    reader_close(reader);
    return status;
}

const struct command command_top = {
    .name = "top",
    .operands = "PID",
    .summary = "a live screen: memory over time, calls a second, classes, threads",
    .description =
        "Samples the heap of a running process, which is never stopped, and shows it on the\n"
        "terminal. Calls a second are blocks handed out: slots are counted as they are put\n"
        "into threads' bins, medium blocks as they are placed.\n"
        "Keys: q quits, s sorts, t threads or classes, p or space pauses, + and - change\n"
        "the interval, h says all this.\n",
    .options = top_options,
    .run = run_top,
};
