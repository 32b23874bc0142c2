/*
 * document.h - the manual page and the words for completion, from the rows of the subcommands and
 * the table of options: what `hmm help` prints, in other forms.
 */
#ifndef HMM_DOCUMENT_H
#define HMM_DOCUMENT_H

#include "command.h"

/* hmm(1), in troff's man macros. */
void document_manual(FILE *stream, const struct command *const *commands, size_t count);

/* One a line: the subcommands' names; or one's options, "--name=" where a value follows. */
void document_names(FILE *stream, const struct command *const *commands, size_t count);
void document_options(FILE *stream, const struct command *command);

/* Text filled to 80 columns, each line behind so many spaces; `column`: where the
 * first one begins. */
void document_fill(FILE *stream, const char *text, int indent, int column);

#endif
