/*
 * command.h - what a subcommand of `hmm` is: one table row, in a file of its own.
 *
 * The row holds all that is said about the subcommand: `hmm help NAME` prints it, and manual pages
 * and completions can be made from it. A new subcommand is a file cmd_NAME.c with its row, and a
 * line in the list of hmm.c.
 */
#ifndef HMM_COMMAND_H
#define HMM_COMMAND_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

enum {
    /* A person's mistake, or nothing could be read, told or written: a line on standard error says
     * what. 1 is for those who have found something wrong in the target. */
    EXIT_TROUBLE = 2,
    COMMAND_OPTIONS_MAX = 32,
};

/* `--name` or `--name=VALUE`; `-o VALUE` where there is a letter. */
struct command_option {
    const char *name;  /* without dashes; NULL ends the table */
    const char *value; /* what stands for its value in the help; NULL: it has none */
    const char *help;
    char letter; /* a short form, 0: none */
};

/* What was given. */
struct command_line {
    /* By the option's place in the table: its value, "" for one without, NULL: not given. */
    const char *options[COMMAND_OPTIONS_MAX];
    char **operands; /* ended by NULL */
    int operand_count;
    bool is_program; /* the operands stood behind `--`: a program and its arguments */
};

struct command {
    const char *name;
    const char *operands;    /* "PID|CORE|-- PROGRAM [ARGUMENT...]" */
    const char *summary;     /* one line, no full stop */
    const char *description; /* paragraphs, broken at 80 columns; ends in a newline */
    const struct command_option *options;
    int (*run)(const struct command_line *line); /* returns the exit status */
};

/* Makes every byte that is not text in UTF-8, or that a terminal obeys, a question mark. For names
 * that others have chosen, where they come in. Returns `text`. */
char *text_clean(char *text);

/* Prints "hmm NAME: MESSAGE" and a newline on standard error. NAME is the running subcommand's. The
 * message is cleaned. */
__attribute__((format(printf, 1, 2))) void command_error(const char *format, ...);

/* For `return`: the same, and EXIT_TROUBLE. */
#define COMMAND_TROUBLE(...) (command_error(__VA_ARGS__), EXIT_TROUBLE)

/* Whether the kernel's files about processes are there. false: a line says that they are not. */
bool command_has_proc(void);

/* false: output has been lost, and command_finish will say why. */
bool command_flush(FILE *stream);

/* Flushes the stream: output that nobody got is a failure. The exit status. */
int command_finish(FILE *stream);

/* Before a program is run whose output it is to be: whether -o names what can be written. Nothing
 * is opened or made. false: a line says why not. */
bool command_output_check(const char *path);

/* The stream that -o names; NULL or "-": standard output. NULL: a line says why not. */
FILE *command_output(const char *path);

/* What follows the last slash. */
const char *base_name(const char *path);

/* Whether a file's name is that of one of our shared libraries. */
bool is_library_path(const char *path);

/* "12.3 MiB" and the like, into `text`, which is returned. */
enum { BYTES_TEXT_MAX = 32 };
const char *bytes_text(char text[BYTES_TEXT_MAX], size_t bytes);

/* "1.2 M", "340": in thousands. */
const char *count_text(char text[BYTES_TEXT_MAX], double count);

/* 0 of nothing. */
double share_percent(size_t part, size_t whole);

/* A JSON string, quotes and all. */
void json_string(FILE *stream, const char *text);

#endif
