/*
 * cmd_run.c - `hmm run`: a program on the library beside the command.
 */
#include "command.h"
#include "launch.h"
#include "reader.h"
#include "run_options.h"

static struct command_option options[COMMAND_OPTIONS_MAX + 1] = {
    {.name = "report", .help = "when it ends: where its memory went, as hmm explain tells"},
};

enum { OPTION_REPORT };

__attribute__((constructor)) static void options_complete(void)
{
    run_options_append(options, NULL);
}

/* The program is held at its end, and let go when it was looked at. */
static int run_with_report(const struct command_line *line)
{
    char path[LAUNCH_PATH_BYTES];
    if (!program_find(line->operands[0], path)) {
        return program_become(line->operands);
    }
    int wait_status;
    struct reader *reader = reader_run(line->operands, &wait_status);
    if (reader == NULL) {
        return shell_status(wait_status);
    }
    struct snapshot *snapshot = reader_read(reader, READ_PAGES | READ_BLOCKS);
    if (snapshot != NULL) {
        explain_print(stderr, reader, snapshot);
        snapshot_free(snapshot);
    }
    return shell_status(reader_close(reader));
}

static int run_run(const struct command_line *line)
{
    if (!line->is_program || line->operand_count == 0) {
        return COMMAND_TROUBLE("wants -- and a program");
    }
    if (!run_options_pass(options, line)) {
        return EXIT_TROUBLE;
    }
    if (line->options[OPTION_REPORT] != NULL) {
        return run_with_report(line);
    }
    return library_preload() ? program_become(line->operands) : EXIT_TROUBLE;
}

const struct command command_run = {
    .name = "run",
    .operands = "-- PROGRAM [ARGUMENT...]",
    .summary = "runs a program on HMM, with the library's options as flags",
    .description =
        "Runs the program with the library beside this command in LD_PRELOAD. The flags\n"
        "are the keys of HMM_OPTIONS and win over what that variable says.\n"
        "\n"
        "The exit status is the program's: 128 and the number of a signal that killed it,\n"
        "126 and 127 when it could not be started, 2 for a mistake in this command line.\n"
        "\n"
        "    hmm run --report -- python3 program.py\n"
        "    hmm run --backtrace --purge=peak -- ./server\n",
    .options = options,
    .run = run_run,
};
