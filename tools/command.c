/*
 * command.c - what subcommands share: errors, output, amounts for people. See command.h.
 */
#include "command.h"

#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

/* The running subcommand, for errors; hmm.c sets it. */
extern const char *command_name;

void command_error(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fprintf(stderr, "hmm %s: ", command_name);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
}

int command_finish(FILE *stream)
{
    if (fflush(stream) != 0 || ferror(stream)) {
        command_error("output: %s", strerror(errno));
        return EXIT_FAILURE;
    }
    if (stream != stdout && fclose(stream) != 0) {
        command_error("output: %s", strerror(errno));
        return EXIT_FAILURE;
    }
    return EXIT_SUCCESS;
}

FILE *command_output(const char *path)
{
    if (path == NULL || strcmp(path, "-") == 0) {
        return stdout;
    }
    FILE *stream = fopen(path, "we");
    if (stream == NULL) {
        command_error("%s: %s", path, strerror(errno));
    }
    return stream;
}

const char *bytes_text(char text[BYTES_TEXT_MAX], size_t bytes)
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    const double step = 1024;
    double amount = (double)bytes;
    size_t unit = 0;
    while (amount >= step && unit + 1 < sizeof units / sizeof units[0]) {
        amount /= step;
        unit++;
    }
    snprintf(text, BYTES_TEXT_MAX, unit == 0 ? "%.0f %s" : "%.1f %s", amount, units[unit]);
    return text;
}

void json_string(FILE *stream, const char *text)
{
    fputc('"', stream);
    for (const unsigned char *at = (const unsigned char *)text; *at != '\0'; at++) {
        if (*at == '"' || *at == '\\') {
            fprintf(stream, "\\%c", *at);
        } else if (*at < ' ') {
            fprintf(stream, "\\u%04x", *at);
        } else {
            fputc(*at, stream);
        }
    }
    fputc('"', stream);
}
