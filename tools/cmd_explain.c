/*
 * cmd_explain.c - `hmm explain`: where resident memory is, and what could be done about it.
 */
#include "command.h"
#include "reader.h"

#include <stdlib.h>
#include <string.h>

enum { CAUSES_SHOWN = 3, CAUSE_TEXT_MAX = 400, OTHERS_SHOWN = 8 };

static const char *const kind_help[PART_KIND_COUNT] = {
    [PART_LIVE_SMALL] = "slots in use, to 8 KiB",
    [PART_LIVE_MEDIUM] = "medium blocks in use, below 256 KiB",
    [PART_LIVE_LARGE] = "large blocks in use",
    [PART_LIVE_BLOCKS] = "blocks in use in the block heap",
    [PART_LIVE_HEAPS] = "blocks in use in heaps that the program created",
    [PART_ROUNDING] = "tags, and ends of slabs and runs",
    [PART_FREE_SLOTS] = "free slots on resident pages",
    [PART_FREE_BLOCKS] = "free blocks on resident pages",
    [PART_CACHES] = "free slots in threads' bins and batches, and what is in quarantine",
    [PART_DIRTY] = "free granules kept for the next request",
    [PART_HUGE] = "brought along by huge pages",
    [PART_METADATA] = "descriptors, bit sets, headers",
    [PART_LIBRARY] = "the library itself",
    [PART_OTHER] = "not HMM's",
};

/* Something that takes memory: parts of one kind, or one mapping of others. */
struct cause {
    size_t bytes;
    char what[CAUSE_TEXT_MAX];
    char help[CAUSE_TEXT_MAX];
};

static size_t kind_bytes(const struct snapshot *snapshot, enum part_kind from, enum part_kind to)
{
    size_t bytes = 0;
    for (size_t i = 0; i < snapshot->part_count; i++) {
        bool is_in = snapshot->parts[i].kind >= from && snapshot->parts[i].kind <= to;
        bytes += is_in ? snapshot->parts[i].bytes : 0;
    }
    return bytes;
}

/* The class with the most bytes in slots of one standing. */
enum slot_standing { STANDING_USED, STANDING_FREE };

static const struct class_view *largest_class(const struct snapshot *snapshot,
                                              enum slot_standing standing, size_t *bytes)
{
    const struct class_view *largest = &snapshot->classes[0];
    *bytes = 0;
    for (size_t i = 0; i < CLASS_COUNT; i++) {
        const struct class_view *class = &snapshot->classes[i];
        size_t slots = standing == STANDING_USED ? class->used_slots : class->free_slots;
        if (slots * class->slot_bytes > *bytes) {
            *bytes = slots * class->slot_bytes;
            largest = class;
        }
    }
    return largest;
}

/* ----------------------------------------------------------------------------------- the causes */

static void cause_of_live(const struct snapshot *snapshot, struct cause *cause)
{
    char text[BYTES_TEXT_MAX];
    size_t bytes;
    const struct class_view *class = largest_class(snapshot, STANDING_USED, &bytes);
    int length =
        snprintf(cause->what, sizeof cause->what, "in %zu blocks that the program has not freed",
                 snapshot->totals.live_count);
    if (bytes != 0) {
        snprintf(cause->what + length, sizeof cause->what - (size_t)length,
                 ", most of the small ones in slots of %zu bytes (%s)", class->slot_bytes,
                 bytes_text(text, bytes));
    }
    snprintf(cause->help, sizeof cause->help,
             "only the program can give it back: fewer or smaller objects; "
             "hmm leaks -- PROGRAM shows where what it never frees comes from");
}

static void cause_of_free_slots(const struct snapshot *snapshot, struct cause *cause)
{
    char text[BYTES_TEXT_MAX];
    size_t bytes;
    const struct class_view *class = largest_class(snapshot, STANDING_FREE, &bytes);
    snprintf(cause->what, sizeof cause->what,
             "free, but on pages where other slots are in use: %s of it in slots of %zu bytes",
             bytes_text(text, bytes), class->slot_bytes);
    snprintf(cause->help, sizeof cause->help,
             "it serves the next requests of those sizes; objects that live long, allocated apart "
             "from short-lived ones (HmmHeapCreate), leave fewer such pages");
}

static void cause_of_dirty(const struct snapshot *snapshot, struct cause *cause)
{
    snprintf(cause->what, sizeof cause->what, "free, and kept for the next request");
    if (snapshot->options.purge == PURGE_PEAK) {
        snprintf(cause->help, sizeof cause->help,
                 "purge=peak keeps it; HMM_OPTIONS=purge=live keeps a share of what is live");
    } else {
        snprintf(cause->help, sizeof cause->help,
                 "HMM_OPTIONS=purge=0 gives it back as it is freed, purge=BYTES above so much, "
                 "scavenger=1 in an idle process; malloc_trim(0) gives it back "
                 "once");
    }
}

static void cause_of_caches(const struct snapshot *snapshot, struct cause *cause)
{
    snprintf(cause->what, sizeof cause->what, "free slots that %zu threads have at hand",
             snapshot->live_thread_count);
    snprintf(cause->help, sizeof cause->help,
             "fewer threads, or threads that end when they have nothing to do");
}

/* The kinds of which there is nothing more to tell. */
static void cause_plain(enum part_kind kind, struct cause *cause)
{
    static const struct {
        const char *what;
        const char *help;
    } texts[PART_KIND_COUNT] = {
        [PART_ROUNDING] = {"tags of blocks, and ends of slabs and runs that no block can use",
                           "larger blocks have fewer tags; sizes just above a class's waste most"},
        [PART_FREE_BLOCKS] = {"free blocks between blocks in use, and above the last one",
                              "malloc_trim(0) gives whole pages back; with the block engine "
                              "HMM_OPTIONS=fit=best packs closer"},
        [PART_HUGE] = {"brought along by huge pages, and not used yet",
                       "it is used as the heap grows; prctl(PR_SET_THP_DISABLE) keeps huge pages "
                       "away"},
        [PART_METADATA] = {"descriptors of granules, bit sets, threads and headers",
                           "it follows the heap's peak; HMM_OPTIONS=engine=block needs less for "
                           "small heaps"},
        [PART_LIBRARY] = {"the library's own code and data",
                          "a program linked with libhmm.a has only what it uses"},
    };
    snprintf(cause->what, sizeof cause->what, "%s", texts[kind].what);
    snprintf(cause->help, sizeof cause->help, "%s", texts[kind].help);
}

/* Whether some of the file can be executed. */
static bool is_module(const struct snapshot *snapshot, const char *name)
{
    for (size_t i = 0; i < snapshot->mapping_count; i++) {
        const struct mapping_view *mapping = &snapshot->mappings[i];
        if (mapping->access[2] == 'x' && strcmp(mapping->name, name) == 0) {
            return true;
        }
    }
    return false;
}

static void cause_of_other(const struct snapshot *snapshot, const struct part *part,
                           struct cause *cause)
{
    const char *name = part->name + strlen(part_kind_name(PART_OTHER)) + strlen(": ");
    if (name[0] == '/' && !is_module(snapshot, name)) {
        snprintf(cause->what, sizeof cause->what, "%s, which the program has mapped, not heap",
                 name);
        snprintf(cause->help, sizeof cause->help, "look for callers of mmap and shm_open");
    } else if (name[0] == '/') {
        snprintf(cause->what, sizeof cause->what, "code and data of %s, not heap", name);
        snprintf(cause->help, sizeof cause->help,
                 "code is shared with other processes that run it; nothing of HMM's would change "
                 "it");
    } else if (strcmp(name, "[heap]") == 0) {
        snprintf(cause->what, sizeof cause->what, "the program break, which somebody else moves");
        snprintf(
            cause->help, sizeof cause->help,
            "look for callers of sbrk, or for an allocator linked into the program (hmm doctor "
            "-- PROGRAM)");
    } else {
        snprintf(cause->what, sizeof cause->what, "%s, not heap", name);
        snprintf(cause->help, sizeof cause->help,
                 "stacks of threads (ulimit -s, pthread_attr_setstacksize) and what the program "
                 "maps itself (callers of mmap)");
    }
}

static void cause_fill(const struct snapshot *snapshot, enum part_kind kind, struct cause *cause)
{
    switch (kind) {
    case PART_LIVE_SMALL:
        cause_of_live(snapshot, cause);
        break;
    case PART_FREE_SLOTS:
        cause_of_free_slots(snapshot, cause);
        break;
    case PART_DIRTY:
        cause_of_dirty(snapshot, cause);
        break;
    case PART_CACHES:
        cause_of_caches(snapshot, cause);
        break;
    default:
        cause_plain(kind, cause);
        break;
    }
}

static int cause_compare(const void *a, const void *b)
{
    size_t left = ((const struct cause *)a)->bytes;
    size_t right = ((const struct cause *)b)->bytes;
    return (left < right) - (left > right);
}

/* All causes, the biggest first; *count of them. What is in use is one, whatever its size. */
static struct cause *causes_make(const struct snapshot *snapshot, size_t *count)
{
    struct cause *causes = calloc(PART_KIND_COUNT + snapshot->part_count, sizeof *causes);
    *count = 0;
    if (causes == NULL) {
        return NULL;
    }
    for (int kind = 0; kind < PART_OTHER; kind++) {
        bool is_live = kind <= PART_LIVE_HEAPS;
        if (is_live && kind != PART_LIVE_SMALL) {
            continue;
        }
        size_t bytes = kind_bytes(snapshot, (enum part_kind)kind,
                                  is_live ? PART_LIVE_HEAPS : (enum part_kind)kind);
        if (bytes != 0) {
            causes[*count].bytes = bytes;
            cause_fill(snapshot, (enum part_kind)kind, &causes[*count]);
            *count += 1;
        }
    }
    for (size_t i = 0; i < snapshot->part_count; i++) {
        if (snapshot->parts[i].kind == PART_OTHER) {
            causes[*count].bytes = snapshot->parts[i].bytes;
            cause_of_other(snapshot, &snapshot->parts[i], &causes[*count]);
            *count += 1;
        }
    }
    qsort(causes, *count, sizeof *causes, cause_compare);
    *count = *count < CAUSES_SHOWN ? *count : CAUSES_SHOWN;
    return causes;
}

/* ----------------------------------------------------------------------------------------- text */

static void print_row(FILE *stream, const char *name, size_t bytes, size_t whole, const char *help)
{
    char text[BYTES_TEXT_MAX];
    fprintf(stream, "  %-13s %11s %6.1f %%   %s\n", name, bytes_text(text, bytes),
            share_percent(bytes, whole), help);
}

static void print_parts(FILE *stream, const struct snapshot *snapshot)
{
    const size_t whole = snapshot->totals.resident_bytes;
    size_t shown = 0;
    size_t rest_bytes = 0;
    size_t rest_count = 0;
    for (size_t i = 0; i < snapshot->part_count; i++) {
        const struct part *part = &snapshot->parts[i];
        if (part->kind != PART_OTHER) {
            print_row(stream, part->name, part->bytes, whole, kind_help[part->kind]);
        } else if (shown++ < OTHERS_SHOWN) {
            print_row(stream, "other", part->bytes, whole,
                      part->name + strlen(part_kind_name(PART_OTHER)) + strlen(": "));
        } else {
            rest_bytes += part->bytes;
            rest_count++;
        }
    }
    if (rest_count != 0) {
        char help[64];
        snprintf(help, sizeof help, "%zu smaller ones; --json names them", rest_count);
        print_row(stream, "other", rest_bytes, whole, help);
    }
    print_row(stream, "together", whole, whole, "");
}

static void print_doubt(FILE *stream, const struct reader *reader, const struct snapshot *snapshot)
{
    const char *doubt = reader_doubt(reader, snapshot->has_changed, snapshot->is_unfit);
    if (doubt != NULL) {
        fprintf(stream, "It %s. How memory is shared out is near the truth.\n\n", doubt);
    }
}

void explain_print(FILE *stream, const struct reader *reader, const struct snapshot *snapshot)
{
    char resident[BYTES_TEXT_MAX];
    char ours[BYTES_TEXT_MAX];
    size_t cause_count;
    struct cause *causes = causes_make(snapshot, &cause_count);
    fprintf(stream, "%s: %s resident, %s of it heap\n\n", reader_name(reader),
            bytes_text(resident, snapshot->totals.resident_bytes),
            bytes_text(ours, snapshot->totals.resident_heap_bytes));
    print_doubt(stream, reader, snapshot);
    print_parts(stream, snapshot);
    fprintf(stream, "\nthe biggest causes:\n");
    for (size_t i = 0; causes != NULL && i < cause_count; i++) {
        char text[BYTES_TEXT_MAX];
        fprintf(stream, "  %zu. %s %s.\n     What would help: %s.\n", i + 1,
                bytes_text(text, causes[i].bytes), causes[i].what, causes[i].help);
    }
    if (reader_kind(reader) == READER_CORE) {
        fputs("\nof a core: pages that are not all zero count as resident, and files that it does "
              "not hold do not count\n",
              stream);
    }
    free(causes);
}

/* ----------------------------------------------------------------------------------------- JSON */

static const char *const kind_words[] = {"process", "core", "program"};

static void print_json(FILE *stream, const struct reader *reader, const struct snapshot *snapshot)
{
    size_t cause_count;
    struct cause *causes = causes_make(snapshot, &cause_count);
    fputs("{\n  \"name\": ", stream);
    json_string(stream, reader_name(reader));
    fprintf(stream,
            ",\n  \"kind\": \"%s\",\n  \"process_id\": %d,\n  \"changed\": %s,\n"
            "  \"resident_bytes\": %zu,\n  \"resident_heap_bytes\": %zu,\n  \"parts\": [",
            kind_words[reader_kind(reader)], (int)reader_process_id(reader),
            snapshot->has_changed ? "true" : "false", snapshot->totals.resident_bytes,
            snapshot->totals.resident_heap_bytes);
    for (size_t i = 0; i < snapshot->part_count; i++) {
        fprintf(stream, "%s\n    {\"name\": ", i != 0 ? "," : "");
        json_string(stream, snapshot->parts[i].name);
        fprintf(stream, ", \"kind\": \"%s\", \"bytes\": %zu}",
                part_kind_name(snapshot->parts[i].kind), snapshot->parts[i].bytes);
    }
    fputs("\n  ],\n  \"causes\": [", stream);
    for (size_t i = 0; causes != NULL && i < cause_count; i++) {
        fprintf(stream, "%s\n    {\"bytes\": %zu, \"what\": ", i != 0 ? "," : "", causes[i].bytes);
        json_string(stream, causes[i].what);
        fputs(", \"help\": ", stream);
        json_string(stream, causes[i].help);
        fputc('}', stream);
    }
    fputs("\n  ]\n}\n", stream);
    free(causes);
}

/* ---------------------------------------------------------------------------------- the command */

enum { OPTION_JSON, OPTION_OUTPUT };

static const struct command_option explain_options[] = {
    [OPTION_JSON] = {.name = "json", .help = "as JSON (docs/explain.schema.json)"},
    [OPTION_OUTPUT] = {.name = "output",
                       .value = "FILE",
                       .letter = 'o',
                       .help = "there instead of on standard output"},
    {0},
};

static int run_explain(const struct command_line *line)
{
    if (line->is_program && !command_output_check(line->options[OPTION_OUTPUT])) {
        return EXIT_TROUBLE;
    }
    struct reader *reader = reader_open(line->operands, line->is_program);
    if (reader == NULL) {
        return EXIT_TROUBLE;
    }
    int status = EXIT_TROUBLE;
    struct snapshot *snapshot = reader_read(reader, READ_PAGES | READ_BLOCKS);
    FILE *stream = snapshot != NULL ? command_output(line->options[OPTION_OUTPUT]) : NULL;
    if (stream != NULL) {
        if (line->options[OPTION_JSON] != NULL) {
            print_json(stream, reader, snapshot);
        } else {
            explain_print(stream, reader, snapshot);
        }
        status = command_finish(stream);
    }
    if (snapshot != NULL) {
        snapshot_free(snapshot);
    }
    (void)reader_close(reader);
    return status;
}

const struct command command_explain = {
    .name = "explain",
    .operands = "PID|CORE|-- PROGRAM [ARGUMENT...]",
    .summary = "where resident memory is, and what would help",
    .description =
        "Reconciles what the kernel counts as resident with what the heap knows: blocks in\n"
        "use, rounding, free slots and blocks on resident pages, threads' caches, free memory\n"
        "that is kept, metadata, what huge pages brought along, and, by name, what is not\n"
        "heap. The parts add up to the total. Below, the three biggest causes in words, and\n"
        "what would help.\n"
        "\n"
        "The process is not stopped. A program is run on the library beside this command and\n"
        "examined when it ends, before its memory goes.\n",
    .options = explain_options,
    .run = run_explain,
};
