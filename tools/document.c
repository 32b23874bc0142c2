/*
 * document.c - the manual page, words for completion, filled text. See document.h.
 */
#include "document.h"
#include "hmm.h"
#include "options.h"

#include <string.h>

enum { COLUMNS = 80 };

void document_fill(FILE *stream, const char *text, int indent, int column)
{
    for (const char *word = text; *word != '\0';) {
        int length = (int)strcspn(word, " ");
        if (column > indent && column + 1 + length > COLUMNS) {
            fputc('\n', stream);
            column = 0;
        }
        column += column < indent ? fprintf(stream, "%*s", indent - column, "")
                                  : fprintf(stream, "%s", column > indent ? " " : "");
        column += fprintf(stream, "%.*s", length, word);
        word += length;
        word += strspn(word, " ");
    }
    fputc('\n', stream);
}

/* ------------------------------------------------------------------------------ the manual page */

/* A line of text as troff wants it: dashes that stay dashes, and no dot or quote in front. */
static void troff_text(FILE *stream, const char *text, size_t length)
{
    if (length != 0 && (text[0] == '.' || text[0] == '\'')) {
        fputs("\\&", stream);
    }
    for (size_t i = 0; i < length; i++) {
        switch (text[i]) {
        case '-':
            fputs("\\-", stream);
            break;
        case '\\':
            fputs("\\e", stream);
            break;
        default:
            fputc(text[i], stream);
        }
    }
}

static void troff_string(FILE *stream, const char *text)
{
    troff_text(stream, text, strlen(text));
}

static bool is_example(const char *line)
{
    return line[0] == ' ';
}

/* Paragraphs; lines that begin with spaces are examples, kept as they are. */
static void troff_paragraphs(FILE *stream, const char *text)
{
    bool was_example = false;
    while (*text != '\0') {
        size_t length = strcspn(text, "\n");
        if (is_example(text) != was_example) {
            was_example = !was_example;
            fputs(was_example ? ".nf\n" : ".fi\n", stream);
        }
        if (length == 0) {
            fputs(".PP", stream);
        }
        troff_text(stream, text, length);
        fputc('\n', stream);
        text += length + (text[length] == '\n');
    }
    fputs(was_example ? ".fi\n" : "", stream);
}

static void manual_option(FILE *stream, const struct command_option *option)
{
    fputs(".TP\n.B ", stream);
    if (option->letter != 0) {
        fprintf(stream, "\\-%c, ", option->letter);
    }
    fputs("\\-\\-", stream);
    troff_string(stream, option->name);
    if (option->value != NULL) {
        fputc('=', stream);
        troff_string(stream, option->value);
    }
    fputc('\n', stream);
    troff_string(stream, option->help);
    fputc('\n', stream);
}

static void manual_command(FILE *stream, const struct command *command)
{
    fputs(".SS hmm ", stream);
    troff_string(stream, command->name);
    fputs(command->options != NULL ? " [OPTION...] " : " ", stream);
    troff_string(stream, command->operands);
    fputc('\n', stream);
    troff_paragraphs(stream, command->description);
    for (const struct command_option *option = command->options;
         option != NULL && option->name != NULL; option++) {
        manual_option(stream, option);
    }
}

static void manual_library_options(FILE *stream)
{
    size_t row_count;
    const struct option_row *rows = hmm_option_rows(&row_count);
    fputs(".SH ENVIRONMENT\n.TP\n.B HMM_OPTIONS\n"
          "Options of the library, \"key=value,key=value\":\n.RS\n",
          stream);
    for (size_t row = 0; row < row_count; row++) {
        fputs(".TP\n.B ", stream);
        troff_string(stream, rows[row].name);
        fputc('=', stream);
        troff_string(stream, rows[row].values);
        fputs(" \\fR(", stream);
        troff_string(stream, rows[row].preset);
        fputs(")\n", stream);
        troff_string(stream, rows[row].help);
        fputc('\n', stream);
    }
    fputs(".RE\n", stream);
}

void document_manual(FILE *stream, const struct command *const *commands, size_t count)
{
    fputs(".TH HMM 1 \"\" \"HMM " HMM_VERSION "\" \"User commands\"\n"
          ".SH NAME\nhmm \\- runs programs on the HMM heap, and shows their heaps\n"
          ".SH SYNOPSIS\n.B hmm\n.I COMMAND\n[OPTION...] [OPERAND...]\n"
          ".SH COMMANDS\n",
          stream);
    for (size_t i = 0; i < count; i++) {
        manual_command(stream, commands[i]);
    }
    manual_library_options(stream);
    fputs(".SH EXIT STATUS\n2 after a mistake in the command line, of which one line on standard "
          "error "
          "tells; 1 when output could not be written; else as said above.\n"
          ".SH SEE ALSO\n.BR hmm (3),\n.BR malloc (3)\n",
          stream);
}

/* ----------------------------------------------------------------------------------- completion */

void document_names(FILE *stream, const struct command *const *commands, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        fprintf(stream, "%s\n", commands[i]->name);
    }
}

void document_options(FILE *stream, const struct command *command)
{
    for (const struct command_option *option = command->options;
         option != NULL && option->name != NULL; option++) {
        fprintf(stream, "--%s%s\n", option->name, option->value != NULL ? "=" : "");
    }
}
