/*
 * bare.c - the two-file form where there is nothing else: no libc, no start-up code, no library.
 *
 * It gives what the heap asks for, memcpy and memset, runs random operations in a 4 KiB array and
 * in a 64 KiB one, hardened or not, and leaves by a bare system call with the number of the first
 * check that failed.
 */
#include "hmm_heap.h"

#include <stdint.h>

void *memcpy(void *to, const void *from, size_t bytes)
{
    unsigned char *out = to;
    const unsigned char *in = from;
    for (size_t i = 0; i < bytes; i++) {
        out[i] = in[i];
    }
    return to;
}

void *memset(void *to, int value, size_t bytes)
{
    unsigned char *out = to;
    for (size_t i = 0; i < bytes; i++) {
        out[i] = (unsigned char)value;
    }
    return to;
}

static _Noreturn void leave(int status)
{
#if defined(__x86_64__)
    __asm__ volatile("syscall" ::"a"(60), "D"(status));
#elif defined(__i386__)
    __asm__ volatile("int $0x80" ::"a"(1), "b"(status));
#endif
    for (;;) {
    }
}

static void demand(bool condition, int check)
{
    if (!condition) {
        leave(check);
    }
}

/* A crime ends here instead of in a trap. */
static int expected_crime;

void HmmHeapOnFatal(const char *call, const void *ptr, const char *crime)
{
    (void)ptr;
    demand(call[0] == 'H' && crime[0] != '\0', 20);
    leave(expected_crime);
}

static int entropy_count;

unsigned long long HmmHeapEntropy(void)
{
    entropy_count++;
    return 0x243f6a8885a308d3u;
}

enum { SLOTS = 40, STEPS = 10000 };

static uint32_t random_next(uint32_t *state)
{
    *state = *state * 1664525u + 1013904223u;
    return *state >> 8;
}

static void churn(unsigned char *memory, size_t memory_bytes, HmmFit fit, HmmHardening hardening)
{
    static unsigned char *blocks[SLOTS];
    static size_t sizes[SLOTS];
    uint32_t state = 42;
    HmmHeap *heap =
        HmmHeapInit(memory, memory_bytes, &(HmmHeapOptions){.fit = fit, .hardening = hardening});
    demand(heap != NULL, 1);
    memset(blocks, 0, sizeof blocks);
    for (int step = 0; step < STEPS; step++) {
        unsigned slot = random_next(&state) % SLOTS;
        if (blocks[slot] != NULL) {
            demand(blocks[slot][0] == slot && blocks[slot][sizes[slot] - 1] == slot, 2);
        }
        bool is_freeing = step % 3 == 0 && blocks[slot] != NULL;
        size_t bytes = 1 + random_next(&state) % (memory_bytes / 32);
        unsigned char *block = HmmHeapRealloc(heap, blocks[slot], is_freeing ? 0 : bytes);
        if (is_freeing || block != NULL) {
            blocks[slot] = block;
            sizes[slot] = bytes;
        }
        if (blocks[slot] != NULL) {
            blocks[slot][0] = blocks[slot][sizes[slot] - 1] = (unsigned char)slot;
        }
        demand(HmmHeapCheck(heap), 3);
    }
    for (unsigned slot = 0; slot < SLOTS; slot++) {
        HmmHeapFree(heap, blocks[slot]);
    }
    HmmHeapStats stats;
    HmmHeapGetStats(heap, &stats);
    demand(stats.live_count == 0 && stats.free_count == 1, 4);
    demand(HmmHeapAlloc(heap, stats.largest_free_bytes + 1) == NULL, 5);
    demand(HmmHeapAlloc(heap, stats.largest_free_bytes) != NULL, 6);
}

static _Alignas(64) unsigned char small[4096];
static _Alignas(64) unsigned char large[65536];

__attribute__((noreturn, used)) static void run(void)
{
    for (int fit = HMM_FIT_GOOD; fit <= HMM_FIT_BEST; fit++) {
        for (int level = HMM_HARDENING_NONE; level <= HMM_HARDENING_QUARANTINE; level++) {
            churn(small, sizeof small, (HmmFit)fit, (HmmHardening)level);
            churn(large, sizeof large, (HmmFit)fit, (HmmHardening)level);
        }
    }
    demand(entropy_count > 0, 8);
    HmmHeap *heap = HmmHeapInit(small, sizeof small, NULL);
    void *block = HmmHeapAlloc(heap, 100);
    HmmHeapFree(heap, block);
    HmmHeapFree(heap, (void *)0);
    expected_crime = 99;
    HmmHeapFree(heap, block);
    leave(7);
}

/* The kernel enters without a return address, so the stack is aligned first. */
#if defined(__x86_64__)
__asm__(".globl _start\n_start: xor %ebp, %ebp\n and $-16, %rsp\n call run\n");
#elif defined(__i386__)
__asm__(".globl _start\n_start: xor %ebp, %ebp\n and $-16, %esp\n call run\n");
#endif
