/*
 * run_options.h - the library's own options as options of subcommands: --stats-signal=USR1 for
 * stats_signal=USR1. They come from the table in options.c.
 */
#ifndef HMM_RUN_OPTIONS_H
#define HMM_RUN_OPTIONS_H

#include "command.h"

/* Appends them to `options`, behind what it has, and ends it: all but the keys that the subcommand
 * sets itself or cannot do with (ended by NULL; or NULL: there are none). A key that takes 0 or 1,
 * and is 0 else, needs no value. Before main: the table of subcommands is read there. */
void run_options_append(struct command_option options[COMMAND_OPTIONS_MAX + 1],
                        const char *const *keys_out);

/* Hands what was given to the library, by HMM_OPTIONS. false: a line has said which value it
 * would not take. */
bool run_options_pass(const struct command_option *options, const struct command_line *line);

#endif
