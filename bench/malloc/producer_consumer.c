/*
 * producer_consumer.c - What does it cost when one thread only takes and another only gives?
 *
 * Messages of 32 to 512 bytes go through a queue of bounded length from one thread of a pair to the
 * other, which frees them: a logger, a pipeline, an actor. No block ever comes back to the thread
 * that took it, unless the allocator brings it.
 */
#include "harness.h"

#include <sched.h>
#include <stdatomic.h>

enum { MESSAGES = 2000000, QUEUE_PLACES = 1024, BYTES_MIN = 32, BYTES_MAX = 512 };

/* Head and tail only grow: how many messages have left, and how many have entered. Each side looks
 * at the other's only when what it knew does not do, and passes on a batch at a time. */
struct queue {
    _Alignas(CACHE_LINE_BYTES) _Atomic(size_t) head;
    _Alignas(CACHE_LINE_BYTES) _Atomic(size_t) tail;
    _Alignas(CACHE_LINE_BYTES) struct block *places[QUEUE_PLACES];
};

enum { BATCH_MESSAGES = 32 };

static struct queue *queues; /* one for each pair */

static void prepare(void)
{
    queues = table_map((worker_count() + 1) / 2 * sizeof *queues);
}

static size_t queue_await(_Atomic(size_t) *counter, size_t least)
{
    size_t count;
    while ((count = atomic_load_explicit(counter, memory_order_acquire)) < least) {
        sched_yield();
    }
    return count;
}

static void produce(struct worker *worker, struct queue *queue, size_t message_count)
{
    size_t known_head = 0;
    for (size_t tail = 0; tail < message_count;) {
        if (tail + 1 > known_head + QUEUE_PLACES) {
            known_head = queue_await(&queue->head, tail + 1 - QUEUE_PLACES);
        }
        size_t bytes = random_between(worker, BYTES_MIN, BYTES_MAX);
        place_fill(worker, &queue->places[tail % QUEUE_PLACES], bytes);
        tail++;
        if (tail % BATCH_MESSAGES == 0 || tail == message_count) {
            atomic_store_explicit(&queue->tail, tail, memory_order_release);
        }
    }
}

static void consume(struct worker *worker, struct queue *queue, size_t message_count)
{
    size_t known_tail = 0;
    for (size_t head = 0; head < message_count;) {
        if (head == known_tail) {
            known_tail = queue_await(&queue->tail, head + 1);
        }
        place_empty(worker, &queue->places[head % QUEUE_PLACES]);
        head++;
        if (head % BATCH_MESSAGES == 0) {
            atomic_store_explicit(&queue->head, head, memory_order_release);
        }
    }
}

static void work(struct worker *worker)
{
    struct queue *queue = &queues[worker->index / 2];
    if (worker->index % 2 == 0) {
        produce(worker, queue, scaled(MESSAGES));
    } else {
        consume(worker, queue, scaled(MESSAGES));
    }
}

int main(int argc, char **argv)
{
    const struct workload workload = {
        .prepare = prepare, .work = work, .is_threaded = true, .is_paired = true};
    return workload_run(&workload, argc, argv);
}
