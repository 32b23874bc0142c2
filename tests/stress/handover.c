/*
 * handover.c - eight threads allocate, resize, free, and hand blocks over to each other. Every
 * block knows its own content, so one that two threads hold, or that moved by a byte, is seen.
 *
 * handover OPERATIONS [SEED] on malloc; compiled with HEAP_FIT, on a heap of its own with that fit.
 */
#include "cases.h"
#include "seed.h"

#include <malloc.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <time.h>

enum { THREADS = 8, SLOTS = 300, OWN = 40, LOOKED_AT_MAX = 2048 };

struct block {
    uint32_t bytes;
    uint32_t salt;
    unsigned char content[];
};

#ifdef HEAP_FIT

#include "hmm.h"

static HmmHeap *heap;

static void heap_open(void)
{
    heap = HmmHeapCreate(0, &(HmmHeapOptions){.fit = HEAP_FIT});
    REQUIRE(heap != NULL);
}

static void *allocate(size_t bytes)
{
    return HmmHeapAlloc(heap, bytes);
}

static void *allocate_aligned(size_t alignment, size_t bytes)
{
    return HmmHeapAlignedAlloc(heap, alignment, bytes);
}

static void *resize(void *ptr, size_t bytes)
{
    return HmmHeapRealloc(heap, ptr, bytes);
}

static void release(void *ptr)
{
    HmmHeapFree(heap, ptr);
}

static bool heap_is_empty(void)
{
    HmmHeapStats stats;
    HmmHeapGetStats(heap, &stats);
    return HmmHeapCheck(heap) && stats.live_count == 0 && stats.free_count == 1;
}

#else

static size_t used_at_start;

static void heap_open(void)
{
    free(malloc(1));
    used_at_start = mallinfo2().uordblks;
}

static void *allocate(size_t bytes)
{
    return malloc(bytes);
}

static void *allocate_aligned(size_t alignment, size_t bytes)
{
    return aligned_alloc(alignment, bytes);
}

static void *resize(void *ptr, size_t bytes)
{
    return realloc(ptr, bytes);
}

static void release(void *ptr)
{
    free(ptr);
}

/* What threads leave behind is the C library's: a few stacks' descriptors that it keeps. */
static bool heap_is_empty(void)
{
    const size_t slack_bytes = 20000;
    return mallinfo2().uordblks < used_at_start + slack_bytes;
}

#endif

static _Atomic(struct block *) slots[SLOTS];
static unsigned long operation_count;
static uint64_t seed;

/* Mostly small, now and then a page or more, rarely so large that the break moves. */
static uint32_t random_bytes(uint64_t *random)
{
    uint64_t draw = random_next(random);
    uint64_t share = draw % 1000;
    draw >>= 10;
    return (uint32_t)(share < 900 ? draw % 400 : share < 995 ? draw % 9000 : draw % 300000);
}

/* How much of a block is written and looked at, from both of its ends. */
static uint32_t seen_bytes(uint32_t bytes)
{
    return bytes < LOOKED_AT_MAX ? bytes : LOOKED_AT_MAX;
}

static unsigned char content_byte(const struct block *block, uint32_t i)
{
    return (unsigned char)(block->salt + i * 31 + (i >> 8));
}

static void block_fill(struct block *block, uint32_t bytes, uint32_t salt)
{
    block->bytes = bytes;
    block->salt = salt;
    for (uint32_t i = 0; i < seen_bytes(bytes); i++) {
        block->content[i] = content_byte(block, i);
        block->content[bytes - 1 - i] = content_byte(block, bytes - 1 - i);
    }
}

/* The first `bytes` of it, of which a resize to less leaves no more. */
static void block_check(const struct block *block, uint32_t bytes)
{
    uint32_t seen = seen_bytes(bytes);
    for (uint32_t i = 0; i < seen && i < seen_bytes(block->bytes); i++) {
        if (!EXPECT(block->content[i] == content_byte(block, i))) {
            return;
        }
    }
    for (uint32_t i = 0; bytes == block->bytes && i < seen; i++) {
        if (!EXPECT(block->content[bytes - 1 - i] == content_byte(block, bytes - 1 - i))) {
            return;
        }
    }
}

static struct block *block_new(uint64_t *random)
{
    uint32_t bytes = random_bytes(random);
    uint64_t draw = random_next(random);
    struct block *block = draw % 50 == 0
                              ? allocate_aligned((size_t)32 << draw / 50 % 8, sizeof *block + bytes)
                              : allocate(sizeof *block + bytes);
    REQUIRE(block != NULL);
    block_fill(block, bytes, (uint32_t)(draw >> 32));
    return block;
}

static void block_drop(struct block *block)
{
    if (block != NULL) {
        block_check(block, block->bytes);
        release(block);
    }
}

static struct block *block_resize(struct block *block, uint64_t *random)
{
    uint32_t bytes = random_bytes(random);
    uint32_t old_bytes = block->bytes;
    block = resize(block, sizeof *block + bytes);
    REQUIRE(block != NULL);
    block_check(block, bytes < old_bytes ? bytes : old_bytes);
    block_fill(block, bytes, block->salt + 1);
    return block;
}

static void *thread_run(void *number)
{
    uint64_t random = seed + (uintptr_t)number * 0x9e3779b97f4a7c15u;
    struct block *own[OWN] = {NULL};
    for (unsigned long i = 0; i < operation_count && case_failure_count == 0; i++) {
        uint64_t draw = random_next(&random);
        struct block **place = &own[(draw >> 8) % OWN];
        switch (draw % 4) {
        case 0:
            /* acquire and release: the block's content goes over with it */
            *place = atomic_exchange_explicit(&slots[(draw >> 20) % SLOTS], *place,
                                              memory_order_acq_rel);
            break;
        case 1:
            if (*place != NULL) {
                *place = block_resize(*place, &random);
            }
            break;
        default:
            block_drop(*place);
            *place = draw % 4 == 2 ? block_new(&random) : NULL;
            break;
        }
    }
    for (int i = 0; i < OWN; i++) {
        block_drop(own[i]);
    }
    return NULL;
}

int main(int argc, char **argv)
{
    pthread_t threads[THREADS];
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    operation_count = argc > 1 ? strtoul(argv[1], NULL, 10) : 10000;
    seed = argc > 2 ? strtoul(argv[2], NULL, 10) : (uint64_t)now.tv_nsec * 1000003u + 1;
    heap_open();
    for (uintptr_t i = 0; i < THREADS; i++) {
        REQUIRE(pthread_create(&threads[i], NULL, thread_run, (void *)i) == 0);
    }
    for (int i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
    }
    for (int i = 0; i < SLOTS; i++) {
        block_drop(slots[i]);
    }
    EXPECT(heap_is_empty());
    if (case_failure_count != 0) {
        case_say("# seed %llu\n", (unsigned long long)seed);
        return EXIT_FAILURE;
    }
    return EXIT_SUCCESS;
}
