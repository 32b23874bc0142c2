/*
 * map_svg.c - a picture that stands still: one SVG file, light or dark as its reader's system is.
 *
 * All squares of a kind are two paths, one of the cells and one of what is live in them, so that
 * a file of many squares stays small. Where there are more cells than fit, a square stands for 2,
 * 4, 8 ...
 */
#include "picture.h"

#include <string.h>

enum {
    WIDTH = 1280,
    MARGIN = 40,
    LEFT = 180, /* where squares begin: addresses stand before */
    TOP = 158,  /* where the first strip begins, below one row of parts */
    PARTS_IN_ROW = 8,
    HEADING = 46,
    SQUARE_MAX = 33,
    SQUARE_MIN = 4,
    ROWS_GOOD = 56, /* more rows than that, and squares become smaller */
    ROW_STEP = 32,
    SQUARES_MAX = 60000, /* in one file */
    LABEL_HEIGHT = 15,
    LEGEND_STEP = 150,
    GAP_FROM = 7, /* smaller squares stand without a gap, and are pale or full */
};

static const char style_text[] =
    "<style>\n"
    ":root{--paper:#fbfaf8;--ink:#1c1e22;--muted:#686c74;--small:#1f66ad;--medium:#e39410;"
    "--large:#0d8a6c;--tagged:#b3578f;--taken:#5b5f66;--dirty:#b9b4aa;--ahead:#d9d5cd;"
    "--foreign:#8a8e95;--fence:#3a3d43;--empty:#efece6;--cached:#5a5c60;--spare:#95979a}\n"
    "@media (prefers-color-scheme:dark){:root{--paper:#14161a;--ink:#e9e7e2;--muted:#989da6;"
    "--small:#5a9fe0;--medium:#e9a940;--large:#37b592;--tagged:#d284b4;--taken:#a4a9b1;"
    "--dirty:#575c65;--ahead:#3a3f47;--foreign:#757a83;--fence:#c9c6c0;--empty:#1f2329;--cached:#"
    "adaba8;"
    "--spare:#767675}}\n"
    "text{font:13px system-ui,'Segoe UI','Noto Sans','DejaVu Sans',sans-serif;fill:var(--ink)}\n"
    ".title{font-size:20px;font-weight:650}.name{font-weight:600}.muted{fill:var(--muted)}\n"
    ".amount{font-size:15px;font-weight:550}\n"
    ".address{font:11.5px ui-monospace,'DejaVu Sans Mono',Menlo,Consolas,monospace;"
    "fill:var(--muted);text-anchor:end}\n"
    ".pale{opacity:.26}\n"
    "</style>\n";

/* The colour of each kind. */
static const char *const styles[CELL_KIND_COUNT] = {
    [CELL_EMPTY] = "empty",     [CELL_DIRTY] = "dirty", [CELL_SLAB] = "small",
    [CELL_ZONE] = "medium",     [CELL_LARGE] = "large", [CELL_LARGE_MORE] = "large",
    [CELL_TAGGED] = "tagged",   [CELL_TAKEN] = "taken", [CELL_AHEAD] = "ahead",
    [CELL_FOREIGN] = "foreign", [CELL_FENCE] = "fence",
};

static void write_text(FILE *stream, const char *text)
{
    for (; *text != '\0'; text++) {
        switch (*text) {
        case '<':
            fputs("&lt;", stream);
            break;
        case '&':
            fputs("&amp;", stream);
            break;
        default:
            fputc((unsigned char)*text < ' ' ? ' ' : *text, stream);
        }
    }
}

static void write_label(FILE *stream, double x, double y, const char *style, const char *text)
{
    fprintf(stream, "<text x=\"%.1f\" y=\"%.1f\" class=\"%s\">", x, y, style);
    write_text(stream, text);
    fputs("</text>\n", stream);
}

static void write_rectangle(FILE *stream, double x, double y, double width, double height,
                            const char *colour)
{
    fprintf(stream,
            "<rect x=\"%.2f\" y=\"%.2f\" width=\"%.2f\" height=\"%.2f\" fill=\"var(--%s)\"/>\n", x,
            y, width, height, colour);
}

/* -------------------------------------------------------------------------------------- squares */

/* How the strips are laid out: the same for all of them. */
struct layout {
    size_t columns;
    size_t each; /* cells in a square */
    double square;
};

static size_t square_count(const struct strip *strip, size_t each)
{
    return (strip->cell_count + each - 1) / each;
}

static size_t row_count(const struct strip *strip, const struct layout *layout)
{
    return (square_count(strip, layout->each) + layout->columns - 1) / layout->columns;
}

static size_t rows_in_all(const struct picture *picture, const struct layout *layout)
{
    size_t rows = 0;
    for (size_t i = 0; i < picture->strip_count; i++) {
        rows += row_count(&picture->strips[i], layout);
    }
    return rows;
}

static struct layout layout_choose(const struct picture *picture)
{
    const double space = WIDTH - LEFT - MARGIN;
    struct layout layout = {.columns = ROW_STEP, .each = 1};
    size_t cell_count = 0;
    for (size_t i = 0; i < picture->strip_count; i++) {
        cell_count += picture->strips[i].cell_count;
    }
    while (cell_count / layout.each > SQUARES_MAX) {
        layout.each *= 2;
    }
    const size_t columns_max = (size_t)(space / SQUARE_MIN) / ROW_STEP * ROW_STEP;
    while (rows_in_all(picture, &layout) > ROWS_GOOD && layout.columns < columns_max) {
        layout.columns += ROW_STEP;
    }
    layout.square = space / (double)layout.columns;
    layout.square = layout.square > SQUARE_MAX ? SQUARE_MAX : layout.square;
    return layout;
}

static bool is_alike(struct square a, struct square b)
{
    return a.kind == b.kind && a.live == b.live;
}

/* How many squares from `first` on can be one rectangle: pieces of a large block always, others
 * where no gap is drawn between them. */
static size_t span_count(const struct strip *strip, const struct layout *layout, size_t first)
{
    struct square square = strip_square(strip, first * layout->each, layout->each);
    size_t next = first + 1;
    if (layout->square >= GAP_FROM && square.kind != CELL_LARGE_MORE) {
        return 1;
    }
    while (next < square_count(strip, layout->each) && next % layout->columns != 0 &&
           is_alike(square, strip_square(strip, next * layout->each, layout->each))) {
        next++;
    }
    return next - first;
}

static bool is_filled_kind(enum cell_kind kind)
{
    return kind == CELL_SLAB || kind == CELL_ZONE || kind == CELL_LARGE ||
           kind == CELL_LARGE_MORE || kind == CELL_TAGGED;
}

/* The squares of one kind: their ground, or what of them is live. */
enum path_layer { LAYER_GROUND, LAYER_LIVE };

static double layer_share(const struct layout *layout, struct square square, enum path_layer layer)
{
    if (layer == LAYER_GROUND) {
        return 1;
    }
    return layout->square >= GAP_FROM ? (double)square.live / CELL_LIVE_FULL
                                      : square.live >= CELL_LIVE_FULL / 2;
}

static void write_path(FILE *stream, const struct strip *strip, const struct layout *layout,
                       double top, enum cell_kind kind, enum path_layer layer)
{
    const double gap = layout->square >= GAP_FROM ? 1 : 0;
    bool has_begun = false;
    size_t next;
    for (size_t i = 0; i < square_count(strip, layout->each); i = next) {
        next = i + span_count(strip, layout, i);
        struct square square = strip_square(strip, i * layout->each, layout->each);
        double share = layer_share(layout, square, layer);
        if (square.kind != kind || share <= 0) {
            continue;
        }
        /* The pieces of a large block are joined. */
        double joint = kind == CELL_LARGE_MORE && i % layout->columns != 0 ? gap : 0;
        double x = LEFT + (double)(i % layout->columns) * layout->square - joint;
        double y = top + (double)(i / layout->columns) * layout->square;
        double height = (layout->square - gap) * share;
        double width = (double)(next - i) * layout->square - gap + joint;
        if (!has_begun) {
            fprintf(stream, "<path fill=\"var(--%s)\"%s d=\"", styles[kind],
                    layer == LAYER_GROUND && is_filled_kind(kind) ? " class=\"pale\"" : "");
            has_begun = true;
        }
        fprintf(stream, "M%.1f %.1fh%.1fv%.1fh-%.1fz", x, y + layout->square - gap - height, width,
                height, width);
    }
    if (has_begun) {
        fputs("\"/>\n", stream);
    }
}

static double write_strip(FILE *stream, const struct strip *strip, const struct layout *layout,
                          double top)
{
    char text[2 * STRIP_TEXT_MAX + BYTES_TEXT_MAX];
    char bytes[BYTES_TEXT_MAX];
    snprintf(text, sizeof text, "%s, a square: %s", strip->note,
             bytes_text(bytes, strip->cell_bytes * layout->each));
    fprintf(stream, "<text x=\"%d\" y=\"%.1f\"><tspan class=\"name\">", LEFT, top - 12);
    write_text(stream, strip->name);
    fputs("</tspan><tspan dx=\"10\" class=\"muted\">", stream);
    write_text(stream, text);
    fputs("</tspan></text>\n", stream);
    size_t rows = row_count(strip, layout);
    size_t step = 1;
    while ((double)step * layout->square < LABEL_HEIGHT) {
        step *= 2;
    }
    for (size_t row = 0; row < rows; row += step) {
        uintptr_t address = strip->start + row * layout->columns * layout->each * strip->cell_bytes;
        snprintf(text, sizeof text, "%#zx", address);
        write_label(stream, LEFT - 12, top + (double)row * layout->square + LABEL_HEIGHT - 4,
                    "address", text);
    }
    for (enum cell_kind kind = 0; kind < CELL_KIND_COUNT; kind++) {
        write_path(stream, strip, layout, top, kind, LAYER_GROUND);
        if (is_filled_kind(kind)) {
            write_path(stream, strip, layout, top, kind, LAYER_LIVE);
        }
    }
    return top + (double)rows * layout->square;
}

/* ------------------------------------------------------------------------------------- the head */

static void write_parts(FILE *stream, const struct picture *picture)
{
    const double width = WIDTH - 2 * MARGIN;
    double whole = 0;
    for (size_t i = 0; i < picture->part_count; i++) {
        whole += (double)picture->parts[i].bytes;
    }
    double x = MARGIN;
    char text[BYTES_TEXT_MAX];
    for (size_t i = 0; i < picture->part_count; i++) {
        const struct picture_part *part = &picture->parts[i];
        double share = (double)part->bytes / whole * width;
        double left = MARGIN + (double)(i % PARTS_IN_ROW) * LEGEND_STEP;
        double top = 104 + (double)(i / PARTS_IN_ROW) * HEADING;
        write_rectangle(stream, x, 72, share, 10, part->style);
        write_rectangle(stream, left, top - 10, 11, 11, part->style);
        write_label(stream, left + 17, top, "muted", part->name);
        write_label(stream, left, top + 20, "amount", bytes_text(text, part->bytes));
        x += share;
    }
}

void map_write_svg(FILE *stream, const struct picture *picture)
{
    struct layout layout = layout_choose(picture);
    double top = TOP + (picture->part_count > PARTS_IN_ROW ? HEADING : 0);
    double height = top + (double)rows_in_all(picture, &layout) * layout.square +
                    (double)picture->strip_count * HEADING;
    fprintf(stream,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %.0f\" width=\"%d\" "
            "height=\"%.0f\">\n<title>",
            WIDTH, height, WIDTH, height);
    write_text(stream, picture->name);
    fprintf(stream, ": heap</title>\n%s", style_text);
    fprintf(stream, "<rect width=\"100%%\" height=\"100%%\" fill=\"var(--paper)\"/>\n");
    write_label(stream, MARGIN, 40, "title", picture->name);
    write_label(stream, MARGIN, 60, "muted", picture->origin);
    write_parts(stream, picture);
    for (size_t i = 0; i < picture->strip_count; i++) {
        top = write_strip(stream, &picture->strips[i], &layout, top) + HEADING;
    }
    fputs("</svg>\n", stream);
}
