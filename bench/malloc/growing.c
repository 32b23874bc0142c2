/*
 * growing.c - What does it cost to grow a buffer?
 *
 * A hundred buffers are appended to in turns, by 16 to 256 bytes. Most programs' strings and arrays
 * grow by half when they are full, so do the even ones here; other programs ask for each line's
 * room as it comes, and so do the odd ones. A buffer that has reached its length, which follows a
 * power law, is given back, and a new one begins.
 */
#include "harness.h"

#include <string.h>

enum {
    APPENDS = 7000000,
    BUFFERS = 100,
    PIECE_BYTES_MIN = 16,
    PIECE_BYTES_MAX = 256,
    LENGTH_BYTES_MIN = 256,
    BY_HALF_DOUBLINGS = 13, /* lengths to 2 MiB */
    BY_PIECE_DOUBLINGS = 8, /* and to 64 KiB */
};

struct buffer {
    char *bytes;
    size_t used_bytes;
    size_t capacity_bytes;
    size_t full_bytes;
};

static struct buffer buffers[BUFFERS];

static void buffer_append(struct worker *worker, struct buffer *buffer, bool by_half)
{
    size_t piece_bytes = random_between(worker, PIECE_BYTES_MIN, PIECE_BYTES_MAX);
    size_t wanted_bytes = buffer->used_bytes + piece_bytes;
    if (wanted_bytes > buffer->capacity_bytes) {
        size_t half_more_bytes = buffer->capacity_bytes + buffer->capacity_bytes / 2;
        buffer->capacity_bytes =
            by_half && half_more_bytes > wanted_bytes ? half_more_bytes : wanted_bytes;
        buffer->bytes = call_realloc(worker, buffer->bytes, buffer->capacity_bytes);
    }
    memset(buffer->bytes + buffer->used_bytes, 'x', piece_bytes);
    buffer->used_bytes = wanted_bytes;
}

static void buffer_end(struct worker *worker, struct buffer *buffer)
{
    if (buffer->bytes && buffer->bytes[0] != 'x') {
        harness_fail("a buffer is not what it was");
    }
    call_free(worker, buffer->bytes);
    *buffer = (struct buffer){.bytes = NULL};
}

static void work(struct worker *worker)
{
    for (size_t append = scaled(APPENDS); append; append--) {
        size_t index = random_below(worker, BUFFERS);
        bool by_half = index % 2 == 0;
        struct buffer *buffer = &buffers[index];
        if (!buffer->full_bytes) {
            buffer->full_bytes = bytes_heavy_tail(worker, LENGTH_BYTES_MIN,
                                                  by_half ? BY_HALF_DOUBLINGS : BY_PIECE_DOUBLINGS);
        }
        buffer_append(worker, buffer, by_half);
        if (buffer->used_bytes >= buffer->full_bytes) {
            buffer_end(worker, buffer);
        }
    }
    for (size_t index = 0; index < BUFFERS; index++) {
        buffer_end(worker, &buffers[index]);
    }
}

int main(int argc, char **argv)
{
    return workload_run(&(struct workload){.work = work}, argc, argv);
}
