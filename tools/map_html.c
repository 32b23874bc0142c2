/*
 * map_html.c - a picture as one page: map.html, with the heap in it.
 *
 * The page has one script element of JSON. Texts and totals stand there as they are; a strip's
 * cells are records of 16 bytes in base64, little-endian:
 *
 *     0 kind   1 size_class   2 state   3 pages   4 owner   6 used   8 free   10 cached   12 live
 *     14 repeat: for how many adjacent cells the record stands
 *
 * So a million granules of all kinds are 21 MB at most, and a large block is two records.
 */
#include "map_page.h"
#include "picture.h"

#include <stdlib.h>
#include <string.h>

enum { RECORD_BYTES = 16, BITS_PER_BYTE = 8, BYTE_MASK = 0xff };

/* What the page has in place of the heap. */
static const char slot_text[] = "id=\"heap\">null<";

/* A JSON string that may stand inside a script element: no `<`, so that nothing in it ends the
 * element or begins a comment. */
static void script_string(FILE *stream, const char *text)
{
    fputc('"', stream);
    for (const unsigned char *at = (const unsigned char *)text; *at != '\0'; at++) {
        if (*at < ' ' || *at == '"' || *at == '\\' || *at == '<') {
            fprintf(stream, "\\u%04x", *at);
        } else {
            fputc(*at, stream);
        }
    }
    fputc('"', stream);
}

static void script_member(FILE *stream, const char *name, const char *text)
{
    fprintf(stream, "\"%s\":", name);
    script_string(stream, text);
}

/* ---------------------------------------------------------------------------------------- cells */

/* Base64, three bytes at a time. */
struct encoder {
    FILE *stream;
    unsigned char pending[3];
    unsigned pending_count;
};

static void encoder_write(struct encoder *encoder, unsigned count)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const unsigned char *bytes = encoder->pending;
    const unsigned six_bits = 0x3f;
    unsigned word = (unsigned)bytes[0] << 16 | (unsigned)bytes[1] << 8 | bytes[2];
    char text[4] = {digits[word >> 18], digits[word >> 12 & six_bits], digits[word >> 6 & six_bits],
                    digits[word & six_bits]};
    memset(text + count + 1, '=', 3 - count);
    fwrite(text, 1, sizeof text, encoder->stream);
}

static void encoder_add(struct encoder *encoder, const unsigned char *bytes, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        encoder->pending[encoder->pending_count++] = bytes[i];
        if (encoder->pending_count == sizeof encoder->pending) {
            encoder_write(encoder, sizeof encoder->pending);
            encoder->pending_count = 0;
        }
    }
}

static void encoder_end(struct encoder *encoder)
{
    unsigned count = encoder->pending_count;
    if (count > 0) {
        memset(encoder->pending + count, 0, sizeof encoder->pending - count);
        encoder_write(encoder, count);
    }
}

static void record_make(unsigned char record[RECORD_BYTES], const struct cell *cell, size_t repeat)
{
    const uint16_t words[] = {cell->owner,  cell->used, cell->free,
                              cell->cached, cell->live, (uint16_t)repeat};
    record[0] = cell->kind;
    record[1] = cell->size_class;
    record[2] = cell->state;
    record[3] = cell->pages;
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        record[4 + 2 * i] = (unsigned char)(words[i] & BYTE_MASK);
        record[5 + 2 * i] = (unsigned char)(words[i] >> BITS_PER_BYTE);
    }
}

static_assert(sizeof(struct cell) == RECORD_BYTES - sizeof(uint16_t), "no padding, so memcmp");

static void write_cells(FILE *stream, const struct strip *strip)
{
    struct encoder encoder = {.stream = stream};
    size_t next;
    for (size_t i = 0; i < strip->cell_count; i = next) {
        const struct cell *cell = &strip->cells[i];
        next = i + 1;
        while (next < strip->cell_count && next - i < UINT16_MAX &&
               memcmp(cell, &strip->cells[next], sizeof *cell) == 0) {
            next++;
        }
        unsigned char record[RECORD_BYTES];
        record_make(record, cell, next - i);
        encoder_add(&encoder, record, sizeof record);
    }
    encoder_end(&encoder);
}

/* ---------------------------------------------------------------------------------------- texts */

static void write_classes(FILE *stream)
{
    fputs(",\n\"classes\":[", stream);
    for (unsigned i = 0; i < CLASS_COUNT; i++) {
        fprintf(stream, "%s%zu", i > 0 ? "," : "", class_bytes(i));
    }
    fputs("]", stream);
}

static void write_owners(FILE *stream, const struct snapshot *snapshot)
{
    fputs(",\n\"owners\":[", stream);
    for (size_t i = 0; i < snapshot->thread_count; i++) {
        const struct thread_view *thread = &snapshot->threads[i];
        fprintf(stream, "%s\"", i > 0 ? "," : "");
        if (thread->is_dormant) {
            fputs("of a thread that ended\"", stream);
        } else {
            fprintf(stream, "thread %#zx\"", thread->pointer);
        }
    }
    fputs("]", stream);
}

static void write_parts(FILE *stream, const struct picture *picture)
{
    fputs(",\n\"parts\":[", stream);
    for (size_t i = 0; i < picture->part_count; i++) {
        const struct picture_part *part = &picture->parts[i];
        fprintf(stream, "%s{", i > 0 ? "," : "");
        script_member(stream, "name", part->name);
        fprintf(stream, ",\"style\":\"%s\",\"bytes\":%zu}", part->style, part->bytes);
    }
    fputs("],\n\"figures\":[", stream);
    for (size_t i = 0; i < picture->figure_count; i++) {
        const struct picture_figure *figure = &picture->figures[i];
        fprintf(stream, "%s{", i > 0 ? "," : "");
        script_member(stream, "name", figure->name);
        fputs(",", stream);
        script_member(stream, "text", figure->text);
        fputs(",", stream);
        script_member(stream, "note", figure->note);
        fputs("}", stream);
    }
    fputs("]", stream);
}

static void write_strips(FILE *stream, const struct picture *picture)
{
    fputs(",\n\"regions\":[", stream);
    for (size_t i = 0; i < picture->strip_count; i++) {
        const struct strip *strip = &picture->strips[i];
        fprintf(stream, "%s\n{", i > 0 ? "," : "");
        script_member(stream, "name", strip->name);
        fputs(",", stream);
        script_member(stream, "note", strip->note);
        fprintf(stream, ",\"start\":\"%#zx\",\"cell_bytes\":%zu,\"cells\":%zu,\"data\":\"",
                strip->start, strip->cell_bytes, strip->cell_count);
        write_cells(stream, strip);
        fputs("\"}", stream);
    }
    fputs("]}\n", stream);
}

void map_write_html(FILE *stream, const struct picture *picture)
{
    const char *slot = strstr(map_page, slot_text);
    const char *rest = slot + strlen(slot_text) - strlen("<");
    const char *data = rest - strlen("null");
    fwrite(map_page, 1, (size_t)(data - map_page), stream);
    fputs("{", stream);
    script_member(stream, "program", picture->name);
    fputs(",", stream);
    script_member(stream, "origin", picture->origin);
    fputs(",", stream);
    script_member(stream, "doubt", picture->doubt != NULL ? picture->doubt : "");
    fprintf(stream, ",\"page_bytes\":%zu,\"granule_bytes\":%d", picture->snapshot->page_bytes,
            GRANULE_BYTES);
    write_classes(stream);
    write_owners(stream, picture->snapshot);
    write_parts(stream, picture);
    write_strips(stream, picture);
    fwrite(rest, 1, (size_t)(map_page_end - rest), stream);
}
