/*
 * top.h - what `hmm top` knows: the last snapshots of a process as rows, rates and a history.
 *
 * top.c takes snapshots in and knows nothing of terminals. A screen (top_ncurses.c, or top_none.c
 * where there is no ncurses) draws what is here and asks for more.
 */
#ifndef HMM_TOP_H
#define HMM_TOP_H

#include "command.h"
#include "reader.h"

enum {
    TOP_HISTORY_MAX = 1024, /* samples; a screen is narrower */
    TOP_ROW_TEXT_MAX = 32,
    TOP_ROWS_MAX = CLASS_COUNT + 3, /* classes, medium, large and tagged blocks */
};

/* One moment. */
struct top_sample {
    size_t live_bytes;
    size_t resident_bytes;
    double calls_per_second; /* blocks handed out since the sample before */
};

/* What blocks of about one size take. */
struct top_row {
    char name[TOP_ROW_TEXT_MAX];
    size_t order; /* by size */
    size_t used_count;
    size_t used_bytes;
    size_t cached_bytes; /* in threads' bins */
    size_t idle_bytes;   /* held, but neither in use nor in a bin */
    double calls_per_second;
};

struct top_thread_row {
    char name[TOP_ROW_TEXT_MAX];
    size_t slab_count;
    size_t cached_bytes;
    size_t batched_slots;
    double calls_per_second;
    double refills_per_second;
};

enum top_sort { TOP_BY_BYTES, TOP_BY_IDLE, TOP_BY_CALLS, TOP_BY_SIZE, TOP_SORT_COUNT };

struct top {
    enum top_sort sort;
    /* the last sample */
    bool has_changed; /* while it was read */
    enum engine engine;
    struct totals totals;
    struct top_row rows[TOP_ROWS_MAX];
    size_t row_count;
    struct top_thread_row *threads;
    size_t thread_count;
    /* the oldest first, at history[(history_first + i) % TOP_HISTORY_MAX] */
    struct top_sample history[TOP_HISTORY_MAX];
    size_t history_first;
    size_t history_count;
    /* what the rates are the difference to */
    struct snapshot *before; /* NULL: nothing yet */
    double before_seconds;
};

/* Takes a snapshot in, and keeps it for the next rates. `seconds` is the time of any clock that
 * only goes forward. false: no memory. */
bool top_take(struct top *top, struct snapshot *snapshot, double seconds);

/* Orders the rows as `top->sort` says. */
void top_order(struct top *top);

/* The sample `age` before the last one. */
const struct top_sample *top_sample_at(const struct top *top, size_t age);

void top_end(struct top *top);

/* Whether there is a screen to draw on. false: a line on standard error has said why not. */
bool top_screen_can_open(void);

/* Draws, samples every `interval_ms` and answers keys, until the reader of the screen has enough or
 * the process ends. The exit status. */
int top_screen_run(struct reader *reader, struct top *top, int interval_ms);

#endif
