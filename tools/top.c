/*
 * top.c - from snapshots to rows and rates. See top.h.
 *
 * Each slot that malloc hands out was put into a thread's bin once, and each medium block was
 * placed once; both are counted. So differences of those counters are the rate of malloc, late by
 * what a bin holds.
 */
#include "top.h"

#include <stdlib.h>
#include <string.h>

/* Of a counter that may begin anew: when threads end, theirs go. */
static double rate_of(size_t before, size_t now, double seconds)
{
    return now > before && seconds > 0 ? (double)(now - before) / seconds : 0;
}

/* ----------------------------------------------------------------------------------------- rows */

static struct top_row *row_add(struct top *top, const char *name)
{
    struct top_row *row = &top->rows[top->row_count];
    *row = (struct top_row){.order = top->row_count};
    snprintf(row->name, sizeof row->name, "%s", name);
    top->row_count++;
    return row;
}

static void take_classes(struct top *top, const struct snapshot *now, double seconds)
{
    for (unsigned i = 0; i < CLASS_COUNT; i++) {
        const struct class_view *class = &now->classes[i];
        if (class->slab_count == 0) {
            continue;
        }
        char name[TOP_ROW_TEXT_MAX];
        snprintf(name, sizeof name, "%zu", class->slot_bytes);
        struct top_row *row = row_add(top, name);
        size_t held_bytes = class->slab_count << GRANULE_SHIFT;
        row->used_count = class->used_slots;
        row->used_bytes = class->used_slots * class->slot_bytes;
        row->cached_bytes = class->cached_slots * class->slot_bytes;
        row->idle_bytes = size_less(held_bytes, row->used_bytes + row->cached_bytes);
        if (top->before != NULL) {
            row->calls_per_second =
                rate_of(top->before->classes[i].handed_slots, class->handed_slots, seconds);
        }
    }
}

/* A heap inside another one's block is counted there. */
static void take_heap(struct top_row *row, const struct heap_view *heap)
{
    if (!heap->is_nested) {
        row->used_count += heap->stats.live_count;
        row->used_bytes += heap->stats.live_bytes;
        row->cached_bytes += heap->held_bytes;
        row->idle_bytes +=
            size_less(heap->stats.break_bytes, heap->stats.live_bytes + heap->held_bytes);
    }
}

static void take_others(struct top *top, const struct snapshot *now, double seconds)
{
    if (now->medium.zone_count > 0) {
        struct top_row *row = row_add(top, "medium");
        row->used_count = now->medium.live_count;
        row->used_bytes = now->medium.live_bytes;
        row->cached_bytes = now->medium.cached_bytes;
        row->idle_bytes =
            size_less(now->medium.held_bytes, now->medium.live_bytes + now->medium.cached_bytes);
        if (top->before != NULL) {
            row->calls_per_second =
                rate_of(top->before->medium.placed_count, now->medium.placed_count, seconds);
        }
    }
    if (now->large.live_count > 0) {
        struct top_row *row = row_add(top, "large");
        row->used_count = now->large.live_count;
        row->used_bytes = now->large.live_bytes;
        row->idle_bytes = size_less(now->large.held_bytes, now->large.live_bytes);
    }
    if (now->heap_count > 0) {
        struct top_row *row = row_add(top, "tagged");
        for (size_t i = 0; i < now->heap_count; i++) {
            take_heap(row, &now->heaps[i]);
        }
    }
}

/* NULL: it was not there, or is dormant. */
static const struct thread_view *thread_find(const struct snapshot *snapshot, uintptr_t pointer)
{
    for (size_t i = 0; snapshot != NULL && pointer != 0 && i < snapshot->thread_count; i++) {
        if (snapshot->threads[i].pointer == pointer) {
            return &snapshot->threads[i];
        }
    }
    return NULL;
}

static bool take_threads(struct top *top, const struct snapshot *now, double seconds)
{
    free(top->threads);
    top->thread_count = 0;
    top->threads = calloc(now->thread_count + 1, sizeof *top->threads);
    if (top->threads == NULL) {
        return false;
    }
    for (size_t i = 0; i < now->thread_count; i++) {
        const struct thread_view *thread = &now->threads[i];
        const struct thread_view *before = thread_find(top->before, thread->pointer);
        struct top_thread_row *row = &top->threads[top->thread_count++];
        if (thread->is_dormant) {
            snprintf(row->name, sizeof row->name, "has ended");
        } else {
            snprintf(row->name, sizeof row->name, "%#zx", thread->pointer);
        }
        row->slab_count = thread->slab_count;
        row->cached_bytes = thread->cached_bytes;
        row->batched_slots = thread->batched_slots;
        if (before != NULL) {
            row->calls_per_second = rate_of(before->handed_slots, thread->handed_slots, seconds);
            row->refills_per_second = rate_of(before->refill_count, thread->refill_count, seconds);
        }
    }
    return true;
}

/* ---------------------------------------------------------------------------------------- order */

static int compare_sizes(const void *left, const void *right)
{
    const struct top_row *a = left;
    const struct top_row *b = right;
    return a->order < b->order ? -1 : a->order > b->order;
}

/* More comes first; rows of one amount by size, so that they stay where they are. */
static int compare_amounts(double a, double b, const void *left, const void *right)
{
    return a > b ? -1 : a < b ? 1 : compare_sizes(left, right);
}

static int compare_bytes(const void *left, const void *right)
{
    return compare_amounts((double)((const struct top_row *)left)->used_bytes,
                           (double)((const struct top_row *)right)->used_bytes, left, right);
}

static int compare_idle(const void *left, const void *right)
{
    return compare_amounts((double)((const struct top_row *)left)->idle_bytes,
                           (double)((const struct top_row *)right)->idle_bytes, left, right);
}

static int compare_calls(const void *left, const void *right)
{
    return compare_amounts(((const struct top_row *)left)->calls_per_second,
                           ((const struct top_row *)right)->calls_per_second, left, right);
}

void top_order(struct top *top)
{
    static int (*const compare[TOP_SORT_COUNT])(const void *, const void *) = {
        [TOP_BY_BYTES] = compare_bytes,
        [TOP_BY_IDLE] = compare_idle,
        [TOP_BY_CALLS] = compare_calls,
        [TOP_BY_SIZE] = compare_sizes,
    };
    qsort(top->rows, top->row_count, sizeof top->rows[0], compare[top->sort]);
}

/* -------------------------------------------------------------------------------------- history */

static void history_add(struct top *top, struct top_sample sample)
{
    if (top->history_count == TOP_HISTORY_MAX) {
        top->history_first = (top->history_first + 1) % TOP_HISTORY_MAX;
        top->history_count--;
    }
    top->history[(top->history_first + top->history_count) % TOP_HISTORY_MAX] = sample;
    top->history_count++;
}

const struct top_sample *top_sample_at(const struct top *top, size_t age)
{
    return &top->history[(top->history_first + top->history_count - 1 - age) % TOP_HISTORY_MAX];
}

bool top_take(struct top *top, struct snapshot *snapshot, double seconds)
{
    double passed = seconds - top->before_seconds;
    top->row_count = 0;
    take_classes(top, snapshot, passed);
    take_others(top, snapshot, passed);
    bool is_taken = take_threads(top, snapshot, passed);
    top->has_changed = snapshot->has_changed;
    top->engine = snapshot->engine;
    top->totals = snapshot->totals;
    struct top_sample sample = {.live_bytes = snapshot->totals.live_bytes,
                                .resident_bytes = snapshot->totals.resident_bytes};
    for (size_t i = 0; i < top->row_count; i++) {
        sample.calls_per_second += top->rows[i].calls_per_second;
    }
    history_add(top, sample);
    top_order(top);
    if (top->before != NULL) {
        snapshot_free(top->before);
    }
    top->before = snapshot;
    top->before_seconds = seconds;
    return is_taken;
}

void top_end(struct top *top)
{
    if (top->before != NULL) {
        snapshot_free(top->before);
    }
    free(top->threads);
}
