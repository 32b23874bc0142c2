/*
 * cmd_map.c - `hmm map`: a picture of a heap, as a page, a drawing, or characters.
 */
#include "picture.h"

#include <langinfo.h>
#include <locale.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

enum { COLUMNS_DEFAULT = 80, COLUMNS_MAX = 1000 };
enum { OPTION_OUTPUT };

static const struct command_option map_options[] = {
    [OPTION_OUTPUT] = {.name = "output",
                       .value = "FILE",
                       .letter = 'o',
                       .help = "a page (FILE.html), a drawing (FILE.svg), or characters (-)"},
    {.name = NULL},
};

static bool has_ending(const char *path, const char *ending)
{
    size_t path_length = strlen(path);
    size_t ending_length = strlen(ending);
    return path_length > ending_length && strcmp(path + path_length - ending_length, ending) == 0;
}

/* What standard output can show. https://no-color.org: a variable that is set and not empty. */
static struct map_terminal terminal_find(void)
{
    struct map_terminal terminal = {.columns = COLUMNS_DEFAULT};
    const char *columns = getenv("COLUMNS");
    const char *no_colour = getenv("NO_COLOR");
    struct winsize window;
    bool is_terminal = isatty(STDOUT_FILENO) != 0;
    if (is_terminal && ioctl(STDOUT_FILENO, TIOCGWINSZ, &window) == 0 && window.ws_col > 0) {
        terminal.columns = window.ws_col;
    } else if (columns != NULL && atoi(columns) > 0) {
        terminal.columns = size_min((size_t)atoi(columns), COLUMNS_MAX);
    }
    setlocale(LC_CTYPE, "");
    terminal.has_blocks = strcmp(nl_langinfo(CODESET), "UTF-8") == 0;
    terminal.has_colour = is_terminal && (no_colour == NULL || no_colour[0] == '\0');
    return terminal;
}

typedef void (*map_writer)(FILE *stream, const struct picture *picture);

/* NULL: characters. */
static map_writer writer_for(const char *path)
{
    return strcmp(path, "-") == 0     ? NULL
           : has_ending(path, ".svg") ? map_write_svg
                                      : map_write_html;
}

static int map_write(const struct picture *picture, const char *path)
{
    FILE *stream = command_output(path);
    if (stream == NULL) {
        return EXIT_TROUBLE;
    }
    map_writer write = writer_for(path);
    if (write == NULL) {
        struct map_terminal terminal = terminal_find();
        map_write_terminal(stream, picture, &terminal);
        return command_finish(stream);
    }
    write(stream, picture);
    int status = command_finish(stream);
    if (status == EXIT_SUCCESS) {
        printf("%s\n", path);
        status = command_finish(stdout);
    }
    return status;
}

static int map_read(struct reader *reader, const char *path)
{
    struct snapshot *snapshot = reader_read(reader, READ_PAGES | READ_BLOCKS);
    if (snapshot == NULL) {
        return EXIT_TROUBLE;
    }
    struct picture *picture = picture_make(reader, snapshot);
    int status = EXIT_TROUBLE;
    if (picture == NULL) {
        command_error("no memory for the picture");
    } else {
        status = map_write(picture, path);
    }
    picture_free(picture);
    snapshot_free(snapshot);
    return status;
}

static int run_map(const struct command_line *line)
{
    const char *output = line->options[OPTION_OUTPUT];
    const char *path = output != NULL ? output : "heap.html";
    if (line->operand_count == 0 || (!line->is_program && line->operand_count != 1)) {
        return COMMAND_TROUBLE("wants a process id, a core file, or -- PROGRAM");
    }
    if (strcmp(path, "-") != 0 && !has_ending(path, ".html") && !has_ending(path, ".svg")) {
        return COMMAND_TROUBLE("writes .html, .svg or -, not %s", path);
    }
    if (line->is_program && !command_output_check(path)) {
        return EXIT_TROUBLE;
    }
    struct reader *reader = reader_open(line->operands, line->is_program);
    if (reader == NULL) {
        return EXIT_TROUBLE;
    }
    int status = map_read(reader, path);
    reader_close(reader);
    return status;
}

const struct command command_map = {
    .name = "map",
    .operands = "PID|CORE|-- PROGRAM [ARGUMENT...]",
    .summary = "a picture of the heap",
    .description =
        "Draws every granule of the heap: what it is, how full, whose, and how much of it\n"
        "is in memory. The default, heap.html, is a page of its own that needs no network;\n"
        "it zooms, and tells about each granule. A program is drawn as it is at its end.\n"
        "With -o - the picture is made of characters, in colour on a terminal unless\n"
        "NO_COLOR is set.\n",
    .options = map_options,
    .run = run_map,
};
