/*
 * hmm.c - the command: finds the subcommand, reads its options, and runs it.
 *
 * Each subcommand is a row in a file of its own, cmd_NAME.c; what it says about itself is printed
 * from that row. The three that are about the library alone stand here.
 */
#include "command.h"
#include "document.h"
#include "hmm.h"
#include "options.h"

#include <stdlib.h>
#include <string.h>

/* clang-format off */
extern const struct command command_run;
extern const struct command command_stat;
extern const struct command command_explain;
extern const struct command command_check;
extern const struct command command_where;
extern const struct command command_map;
extern const struct command command_top;
extern const struct command command_leaks;
extern const struct command command_doctor;
/* clang-format on */

static const struct command command_options, command_version, command_help;

/* One line each. The order is that of the help. */
/* clang-format off */
static const struct command *const commands[] = {
    &command_run,
    &command_stat,
    &command_explain,
    &command_check,
    &command_where,
    &command_map,
    &command_top,
    &command_leaks,
    &command_doctor,
    &command_options,
    &command_version,
    &command_help,
};
/* clang-format on */

enum { COMMAND_COUNT = sizeof commands / sizeof commands[0] };

const char *command_name = "";

static const struct command *command_find(const char *name)
{
    for (size_t i = 0; i < COMMAND_COUNT; i++) {
        if (strcmp(commands[i]->name, name) == 0) {
            return commands[i];
        }
    }
    return NULL;
}

/* ------------------------------------------------------------------------------------- the help */

static void print_usage(FILE *stream)
{
    fputs("usage: hmm COMMAND [OPTION...] [OPERAND...]\n\n", stream);
    for (size_t i = 0; i < COMMAND_COUNT; i++) {
        fprintf(stream, "  %-9s %s\n", commands[i]->name, commands[i]->summary);
    }
    fputs("\nhmm help COMMAND says more about each.\n", stream);
}

static void print_option(const struct command_option *option)
{
    enum { HELP_COLUMN = 25 };
    char flag[64];
    char letter[4] = {'-', option->letter, ',', '\0'};
    snprintf(flag, sizeof flag, "%s --%s%s%s", option->letter != 0 ? letter : "   ", option->name,
             option->value != NULL ? "=" : "", option->value != NULL ? option->value : "");
    int column = printf("  %-22s", flag);
    if (column >= HELP_COLUMN) {
        putchar('\n');
        column = 0;
    }
    document_fill(stdout, option->help, HELP_COLUMN, column);
}

static void print_command(const struct command *command)
{
    const bool has_options = command->options != NULL && command->options[0].name != NULL;
    printf("usage: hmm %s%s%s%s\n\n%s\n", command->name, has_options ? " [OPTION...]" : "",
           command->operands[0] != '\0' ? " " : "", command->operands, command->description);
    for (size_t i = 0; has_options && command->options[i].name != NULL; i++) {
        print_option(&command->options[i]);
    }
}

/* ---------------------------------------------------------------------------------- the options */

/* The option that `text`, without its dashes, begins with; *value: behind its `=`, or
 * NULL. -1: none. */
static int option_find(const struct command_option *options, const char *text, const char **value)
{
    size_t length = strcspn(text, "=");
    *value = text[length] == '=' ? text + length + 1 : NULL;
    for (int i = 0; options != NULL && options[i].name != NULL; i++) {
        if (strlen(options[i].name) == length && memcmp(options[i].name, text, length) == 0) {
            return i;
        }
    }
    return -1;
}

/* As `-oVALUE` or `-o VALUE`. */
static int letter_find(const struct command_option *options, const char *text, const char **value)
{
    for (int i = 0; options != NULL && options[i].name != NULL; i++) {
        if (options[i].letter != 0 && options[i].letter == text[0]) {
            *value = text[1] != '\0' ? text + 1 : NULL;
            return i;
        }
    }
    return -1;
}

/* Options may stand anywhere before `--`. false: a line has said what is wrong. */
static bool line_parse(const struct command *command, char **arguments, struct command_line *line)
{
    char **kept = arguments;
    line->operands = arguments;
    for (; *arguments != NULL && strcmp(*arguments, "--") != 0; arguments++) {
        const char *text = *arguments;
        if (text[0] != '-' || text[1] == '\0') {
            *kept++ = *arguments;
            continue;
        }
        const char *value;
        int option = text[1] == '-' ? option_find(command->options, text + 2, &value)
                                    : letter_find(command->options, text + 1, &value);
        if (option < 0) {
            command_error("there is no option %s; see hmm help %s", text, command->name);
            return false;
        }
        bool wants_value = command->options[option].value != NULL;
        if (wants_value && value == NULL && arguments[1] != NULL &&
            strcmp(arguments[1], "--") != 0) {
            value = *++arguments;
        }
        if (wants_value != (value != NULL)) {
            command_error("--%s %s", command->options[option].name,
                          wants_value ? "wants a value" : "takes no value");
            return false;
        }
        line->options[option] = value != NULL ? value : "";
    }
    if (*arguments != NULL && kept == line->operands) {
        line->is_program = true;
        line->operands = arguments + 1;
    } else {
        if (*arguments != NULL) {
            command_error("what stands before -- is not wanted: %s", line->operands[0]);
            return false;
        }
        *kept = NULL;
    }
    while (line->operands[line->operand_count] != NULL) {
        line->operand_count++;
    }
    return true;
}

/* -------------------------------------------------------------------- options, version and help */

static int run_options(const struct command_line *line)
{
    if (line->operand_count != 0) {
        return COMMAND_TROUBLE("takes no operands");
    }
    size_t row_count;
    const struct option_row *rows = hmm_option_rows(&row_count);
    puts("HMM_OPTIONS=\"key=value,key=value\"");
    for (size_t row = 0; row < row_count; row++) {
        printf("  %s=%s (default %s)\n      %s\n", rows[row].name, rows[row].values,
               rows[row].preset, rows[row].help);
    }
    return command_finish(stdout);
}

static const struct command command_options = {
    .name = "options",
    .operands = "",
    .summary = "every key of HMM_OPTIONS, its values, its default and what it does",
    .description = "Prints what the environment variable HMM_OPTIONS can say to the library.\n",
    .run = run_options,
};

static int run_version(const struct command_line *line)
{
    if (line->operand_count != 0) {
        return COMMAND_TROUBLE("takes no operands");
    }
    puts("hmm " HMM_VERSION);
    return command_finish(stdout);
}

static const struct command command_version = {
    .name = "version",
    .operands = "",
    .summary = "the version of the library",
    .description = "Prints the version of the command and of the library that came with it.\n",
    .run = run_version,
};

static const struct command_option help_options[] = {
    {.name = "man", .help = "the manual page hmm(1), for man or troff"},
    {.name = "words", .help = "the commands, or one's options, a word a line: for completion"},
    {0},
};

enum { OPTION_MAN, OPTION_WORDS };

static int run_help(const struct command_line *line)
{
    if (line->operand_count > 1) {
        return COMMAND_TROUBLE("wants one command");
    }
    const char *name = line->operands[0];
    const struct command *command = name != NULL ? command_find(name) : NULL;
    if (name != NULL && command == NULL) {
        return COMMAND_TROUBLE("there is no command %s", name);
    }
    if (line->options[OPTION_MAN] != NULL) {
        document_manual(stdout, commands, COMMAND_COUNT);
    } else if (line->options[OPTION_WORDS] != NULL && command == NULL) {
        document_names(stdout, commands, COMMAND_COUNT);
    } else if (line->options[OPTION_WORDS] != NULL) {
        document_options(stdout, command);
    } else if (command == NULL) {
        print_usage(stdout);
    } else {
        print_command(command);
    }
    return command_finish(stdout);
}

static const struct command command_help = {
    .name = "help",
    .operands = "[COMMAND]",
    .summary = "this text, or what there is to say about one command",
    .description = "Without a command, a list of all.\n",
    .options = help_options,
    .run = run_help,
};

int main(int argc, char **argv)
{
    const char *name = argc > 1 ? argv[1] : "";
    if (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0) {
        name = "help";
    } else if (strcmp(name, "--version") == 0) {
        name = "version";
    }
    const struct command *command = command_find(name);
    if (command == NULL) {
        fprintf(stderr, "hmm: %s%s; hmm help lists the commands\n",
                argc > 1 ? "there is no command " : "wants a command", name);
        return EXIT_TROUBLE;
    }
    command_name = command->name;
    if (argc > 2 && strcmp(argv[2], "--help") == 0) {
        print_command(command);
        return command_finish(stdout);
    }
    struct command_line line = {0};
    return line_parse(command, argv + 2, &line) ? command->run(&line) : EXIT_TROUBLE;
}
