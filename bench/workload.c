/*
 * workload.c - six workloads, and how they are replayed. See workload.h.
 *
 * The live sets are some thousand blocks: enough to outgrow the first caches and to show what a
 * search through thousands of free blocks costs, small enough for such a search to end in seconds.
 */
#include "workload.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BYTES_MIN = 16 }; /* a mark at either end, and the smallest block of most heaps */

/* ------------------------------------------------------------------------------ writing it down */

struct writer {
    struct workload *workload;
    size_t capacity; /* operations */
    uint64_t random;
    uint32_t *held_bytes; /* by slot, 0: empty */
    size_t live_bytes;
};

/* splitmix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014): a
 * counter whose bits are mixed. */
static uint64_t writer_random(struct writer *writer)
{
    uint64_t mixed = writer->random += 0x9e3779b97f4a7c15;
    mixed = (mixed ^ mixed >> 30) * 0xbf58476d1ce4e5b9;
    mixed = (mixed ^ mixed >> 27) * 0x94d049bb133111eb;
    return mixed ^ mixed >> 31;
}

static uint32_t writer_below(struct writer *writer, size_t limit)
{
    return (uint32_t)(writer_random(writer) % limit);
}

static bool writer_has_chance(struct writer *writer, uint32_t percent)
{
    return writer_below(writer, 100) < percent;
}

static uint32_t writer_slot(struct writer *writer)
{
    return writer_below(writer, writer->workload->slot_count);
}

static uint32_t bytes_between(struct writer *writer, uint32_t least_bytes, uint32_t most_bytes)
{
    return least_bytes + writer_below(writer, most_bytes - least_bytes + 1);
}

/* Each doubling from `least_bytes` on, `doublings` of them, is as likely as the next. */
static uint32_t bytes_log_uniform(struct writer *writer, uint32_t least_bytes, uint32_t doublings)
{
    uint32_t low_bytes = least_bytes << writer_below(writer, doublings);
    return bytes_between(writer, low_bytes, 2 * low_bytes - 1);
}

static uint32_t bytes_uniform(struct writer *writer)
{
    return bytes_between(writer, BYTES_MIN, 1024);
}

/* A power law from 16 bytes to 64 KiB: each doubling is 0.62 times as likely as the one before. */
static uint32_t bytes_heavy_tail(struct writer *writer)
{
    const uint32_t doublings = 12;
    uint32_t doubling = 0;
    while (writer_has_chance(writer, 62)) {
        doubling = (doubling + 1) % doublings;
    }
    uint32_t low_bytes = (uint32_t)BYTES_MIN << doubling;
    return bytes_between(writer, low_bytes, 2 * low_bytes - 1);
}

static bool writer_is_done(const struct writer *writer)
{
    return writer->workload->operation_count == writer->capacity;
}

/* A finished writer takes no more, so that loops need to ask only now and then. */
static void writer_put(struct writer *writer, uint32_t slot, uint32_t bytes)
{
    struct workload *workload = writer->workload;
    if (writer_is_done(writer)) {
        return;
    }
    workload->operations[workload->operation_count++] = (struct operation){slot, bytes};
    writer->live_bytes += bytes;
    writer->live_bytes -= writer->held_bytes[slot];
    writer->held_bytes[slot] = bytes;
    if (writer->live_bytes > workload->peak_live_bytes) {
        workload->peak_live_bytes = writer->live_bytes;
    }
}

/* An empty slot gets a block, a held one loses it: about half of the slots are held in the end. */
static void writer_toggle(struct writer *writer, uint32_t slot,
                          uint32_t (*bytes_next)(struct writer *))
{
    writer_put(writer, slot, writer->held_bytes[slot] == 0 ? bytes_next(writer) : 0);
}

static void write_uniform(struct writer *writer)
{
    while (!writer_is_done(writer)) {
        writer_toggle(writer, writer_slot(writer), bytes_uniform);
    }
}

static void write_heavy_tail(struct writer *writer)
{
    while (!writer_is_done(writer)) {
        writer_toggle(writer, writer_slot(writer), bytes_heavy_tail);
    }
}

/* The consumer falls behind until all slots are held, and then catches up. */
static void write_queue(struct writer *writer)
{
    const size_t slot_count = writer->workload->slot_count;
    size_t put_count = 0;
    size_t taken_count = 0;
    bool is_filling = true;
    while (!writer_is_done(writer)) {
        size_t length = put_count - taken_count;
        if (length == 0 || length == slot_count) {
            is_filling = length == 0;
        }
        bool is_put =
            length == 0 || (length < slot_count && writer_has_chance(writer, is_filling ? 60 : 40));
        size_t turn = is_put ? put_count++ : taken_count++;
        writer_put(writer, (uint32_t)(turn % slot_count),
                   is_put ? bytes_log_uniform(writer, 32, 7) : 0);
    }
}

static void ramp_up(struct writer *writer, uint32_t least_bytes, size_t budget_bytes)
{
    const size_t slot_count = writer->workload->slot_count;
    for (uint32_t slot = 0; slot < slot_count && writer->live_bytes < budget_bytes; slot++) {
        if (writer->held_bytes[slot] == 0) {
            writer_put(writer, slot, bytes_log_uniform(writer, least_bytes, 3));
        }
    }
}

/* The last block in is the first out, but three in a hundred stay for another phase. */
static void ramp_down(struct writer *writer)
{
    for (uint32_t slot = (uint32_t)writer->workload->slot_count; slot-- > 0;) {
        if (writer->held_bytes[slot] != 0 && !writer_has_chance(writer, 3)) {
            writer_put(writer, slot, 0);
        }
    }
}

static void write_phases(struct writer *writer)
{
    const size_t budget_bytes = 1 << 20;
    while (!writer_is_done(writer)) {
        uint32_t least_bytes = 32u << writer_below(writer, 5);
        ramp_up(writer, least_bytes, budget_bytes);
        ramp_down(writer);
    }
}

static void free_any(struct writer *writer)
{
    uint32_t slot = writer_slot(writer);
    while (writer->held_bytes[slot] == 0) {
        slot = writer_slot(writer);
    }
    writer_put(writer, slot, 0);
}

/* The bytes stay about the same while the blocks double six times and shrink again: what small
 * blocks leave behind has to be merged to be of use to large ones. */
static void write_drift(struct writer *writer)
{
    const size_t budget_bytes = 512 << 10;
    const size_t period_count = 3;
    const uint32_t doublings = 6;
    const size_t stage_count = 2 * doublings * period_count;
    while (!writer_is_done(writer)) {
        size_t stage = writer->workload->operation_count * stage_count / writer->capacity;
        uint32_t step = (uint32_t)(stage % (2 * doublings));
        uint32_t doubling = step < doublings ? step : 2 * doublings - 1 - step;
        uint32_t bytes = bytes_log_uniform(writer, 48u << doubling, 2);
        while (writer->live_bytes + bytes > budget_bytes && !writer_is_done(writer)) {
            free_any(writer);
        }
        uint32_t slot = writer_slot(writer);
        if (writer->held_bytes[slot] == 0) {
            writer_put(writer, slot, bytes);
        }
    }
}

static uint32_t bytes_small(struct writer *writer)
{
    return bytes_between(writer, BYTES_MIN, 128);
}

/* Buffers grow by half at a time, up to 64 KiB, and small blocks come and go between them. */
static void write_growing(struct writer *writer)
{
    const size_t buffer_count = 64;
    const uint32_t buffer_bytes_min = 64;
    const uint32_t buffer_bytes_max = 64 << 10;
    const size_t small_count = writer->workload->slot_count - buffer_count;
    while (!writer_is_done(writer)) {
        if (writer_has_chance(writer, 80)) {
            writer_toggle(writer, (uint32_t)buffer_count + writer_below(writer, small_count),
                          bytes_small);
            continue;
        }
        uint32_t slot = writer_below(writer, buffer_count);
        uint32_t bytes = writer->held_bytes[slot] * 3 / 2;
        bytes = bytes == 0 ? buffer_bytes_min : bytes;
        writer_put(writer, slot, bytes <= buffer_bytes_max ? bytes : 0);
    }
}

static const struct recipe {
    const char *name;
    const char *story;
    size_t slot_count;
    void (*write)(struct writer *);
} recipes[WORKLOAD_COUNT] = {
    [WORKLOAD_UNIFORM] = {"uniform", "16 B to 1 KiB, each size as likely, freed at random", 6000,
                          write_uniform},
    [WORKLOAD_HEAVY_TAIL] = {"heavy tail", "16 B to 64 KiB, a power law, freed at random", 8000,
                             write_heavy_tail},
    [WORKLOAD_QUEUE] = {"queue", "first in, first out, 32 B to 4 KiB; fills up and runs dry", 2000,
                        write_queue},
    [WORKLOAD_PHASES] =
        {"phases", "last in, first out, up to 1 MiB and down, other sizes each time; 3 % stay",
         6000, write_phases},
    [WORKLOAD_DRIFT] = {"drift", "512 KiB in blocks of 100 B that become 4 KiB, and back", 8000,
                        write_drift},
    [WORKLOAD_GROWING] = {"growing",
                          "64 buffers that grow by half up to 64 KiB, among blocks up to 128 B",
                          4064, write_growing},
};

static void *memory_or_exit(void *memory)
{
    if (memory == NULL) {
        perror("bench");
        exit(EXIT_FAILURE);
    }
    return memory;
}

const char *workload_name(enum workload_kind kind)
{
    return recipes[kind].name;
}

struct workload workload_write(enum workload_kind kind, size_t operation_count, uint64_t seed)
{
    const struct recipe *recipe = &recipes[kind];
    struct workload workload = {
        .name = recipe->name,
        .story = recipe->story,
        .operations = memory_or_exit(calloc(operation_count, sizeof(struct operation))),
        .slot_count = recipe->slot_count,
        .held = memory_or_exit(calloc(recipe->slot_count, sizeof(struct held))),
    };
    struct writer writer = {
        .workload = &workload,
        .capacity = operation_count,
        .random = seed,
        .held_bytes = memory_or_exit(calloc(recipe->slot_count, sizeof(uint32_t))),
    };
    recipe->write(&writer);
    free(writer.held_bytes);
    return workload;
}

void workload_discard(struct workload *workload)
{
    free(workload->operations);
    free(workload->held);
    *workload = (struct workload){0};
}

/* ------------------------------------------------------------------------------------ replaying */

static void held_mark(const struct held *held, uint32_t slot)
{
    memcpy(held->ptr, &slot, sizeof slot);
    memcpy(held->ptr + held->bytes - sizeof slot, &slot, sizeof slot);
}

static void mark_check(const char *at, uint32_t slot)
{
    if (memcmp(at, &slot, sizeof slot) != 0) {
        fprintf(stderr, "bench: the block of slot %u has lost its content\n", slot);
        exit(EXIT_FAILURE);
    }
}

/* Gives the slot a block of `bytes`, a new one or its old one resized. */
static bool held_provide(struct held *held, uint32_t slot, uint32_t bytes,
                         const struct allocator *allocator)
{
    bool is_new = held->ptr == NULL;
    char *ptr = is_new ? allocator->allocate(bytes) : allocator->resize(held->ptr, bytes);
    if (ptr == NULL) {
        return false;
    }
    if (!is_new) {
        mark_check(ptr, slot);
    }
    *held = (struct held){ptr, bytes};
    held_mark(held, slot);
    return true;
}

static void held_release(struct held *held, uint32_t slot, const struct allocator *allocator)
{
    mark_check(held->ptr, slot);
    mark_check(held->ptr + held->bytes - sizeof slot, slot);
    allocator->release(held->ptr);
    *held = (struct held){0};
}

bool workload_replay(const struct workload *workload, const struct allocator *allocator)
{
    memset(workload->held, 0, workload->slot_count * sizeof *workload->held);
    bool has_room = true;
    for (size_t i = 0; i < workload->operation_count && has_room; i++) {
        struct operation operation = workload->operations[i];
        struct held *held = &workload->held[operation.slot];
        if (operation.bytes == 0) {
            held_release(held, operation.slot, allocator);
        } else {
            has_room = held_provide(held, operation.slot, operation.bytes, allocator);
        }
    }
    return has_room;
}
