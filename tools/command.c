/*
 * command.c - what subcommands share: errors, output, amounts for people. See command.h.
 */
#include "command.h"

#include <errno.h>
#include <libgen.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* The running subcommand, for errors; hmm.c sets it. */
extern const char *command_name;

/* How many bytes the character at `at` has; 0: it is none of UTF-8, or one that
 * a terminal obeys. */
static size_t character_bytes(const unsigned char *at)
{
    enum { ASCII_END = 0x80, CONTROL_END = 0xa0, DELETE = 0x7f, NEXT_BITS = 6, NEXT_MASK = 0x3f };
    /* By the number of bytes: the lowest character that needs so many, but for controls. */
    static const uint32_t lowest[] = {0, ' ', CONTROL_END, 0x800, 0x10000};
    const uint32_t surrogates = 0xd800;
    const uint32_t surrogates_end = 0xe000;
    const uint32_t no_character = 0xfffe;
    const uint32_t end = 0x110000;
    if (*at < ASCII_END) {
        return *at >= ' ' && *at != DELETE;
    }
    size_t count = *at >= 0xf8 ? 0 : *at >= 0xf0 ? 4 : *at >= 0xe0 ? 3 : *at >= 0xc0 ? 2 : 0;
    uint32_t character = count != 0 ? *at & (0x7fu >> count) : 0;
    for (size_t i = 1; i < count; i++) {
        if (at[i] >> NEXT_BITS != ASCII_END >> NEXT_BITS) {
            return 0;
        }
        character = character << NEXT_BITS | (at[i] & NEXT_MASK);
    }
    bool is_one = count != 0 && character >= lowest[count] && character < end &&
                  (character < surrogates || character >= surrogates_end) &&
                  (character | 1) != (no_character | 1);
    return is_one ? count : 0;
}

char *text_clean(char *text)
{
    for (unsigned char *at = (unsigned char *)text; *at != '\0';) {
        size_t bytes = character_bytes(at);
        if (bytes == 0) {
            *at = '?';
            bytes = 1;
        }
        at += bytes;
    }
    return text;
}

void command_error(const char *format, ...)
{
    va_list arguments;
    char *text = NULL;
    va_start(arguments, format);
    if (vasprintf(&text, format, arguments) >= 0) {
        fprintf(stderr, "hmm %s: %s\n", command_name, text_clean(text));
        free(text);
    }
    va_end(arguments);
}

bool command_has_proc(void)
{
    bool is_there = access("/proc/self/maps", F_OK) == 0;
    if (!is_there) {
        command_error("/proc is not mounted here, and without it nothing is known of processes");
    }
    return is_there;
}

/* Why output was lost, 0: it was not. What is called after a write that failed has an errno
 * of its own. */
static int output_error;

/* Of a write that failed some time ago, one more tells the reason. The output is spoilt already. */
static int lost_write_error(FILE *stream)
{
    return write(fileno(stream), "\n", 1) < 0 ? errno : EIO;
}

bool command_flush(FILE *stream)
{
    errno = 0;
    bool is_written = fflush(stream) == 0 && !ferror(stream);
    if (!is_written && output_error == 0) {
        output_error = errno != 0 ? errno : lost_write_error(stream);
    }
    return is_written;
}

int command_finish(FILE *stream)
{
    if (!command_flush(stream)) {
        command_error("output: %s", strerror(output_error));
        return EXIT_TROUBLE;
    }
    if (stream != stdout && fclose(stream) != 0) {
        command_error("output: %s", strerror(errno));
        return EXIT_TROUBLE;
    }
    return EXIT_SUCCESS;
}

static bool is_standard(const char *path)
{
    return path == NULL || strcmp(path, "-") == 0;
}

/* 0, or the reason why there can be no such file: by its folder, where it is not there yet. */
static int file_refusal(const char *path)
{
    struct stat status;
    if (stat(path, &status) == 0 && S_ISDIR(status.st_mode)) {
        return EISDIR;
    }
    if (euidaccess(path, W_OK) == 0) {
        return 0;
    }
    char *folder = errno == ENOENT ? strdup(path) : NULL;
    if (folder == NULL) {
        return errno;
    }
    int refusal = euidaccess(dirname(folder), W_OK | X_OK) == 0 ? 0 : errno;
    free(folder);
    return refusal;
}

bool command_output_check(const char *path)
{
    int refusal = is_standard(path) ? 0 : file_refusal(path);
    if (refusal != 0) {
        command_error("%s: %s", path, strerror(refusal));
    }
    return refusal == 0;
}

FILE *command_output(const char *path)
{
    if (is_standard(path)) {
        return stdout;
    }
    FILE *stream = fopen(path, "we");
    if (stream == NULL) {
        command_error("%s: %s", path, strerror(errno));
    }
    return stream;
}

const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash != NULL ? slash + 1 : path;
}

bool is_library_path(const char *path)
{
    const char stem[] = "libhmm";
    const char *name = base_name(path);
    return strncmp(name, stem, strlen(stem)) == 0 && strchr(".-", name[strlen(stem)]) != NULL &&
           name[strlen(stem)] != '\0';
}

/* In the largest unit of which there is one at least; each is `step` times the one before. */
static const char *amount_text(char text[BYTES_TEXT_MAX], double amount, double step,
                               const char *const *units, size_t unit_count)
{
    size_t unit = 0;
    while (amount >= step && unit + 1 < unit_count) {
        amount /= step;
        unit++;
    }
    snprintf(text, BYTES_TEXT_MAX, unit == 0 ? "%.0f%s" : "%.1f%s", amount, units[unit]);
    return text;
}

const char *bytes_text(char text[BYTES_TEXT_MAX], size_t bytes)
{
    static const char *const units[] = {" B", " KiB", " MiB", " GiB", " TiB", " PiB", " EiB"};
    return amount_text(text, (double)bytes, 1024, units, sizeof units / sizeof units[0]);
}

const char *count_text(char text[BYTES_TEXT_MAX], double count)
{
    static const char *const units[] = {"", " k", " M", " G"};
    return amount_text(text, count, 1000, units, sizeof units / sizeof units[0]);
}

double share_percent(size_t part, size_t whole)
{
    const double hundred = 100;
    return whole != 0 ? hundred * (double)part / (double)whole : 0;
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
