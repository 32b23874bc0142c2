/*
 * cmd_stat.c - `hmm stat`: the heap's numbers, for people, for programs and for Prometheus.
 */
#include "command.h"
#include "hmm.h"
#include "reader.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static const char *engine_name(const struct snapshot *snapshot)
{
    static const char *const names[] = {"none", "fast", "block"};
    return names[snapshot->engine];
}

/* One number: its name in JSON and, behind hmm_, in OpenMetrics. */
struct number {
    const char *name;
    size_t value;
    const char *help;
};

enum { NUMBER_COUNT = 14 };

static void numbers_make(const struct snapshot *snapshot, struct number numbers[NUMBER_COUNT])
{
    const struct totals *totals = &snapshot->totals;
    const struct number all[NUMBER_COUNT] = {
        {"resident_bytes", totals->resident_bytes, "the whole process, as the kernel counts it"},
        {"live_bytes", totals->live_bytes, "usable bytes of blocks in use"},
        {"live_blocks", totals->live_count, "blocks in use"},
        {"cached_bytes", totals->cached_bytes,
         "free in threads' bins and batches, and in quarantine"},
        {"free_bytes", totals->free_bytes, "free slots and free blocks in slabs, zones and heaps"},
        {"dirty_bytes", totals->dirty_bytes, "free memory that was not given back to the system"},
        {"metadata_bytes", totals->metadata_bytes, "descriptors, bit sets, headers and tags"},
        {"held_bytes", totals->held_bytes, "what slabs, zones, large blocks and heaps hold"},
        {"peak_bytes", totals->peak_bytes,
         "the most that they ever held; of heaps the most that was ever live"},
        {"reserved_bytes", totals->reserved_bytes, "address space for blocks"},
        {"swapped_bytes", totals->swapped_bytes, "the whole process, on swap"},
        {"mappings", totals->mapping_count, "of the whole process"},
        {"threads", snapshot->live_thread_count, "that have bins"},
        {"heaps", snapshot->heap_count, "block heaps: the process's, and created ones"},
    };
    memcpy(numbers, all, sizeof all);
}

/* ----------------------------------------------------------------------------------------- text */

static void print_classes(FILE *stream, const struct snapshot *snapshot)
{
    char used[BYTES_TEXT_MAX];
    char cached[BYTES_TEXT_MAX];
    char free_text[BYTES_TEXT_MAX];
    fprintf(stream, "\n  %6s %8s %10s %11s %11s %11s %8s\n", "slot", "slabs", "in use", "bytes",
            "cached", "free", "free %");
    for (size_t i = 0; i < CLASS_COUNT; i++) {
        const struct class_view *class = &snapshot->classes[i];
        if (class->slab_count != 0) {
            fprintf(stream, "  %6zu %8zu %10zu %11s %11s %11s %8.1f\n", class->slot_bytes,
                    class->slab_count, class->used_slots,
                    bytes_text(used, class->used_slots * class->slot_bytes),
                    bytes_text(cached, class->cached_slots * class->slot_bytes),
                    bytes_text(free_text, class->free_slots * class->slot_bytes),
                    share_percent(class->free_slots, class->carved_slots));
        }
    }
    const struct medium_view *medium = &snapshot->medium;
    if (medium->zone_count != 0) {
        fprintf(stream, "  %6s %8zu %10zu %11s %11s %11s %8.1f\n", "medium", medium->zone_count,
                medium->live_count, bytes_text(used, medium->live_bytes), "",
                bytes_text(free_text, medium->free_bytes),
                share_percent(medium->free_bytes, medium->live_bytes + medium->free_bytes));
    }
    if (snapshot->large.live_count != 0) {
        fprintf(stream, "  %6s %8s %10zu %11s\n", "large", "", snapshot->large.live_count,
                bytes_text(used, snapshot->large.live_bytes));
    }
}

static void print_heaps(FILE *stream, const struct snapshot *snapshot)
{
    char live[BYTES_TEXT_MAX];
    char held[BYTES_TEXT_MAX];
    char free_text[BYTES_TEXT_MAX];
    if (snapshot->heap_count == 0) {
        return;
    }
    fprintf(stream, "\n  %-18s %10s %11s %11s %11s\n", "block heap", "in use", "bytes", "free",
            "held");
    for (size_t i = 0; i < snapshot->heap_count; i++) {
        const struct heap_view *heap = &snapshot->heaps[i];
        char name[32];
        snprintf(name, sizeof name, heap->is_process ? "the process's" : "0x%zx",
                 (size_t)heap->address);
        fprintf(stream, "  %-18s %10zu %11s %11s %11s\n", name, heap->stats.live_count,
                bytes_text(live, heap->stats.live_bytes),
                bytes_text(free_text, heap->stats.free_bytes),
                bytes_text(held, heap->stats.break_bytes));
    }
}

static void print_text(FILE *stream, const struct reader *reader, const struct snapshot *snapshot)
{
    struct number numbers[NUMBER_COUNT];
    char text[BYTES_TEXT_MAX];
    numbers_make(snapshot, numbers);
    const char *doubt = reader_doubt(reader, snapshot->has_changed, snapshot->is_unfit);
    fprintf(stream, "%s: engine %s", reader_name(reader), engine_name(snapshot));
    if (doubt != NULL) {
        fprintf(stream, " (%s)", doubt);
    }
    fputs("\n\n", stream);
    for (size_t i = 0; i < NUMBER_COUNT; i++) {
        bool is_bytes = strstr(numbers[i].name, "bytes") != NULL;
        char label[32];
        snprintf(label, sizeof label, "%.*s", (int)strcspn(numbers[i].name, "_"), numbers[i].name);
        if (is_bytes) {
            bytes_text(text, numbers[i].value);
        } else {
            snprintf(text, sizeof text, "%zu", numbers[i].value);
            snprintf(label, sizeof label, "%s",
                     strcmp(numbers[i].name, "live_blocks") == 0 ? "blocks" : numbers[i].name);
        }
        fprintf(stream, "  %-10s %11s   %s\n", label, text, numbers[i].help);
    }
    if (snapshot->engine == ENGINE_FAST) {
        print_classes(stream, snapshot);
    }
    print_heaps(stream, snapshot);
}

/* ----------------------------------------------------------------------------------------- JSON */

static void json_classes(FILE *stream, const struct snapshot *snapshot)
{
    bool is_first = true;
    fputs("\"classes\": [", stream);
    for (size_t i = 0; i < CLASS_COUNT; i++) {
        const struct class_view *class = &snapshot->classes[i];
        if (class->slab_count != 0) {
            fprintf(stream,
                    "%s{\"slot_bytes\": %zu, \"slabs\": %zu, \"carved_slots\": %zu, "
                    "\"used_slots\": %zu, \"cached_slots\": %zu, \"free_slots\": %zu, "
                    "\"free_percent\": %.2f, \"handed_slots\": %zu}",
                    is_first ? "" : ", ", class->slot_bytes, class->slab_count, class->carved_slots,
                    class->used_slots, class->cached_slots, class->free_slots,
                    share_percent(class->free_slots, class->carved_slots), class->handed_slots);
            is_first = false;
        }
    }
    fputs("]", stream);
}

static void json_threads(FILE *stream, const struct snapshot *snapshot)
{
    fputs("\"thread_list\": [", stream);
    for (size_t i = 0; i < snapshot->thread_count; i++) {
        const struct thread_view *thread = &snapshot->threads[i];
        fprintf(
            stream,
            "%s{\"dormant\": %s, \"slabs\": %zu, \"cached_bytes\": %zu, \"batched_slots\": %zu, "
            "\"handed_slots\": %zu, \"refills\": %zu}",
            i != 0 ? ", " : "", thread->is_dormant ? "true" : "false", thread->slab_count,
            thread->cached_bytes, thread->batched_slots, thread->handed_slots,
            thread->refill_count);
    }
    fputs("]", stream);
}

static void json_heaps(FILE *stream, const struct snapshot *snapshot)
{
    fputs("\"heap_list\": [", stream);
    for (size_t i = 0; i < snapshot->heap_count; i++) {
        const struct heap_view *heap = &snapshot->heaps[i];
        fprintf(stream,
                "%s{\"address\": \"0x%zx\", \"process\": %s, \"live_bytes\": %zu, "
                "\"live_blocks\": %zu, \"free_bytes\": %zu, \"free_blocks\": %zu, "
                "\"held_bytes\": %zu, \"capacity_bytes\": %zu, \"peak_live_bytes\": %zu, "
                "\"failed_requests\": %zu}",
                i != 0 ? ", " : "", (size_t)heap->address, heap->is_process ? "true" : "false",
                heap->stats.live_bytes, heap->stats.live_count, heap->stats.free_bytes,
                heap->stats.free_count, heap->stats.break_bytes, heap->stats.capacity_bytes,
                heap->stats.peak_live_bytes, heap->stats.failed_count);
    }
    fputs("]", stream);
}

/* On one line, so that --watch gives a line a sample. */
static void print_json(FILE *stream, const struct reader *reader, const struct snapshot *snapshot)
{
    struct number numbers[NUMBER_COUNT];
    numbers_make(snapshot, numbers);
    fputs("{\"name\": ", stream);
    json_string(stream, reader_name(reader));
    fprintf(stream, ", \"process_id\": %d, \"engine\": \"%s\", \"changed\": %s, ",
            (int)reader_process_id(reader), engine_name(snapshot),
            snapshot->has_changed ? "true" : "false");
    for (size_t i = 0; i < NUMBER_COUNT; i++) {
        fprintf(stream, "\"%s\": %zu, ", numbers[i].name, numbers[i].value);
    }
    fprintf(stream,
            "\"medium\": {\"zones\": %zu, \"live_bytes\": %zu, \"live_blocks\": %zu, "
            "\"free_bytes\": %zu, \"free_blocks\": %zu, \"dirty_bytes\": %zu, "
            "\"placed_blocks\": %zu}, ",
            snapshot->medium.zone_count, snapshot->medium.live_bytes, snapshot->medium.live_count,
            snapshot->medium.free_bytes, snapshot->medium.free_count, snapshot->medium.dirty_bytes,
            snapshot->medium.placed_count);
    fprintf(stream, "\"large\": {\"live_bytes\": %zu, \"live_blocks\": %zu, \"held_bytes\": %zu}, ",
            snapshot->large.live_bytes, snapshot->large.live_count, snapshot->large.held_bytes);
    json_classes(stream, snapshot);
    fputs(", ", stream);
    json_threads(stream, snapshot);
    fputs(", ", stream);
    json_heaps(stream, snapshot);
    fputs("}\n", stream);
}

/* ---------------------------------------------------------------------------------- OpenMetrics */

/* What only counts up is left without a type: the older text format and OpenMetrics name counters
 * differently, and without one it is valid in both. */
static void metric_head(FILE *stream, const char *name, const char *type, const char *help)
{
    fprintf(stream, "# HELP hmm_%s %s\n", name, help);
    if (type != NULL) {
        fprintf(stream, "# TYPE hmm_%s %s\n", name, type);
    }
}

struct class_metric {
    const char *name;
    const char *type;
    const char *help;
    size_t offset_bytes;
};

static void print_metrics(FILE *stream, const struct reader *reader,
                          const struct snapshot *snapshot)
{
    static const struct class_metric metrics[] = {
        {"class_used_slots", "gauge", "slots in use", offsetof(struct class_view, used_slots)},
        {"class_cached_slots", "gauge", "free slots in bins and batches of threads",
         offsetof(struct class_view, cached_slots)},
        {"class_free_slots", "gauge", "free slots in slabs",
         offsetof(struct class_view, free_slots)},
        {"class_slabs", "gauge", "slabs of 64 KiB", offsetof(struct class_view, slab_count)},
        {"class_handed_slots", NULL, "slots ever put into bins: its rate is that of malloc",
         offsetof(struct class_view, handed_slots)},
    };
    struct number numbers[NUMBER_COUNT];
    const int process_id = (int)reader_process_id(reader);
    numbers_make(snapshot, numbers);
    for (size_t i = 0; i < NUMBER_COUNT; i++) {
        metric_head(stream, numbers[i].name, "gauge", numbers[i].help);
        fprintf(stream, "hmm_%s{pid=\"%d\"} %zu\n", numbers[i].name, process_id, numbers[i].value);
    }
    for (size_t metric = 0; metric < sizeof metrics / sizeof metrics[0]; metric++) {
        metric_head(stream, metrics[metric].name, metrics[metric].type, metrics[metric].help);
        for (size_t i = 0; i < CLASS_COUNT; i++) {
            const struct class_view *class = &snapshot->classes[i];
            if (class->slab_count != 0) {
                size_t value =
                    *(const size_t *)((const char *)class + metrics[metric].offset_bytes);
                fprintf(stream, "hmm_%s{pid=\"%d\",slot_bytes=\"%zu\"} %zu\n", metrics[metric].name,
                        process_id, class->slot_bytes, value);
            }
        }
    }
    fputs("# EOF\n", stream);
}

/* -------------------------------------------------------------------------------------- --watch */

/* "1.5 MiB" as "1.5M". */
static const char *tight(char *text)
{
    char *space = strchr(text, ' ');
    if (space != NULL) {
        space[0] = space[1];
        space[1] = '\0';
    }
    return text;
}

static const char *tight_bytes(char text[BYTES_TEXT_MAX], size_t bytes)
{
    bytes_text(text, bytes);
    return tight(text);
}

/* One line of less than 80 columns; on a terminal it takes the place of the last, which one that
 * was broken into two would not. */
static void print_progress(FILE *stream, const struct snapshot *snapshot)
{
    char live[BYTES_TEXT_MAX];
    char blocks[BYTES_TEXT_MAX];
    char cached[BYTES_TEXT_MAX];
    char dirty[BYTES_TEXT_MAX];
    char resident[BYTES_TEXT_MAX];
    char clock[16];
    const bool is_terminal = isatty(fileno(stream)) != 0;
    time_t now = time(NULL);
    strftime(clock, sizeof clock, "%H:%M:%S", localtime(&now));
    count_text(blocks, (double)snapshot->totals.live_count);
    fprintf(stream, "%s%s live %7s in %6s cached %7s dirty %7s resident %7s%s%s",
            is_terminal ? "\r" : "", clock, tight_bytes(live, snapshot->totals.live_bytes),
            tight(blocks), tight_bytes(cached, snapshot->totals.cached_bytes),
            tight_bytes(dirty, snapshot->totals.dirty_bytes),
            tight_bytes(resident, snapshot->totals.resident_bytes),
            snapshot->has_changed ? " ~" : "  ", is_terminal ? "\033[K" : "\n");
}

/* ---------------------------------------------------------------------------------- the command */

enum {
    OPTION_JSON,
    OPTION_OPENMETRICS,
    OPTION_WATCH,
    OPTION_INTERVAL,
    OPTION_COUNT_MAX,
    OPTION_OUTPUT
};

static const struct command_option stat_options[] = {
    [OPTION_JSON] = {.name = "json", .help = "as JSON on one line (docs/stat.schema.json)"},
    [OPTION_OPENMETRICS] = {.name = "openmetrics",
                            .help = "as OpenMetrics, which Prometheus reads too"},
    [OPTION_WATCH] = {.name = "watch", .help = "again and again, a line each time"},
    [OPTION_INTERVAL] = {.name = "interval",
                         .value = "SECONDS",
                         .help = "how often --watch looks (1)"},
    [OPTION_COUNT_MAX] = {.name = "count",
                          .value = "NUMBER",
                          .help = "how often in all (until the process ends)"},
    [OPTION_OUTPUT] = {.name = "output",
                       .value = "FILE",
                       .letter = 'o',
                       .help = "there instead of on standard output"},
    {0},
};

static void print_one(FILE *stream, const struct command_line *line, const struct reader *reader,
                      const struct snapshot *snapshot)
{
    if (line->options[OPTION_JSON] != NULL) {
        print_json(stream, reader, snapshot);
    } else if (line->options[OPTION_OPENMETRICS] != NULL) {
        print_metrics(stream, reader, snapshot);
    } else if (line->options[OPTION_WATCH] != NULL) {
        print_progress(stream, snapshot);
    } else {
        print_text(stream, reader, snapshot);
    }
}

/* How often, and how long between; false: the options make no sense. */
static bool schedule(const struct command_line *line, unsigned long *count,
                     struct timespec *interval)
{
    const double ns_per_s = 1e9;
    const double shortest_s = 1e-6;
    const double day_s = 86400;
    const char *interval_text = line->options[OPTION_INTERVAL];
    const char *times_text = line->options[OPTION_COUNT_MAX];
    char *end = "";
    double seconds = interval_text != NULL ? strtod(interval_text, &end) : 1;
    bool is_good = *end == '\0' && seconds >= shortest_s && seconds <= day_s;
    *count = times_text != NULL ? strtoul(times_text, &end, 10) : ~0ul;
    is_good &= *end == '\0' && *count > 0;
    /* strtoul takes a sign. */
    is_good &= times_text == NULL || isdigit((unsigned char)times_text[0]);
    if (!is_good) {
        return false;
    }
    *interval = (struct timespec){.tv_sec = (time_t)seconds};
    interval->tv_nsec = (long)((seconds - (double)interval->tv_sec) * ns_per_s);
    if (line->options[OPTION_WATCH] == NULL) {
        *count = 1;
    }
    return true;
}

/* Waits for the next look, which is due `interval` after the last one was. One that took longer is
 * not made up for. */
static void wait_for_next(struct timespec *due, struct timespec interval)
{
    const long ns_per_s = 1000000000;
    struct timespec now;
    due->tv_sec += interval.tv_sec;
    due->tv_nsec += interval.tv_nsec;
    if (due->tv_nsec >= ns_per_s) {
        due->tv_sec++;
        due->tv_nsec -= ns_per_s;
    }
    clock_gettime(CLOCK_MONOTONIC, &now);
    if (due->tv_sec < now.tv_sec || (due->tv_sec == now.tv_sec && due->tv_nsec < now.tv_nsec)) {
        *due = now;
    }
    clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, due, NULL);
}

/* The process may end between two looks: that is how a watch ends. */
static int watch(FILE *stream, const struct command_line *line, struct reader *reader,
                 unsigned long count, struct timespec interval)
{
    struct timespec due;
    /* A line of progress does not tell of mappings, of which there may be many. */
    const bool is_progress = line->options[OPTION_WATCH] != NULL &&
                             line->options[OPTION_JSON] == NULL &&
                             line->options[OPTION_OPENMETRICS] == NULL;
    reader_watch(reader);
    clock_gettime(CLOCK_MONOTONIC, &due);
    for (unsigned long done = 0; done < count; done++) {
        if (done != 0) {
            wait_for_next(&due, interval);
        }
        struct snapshot *snapshot =
            reader_read(reader, is_progress ? READ_COUNTERS : READ_MAPPINGS);
        if (snapshot == NULL) {
            return done == 0 ? EXIT_TROUBLE : EXIT_SUCCESS;
        }
        print_one(stream, line, reader, snapshot);
        snapshot_free(snapshot);
        if (!command_flush(stream)) {
            break;
        }
    }
    if (line->options[OPTION_WATCH] != NULL && isatty(fileno(stream)) != 0) {
        fputc('\n', stream);
    }
    return EXIT_SUCCESS;
}

static int run_stat(const struct command_line *line)
{
    unsigned long count;
    struct timespec interval;
    if (!schedule(line, &count, &interval)) {
        return COMMAND_TROUBLE("--interval and --count want a number above 0");
    }
    const bool is_watch = line->options[OPTION_WATCH] != NULL;
    if (is_watch && line->is_program) {
        return COMMAND_TROUBLE("--watch wants a process id");
    }
    if (line->is_program && !command_output_check(line->options[OPTION_OUTPUT])) {
        return EXIT_TROUBLE;
    }
    struct reader *reader = reader_open(line->operands, line->is_program);
    if (reader == NULL) {
        return EXIT_TROUBLE;
    }
    if (is_watch && reader_kind(reader) != READER_PROCESS) {
        (void)reader_close(reader);
        return COMMAND_TROUBLE("--watch wants a process id");
    }
    int status = EXIT_TROUBLE;
    FILE *stream = command_output(line->options[OPTION_OUTPUT]);
    if (stream != NULL) {
        status = watch(stream, line, reader, count, interval);
        int finished = command_finish(stream);
        status = status != EXIT_SUCCESS ? status : finished;
    }
    (void)reader_close(reader);
    return status;
}

const struct command command_stat = {
    .name = "stat",
    .operands = "PID|CORE|-- PROGRAM [ARGUMENT...]",
    .summary = "the heap's numbers, as text, JSON or OpenMetrics",
    .description =
        "What is live, cached by threads, free, dirty and metadata; slots in use and free by\n"
        "class; medium and large blocks; block heaps. Nothing has to be switched on before, and\n"
        "the process is not stopped: numbers that changed while they were read are marked.\n"
        "\n"
        "A program is run on the library beside this command and examined when it ends, before\n"
        "its memory goes.\n",
    .options = stat_options,
    .run = run_stat,
};
