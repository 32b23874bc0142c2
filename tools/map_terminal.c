/*
 * map_terminal.c - a picture in characters, for a terminal or a text file.
 *
 * A character stands for one cell, or for 2, 4, 8 ... of them where the heap is large. What most of
 * them are chooses the character and its colour; how live they are, how full it is. The kinds
 * differ in their characters too, so that nothing is lost without colour.
 */
#include "picture.h"

#include <string.h>

enum {
    ROWS_MAX = 24,        /* for each strip */
    ADDRESS_COLUMNS = 17, /* with the space behind */
    ROW_STEP = 16,        /* a row has a multiple of so many characters: 1 MiB of granules */
    BAR_COLUMNS = 24,
    CLASS_ROWS_MAX = 12,
    LEVEL_COUNT = 8,
    PERCENT = 100,
};

/* Characters for emptier to fuller, each a string of UTF-8 or of ASCII. */
struct look {
    const char *levels[LEVEL_COUNT];
    const char *plain; /* without blocks: lower case below one half, upper case above */
    const char *colour;
};

static const struct look looks[CELL_KIND_COUNT] = {
    [CELL_EMPTY] = {{"·", "·", "·", "·", "·", "·", "·", "·"}, "..", "38;5;245"},
    [CELL_DIRTY] = {{"░", "░", "░", "░", "░", "░", "░", "░"}, "::", "38;5;245"},
    [CELL_SLAB] = {{"▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"}, "sS", "38;5;32"},
    [CELL_ZONE] = {{"○", "◔", "◔", "◑", "◑", "◕", "◕", "●"}, "mM", "38;5;214"},
    [CELL_LARGE] = {{"┣", "┣", "┣", "┣", "┣", "┣", "┣", "┣"}, "[[", "38;5;36"},
    [CELL_LARGE_MORE] = {{"━", "━", "━", "━", "━", "━", "━", "━"}, "==", "38;5;36"},
    [CELL_TAGGED] = {{"⡀", "⣀", "⣄", "⣤", "⣦", "⣶", "⣷", "⣿"}, "bB", "38;5;175"},
    [CELL_TAKEN] = {{"▪", "▪", "▪", "▪", "▪", "▪", "▪", "▪"}, "??", "38;5;245"},
    [CELL_AHEAD] = {{"▫", "▫", "▫", "▫", "▫", "▫", "▫", "▫"}, "--", "38;5;245"},
    [CELL_FENCE] = {{"│", "│", "│", "│", "│", "│", "│", "│"}, "||", "38;5;245"},
    [CELL_FOREIGN] = {{"×", "×", "×", "×", "×", "×", "×", "×"}, "xx", "38;5;245"},
};

struct pen {
    FILE *stream;
    const struct map_terminal *terminal;
    const char *colour; /* the one in use, NULL: the terminal's own */
};

/* Changes the colour only where it changes. */
static void pen_colour(struct pen *pen, const char *colour)
{
    if (!pen->terminal->has_colour || pen->colour == colour) {
        return;
    }
    fprintf(pen->stream, "\033[%sm", colour != NULL ? colour : "0");
    pen->colour = colour;
}

static void pen_level(struct pen *pen, enum cell_kind kind, size_t level)
{
    const struct look *look = &looks[kind];
    pen_colour(pen, look->colour);
    if (pen->terminal->has_blocks) {
        fputs(look->levels[level], pen->stream);
    } else {
        fputc(look->plain[level >= LEVEL_COUNT / 2], pen->stream);
    }
}

static void pen_bold(struct pen *pen, const char *text)
{
    const char *on = pen->terminal->has_colour ? "\033[1m" : "";
    const char *off = pen->terminal->has_colour ? "\033[0m" : "";
    pen_colour(pen, NULL);
    fprintf(pen->stream, "%s%s%s", on, text, off);
}

/* -------------------------------------------------------------------------------------- the map */

static void pen_square(struct pen *pen, struct square square)
{
    size_t level = (square.live * LEVEL_COUNT + CELL_LIVE_FULL - 1) / CELL_LIVE_FULL;
    pen_level(pen, square.kind, level > 0 ? level - 1 : 0);
}

static void draw_strip(struct pen *pen, const struct strip *strip)
{
    size_t space = pen->terminal->columns > ADDRESS_COLUMNS + ROW_STEP
                       ? pen->terminal->columns - ADDRESS_COLUMNS
                       : ROW_STEP;
    size_t row_cells = space - space % ROW_STEP;
    size_t each = 1;
    while (strip->cell_count / each > row_cells * ROWS_MAX) {
        each *= 2;
    }
    char text[BYTES_TEXT_MAX];
    fputc('\n', pen->stream);
    pen_bold(pen, strip->name);
    fprintf(pen->stream, "  %s, a character: %s\n", strip->note,
            bytes_text(text, each * strip->cell_bytes));
    for (size_t first = 0; first < strip->cell_count; first += row_cells * each) {
        pen_colour(pen, NULL);
        fprintf(pen->stream, "%#*zx ", ADDRESS_COLUMNS - 1,
                strip->start + first * strip->cell_bytes);
        for (size_t i = first; i < first + row_cells * each && i < strip->cell_count; i += each) {
            pen_square(pen, strip_square(strip, i, each));
        }
        pen_colour(pen, NULL);
        fputc('\n', pen->stream);
    }
}

/* The kinds that the picture has. */
static void draw_legend(struct pen *pen, const struct picture *picture)
{
    bool is_there[CELL_KIND_COUNT] = {false};
    for (size_t i = 0; i < picture->strip_count; i++) {
        for (size_t j = 0; j < picture->strips[i].cell_count; j++) {
            is_there[picture->strips[i].cells[j].kind] = true;
        }
    }
    is_there[CELL_LARGE] = is_there[CELL_LARGE] || is_there[CELL_LARGE_MORE];
    is_there[CELL_LARGE_MORE] = false;
    static const enum cell_kind order[] = {CELL_SLAB,  CELL_ZONE,  CELL_LARGE,   CELL_TAGGED,
                                           CELL_TAKEN, CELL_DIRTY, CELL_FOREIGN, CELL_AHEAD,
                                           CELL_FENCE, CELL_EMPTY};
    fputc('\n', pen->stream);
    for (size_t i = 0; i < sizeof order / sizeof order[0]; i++) {
        enum cell_kind kind = order[i];
        if (is_there[kind]) {
            pen_level(pen, kind, kind == CELL_LARGE ? 0 : LEVEL_COUNT / 2 - 1);
            pen_level(pen, kind == CELL_LARGE ? CELL_LARGE_MORE : kind, LEVEL_COUNT - 1);
            pen_colour(pen, NULL);
            fprintf(pen->stream, " %s   ", cell_kind_name(kind));
        }
    }
    fputc('\n', pen->stream);
}

/* ---------------------------------------------------------------------------------- the numbers */

static void draw_bar(struct pen *pen, size_t part, size_t whole)
{
    size_t filled = whole > 0 ? (size_t)((double)part / (double)whole * BAR_COLUMNS + 0.5) : 0;
    for (size_t i = 0; i < BAR_COLUMNS; i++) {
        const char *full = pen->terminal->has_blocks ? "█" : "#";
        fputs(i < filled ? full : (pen->terminal->has_blocks ? "░" : "."), pen->stream);
    }
}

static void draw_parts(struct pen *pen, const struct picture *picture)
{
    size_t whole = 0;
    for (size_t i = 0; i < picture->part_count; i++) {
        whole += picture->parts[i].bytes;
    }
    char text[BYTES_TEXT_MAX];
    fputc('\n', pen->stream);
    for (size_t i = 0; i < picture->part_count; i++) {
        const struct picture_part *part = &picture->parts[i];
        fprintf(pen->stream, "%-18s %11s %5.1f %% ", part->name, bytes_text(text, part->bytes),
                (double)part->bytes / (double)whole * PERCENT);
        draw_bar(pen, part->bytes, whole);
        fputc('\n', pen->stream);
    }
    for (size_t i = 0; i < picture->figure_count; i++) {
        const struct picture_figure *figure = &picture->figures[i];
        fprintf(pen->stream, "%-18s %11s%s%s\n", figure->name, figure->text,
                figure->note[0] != '\0' ? "  " : "", figure->note);
    }
}

/* The class whose slabs are more than those of all shown so far but the ones before it;
 * CLASS_COUNT: none is left. */
static unsigned next_class(const struct snapshot *snapshot, const bool *is_shown)
{
    unsigned best = CLASS_COUNT;
    for (unsigned i = 0; i < CLASS_COUNT; i++) {
        bool is_more = best == CLASS_COUNT ||
                       snapshot->classes[i].slab_count > snapshot->classes[best].slab_count;
        if (!is_shown[i] && snapshot->classes[i].slab_count > 0 && is_more) {
            best = i;
        }
    }
    return best;
}

static void draw_classes(struct pen *pen, const struct snapshot *snapshot)
{
    bool is_shown[CLASS_COUNT] = {false};
    unsigned class = next_class(snapshot, is_shown);
    if (class == CLASS_COUNT) {
        return;
    }
    fputc('\n', pen->stream);
    pen_bold(pen, "Slots in use, of the classes with most slabs");
    fprintf(pen->stream, "\n%8s %10s %12s\n", "slot", "slabs", "used");
    for (int row = 0; class < CLASS_COUNT && row < CLASS_ROWS_MAX; row++) {
        const struct class_view *view = &snapshot->classes[class];
        size_t capacity = view->slab_count * (GRANULE_BYTES / view->slot_bytes);
        fprintf(pen->stream, "%8zu %10zu %12zu %5.1f %% ", view->slot_bytes, view->slab_count,
                view->used_slots, (double)view->used_slots / (double)capacity * PERCENT);
        draw_bar(pen, view->used_slots, capacity);
        fputc('\n', pen->stream);
        is_shown[class] = true;
        class = next_class(snapshot, is_shown);
    }
}

void map_write_terminal(FILE *stream, const struct picture *picture,
                        const struct map_terminal *terminal)
{
    struct pen pen = {.stream = stream, .terminal = terminal};
    pen_bold(&pen, picture->name);
    fprintf(stream, "  %s\n", picture->origin);
    if (picture->doubt != NULL) {
        fprintf(stream, "It %s. The numbers need not add up.\n", picture->doubt);
    }
    for (size_t i = 0; i < picture->strip_count; i++) {
        draw_strip(&pen, &picture->strips[i]);
    }
    draw_legend(&pen, picture);
    draw_parts(&pen, picture);
    draw_classes(&pen, picture->snapshot);
}
