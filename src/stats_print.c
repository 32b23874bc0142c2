/*
 * stats_print.c - the numbers of the process heap as text and as JSON. See stats.h.
 *
 * Nothing here allocates or waits, so a signal handler can print, and so can a program that has run
 * out of memory. The text goes out in a few writes, of whole lines as long as a line fits.
 */
#include "alloc.h"
#include "os.h"
#include "stats.h"
#include "text.h"

#include <unistd.h>

struct printer {
    int file;
    bool is_failed;
    struct text text;
};

enum { LINE_BYTES_MAX = 160, PERCENT = 100 };

static void printer_flush(struct printer *printer)
{
    printer->is_failed = printer->is_failed || !hmm_os_write_all(printer->file, printer->text.bytes,
                                                                 printer->text.length);
    hmm_text_clear(&printer->text);
}

/* The text of the next line; there is room for it. */
static struct text *line_start(struct printer *printer)
{
    if (printer->text.length > TEXT_BYTES_MAX - LINE_BYTES_MAX) {
        printer_flush(printer);
    }
    return &printer->text;
}

/* Right-aligned, as columns of numbers are read. */
static void column_add(struct text *text, size_t value, size_t width)
{
    static const char spaces[] = "                    ";
    struct text digits;
    hmm_text_clear(&digits);
    hmm_text_add_decimal(&digits, value);
    if (digits.length < width) {
        hmm_text_add_bytes(text, spaces, width - digits.length);
    }
    hmm_text_add(text, digits.bytes);
}

/* ---------------------------------------------------------------------------------------- names */

/* In the order in which they are printed. */
static const struct field {
    const char *label; /* as wide as the others */
    const char *key;
    size_t offset;
} fields[] = {
    {"live bytes      ", "live_bytes", offsetof(HmmStats, live_bytes)},
    {"  small         ", "small_bytes", offsetof(HmmStats, small_bytes)},
    {"  medium        ", "medium_bytes", offsetof(HmmStats, medium_bytes)},
    {"  large         ", "large_bytes", offsetof(HmmStats, large_bytes)},
    {"  block heap    ", "other_bytes", offsetof(HmmStats, other_bytes)},
    {"live blocks     ", "live_count", offsetof(HmmStats, live_count)},
    {"cached bytes    ", "cached_bytes", offsetof(HmmStats, cached_bytes)},
    {"free bytes      ", "free_bytes", offsetof(HmmStats, free_bytes)},
    {"held bytes      ", "held_bytes", offsetof(HmmStats, held_bytes)},
    {"peak bytes      ", "peak_bytes", offsetof(HmmStats, peak_bytes)},
    {"dirty bytes     ", "dirty_bytes", offsetof(HmmStats, dirty_bytes)},
    {"metadata bytes  ", "metadata_bytes", offsetof(HmmStats, metadata_bytes)},
    {"mapped bytes    ", "mapped_bytes", offsetof(HmmStats, mapped_bytes)},
    {"reserved bytes  ", "reserved_bytes", offsetof(HmmStats, reserved_bytes)},
    {"resident bytes  ", "resident_bytes", offsetof(HmmStats, resident_bytes)},
    {"failed requests ", "failed_count", offsetof(HmmStats, failed_count)},
};

enum { FIELD_COUNT = sizeof fields / sizeof fields[0] };

static size_t field_value(const HmmStats *stats, const struct field *field)
{
    return *(const size_t *)(const void *)((const char *)stats + field->offset);
}

static const char *engine_name(void)
{
    switch (hmm_process_engine_if_started()) {
    case ENGINE_FAST:
        return "fast";
    case ENGINE_BLOCK:
        return "block";
    default:
        return "none";
    }
}

/* ----------------------------------------------------------------------------------------- text */

/* The share of a class's slots that are in use tells fragmentation. */
static void class_print(struct printer *printer, const HmmClassStats *class)
{
    enum { WIDTH = 11 };
    size_t slot_count = class->live_count + class->cached_count + class->free_count;
    struct text *line = line_start(printer);
    hmm_text_add(line, "hmm:   ");
    column_add(line, class->slot_bytes, WIDTH);
    column_add(line, class->slab_count, WIDTH);
    column_add(line, class->live_count, WIDTH);
    column_add(line, class->cached_count, WIDTH);
    column_add(line, class->free_count, WIDTH);
    column_add(line, slot_count != 0 ? class->live_count * PERCENT / slot_count : 0, WIDTH);
    hmm_text_add(line, "%\n");
}

static void text_print(struct printer *printer, const HmmStats *stats)
{
    struct text *line = line_start(printer);
    hmm_text_add(line, "hmm: the heap of process ");
    hmm_text_add_decimal(line, hmm_os_process_id());
    hmm_text_add(line, ", engine=");
    hmm_text_add(line, engine_name());
    hmm_text_add(line, "\n");
    for (size_t i = 0; i < FIELD_COUNT; i++) {
        line = line_start(printer);
        hmm_text_add(line, "hmm:   ");
        hmm_text_add(line, fields[i].label);
        column_add(line, field_value(stats, &fields[i]), 16);
        hmm_text_add(line, "\n");
    }
    for (size_t i = 0, printed = 0; i < stats->class_count; i++) {
        if (stats->classes[i].slab_count != 0 && printed++ == 0) {
            hmm_text_add(line_start(printer), "hmm:    slot bytes      slabs       live     "
                                              "cached       free      in use\n");
        }
        if (stats->classes[i].slab_count != 0) {
            class_print(printer, &stats->classes[i]);
        }
    }
    printer_flush(printer);
}

/* ----------------------------------------------------------------------------------------- JSON */

static void pair_add(struct text *line, const char *key, size_t value, const char *behind)
{
    hmm_text_add(line, "\"");
    hmm_text_add(line, key);
    hmm_text_add(line, "\": ");
    hmm_text_add_decimal(line, value);
    hmm_text_add(line, behind);
}

static void json_print_class(struct printer *printer, const HmmClassStats *class,
                             const char *behind)
{
    struct text *line = line_start(printer);
    hmm_text_add(line, "  {");
    pair_add(line, "slot_bytes", class->slot_bytes, ", ");
    pair_add(line, "slab_count", class->slab_count, ", ");
    pair_add(line, "live_count", class->live_count, ", ");
    pair_add(line, "cached_count", class->cached_count, ", ");
    pair_add(line, "free_count", class->free_count, "}");
    hmm_text_add(line, behind);
}

static void json_print(struct printer *printer, const HmmStats *stats)
{
    struct text *line = line_start(printer);
    hmm_text_add(line, "{\"engine\": \"");
    hmm_text_add(line, engine_name());
    hmm_text_add(line, "\",\n ");
    pair_add(line, "process_id", (size_t)hmm_os_process_id(), ",\n");
    for (size_t i = 0; i < FIELD_COUNT; i++) {
        line = line_start(printer);
        hmm_text_add(line, " ");
        pair_add(line, fields[i].key, field_value(stats, &fields[i]), ",\n");
    }
    hmm_text_add(line_start(printer), " \"classes\": [\n");
    for (size_t i = 0; i < stats->class_count; i++) {
        json_print_class(printer, &stats->classes[i], i + 1 < stats->class_count ? ",\n" : "\n");
    }
    hmm_text_add(line_start(printer), " ]}\n");
    printer_flush(printer);
}

/* ---------------------------------------------------------------------------------------- doors */

static void printer_open(struct printer *printer, int file)
{
    printer->file = file;
    printer->is_failed = false;
    hmm_text_clear(&printer->text);
}

bool HmmPrintStats(int file, HmmStatsFormat format)
{
    HmmStats stats;
    struct printer printer;
    if (format != HMM_STATS_TEXT && format != HMM_STATS_JSON) {
        errno = EINVAL;
        return false;
    }
    HmmGetStats(&stats);
    printer_open(&printer, file);
    if (format == HMM_STATS_JSON) {
        json_print(&printer, &stats);
    } else {
        text_print(&printer, &stats);
    }
    return !printer.is_failed;
}

void hmm_stats_print(void)
{
    int saved = errno;
    (void)HmmPrintStats(STDERR_FILENO, HMM_STATS_TEXT);
    errno = saved;
}

void hmm_stats_print_peeked(void)
{
    int saved = errno;
    HmmStats stats;
    struct printer printer;
    hmm_stats_peek(&stats);
    printer_open(&printer, STDERR_FILENO);
    text_print(&printer, &stats);
    errno = saved;
}
