/*
 * fuzz_heap.c - a fuzzer chooses the operations on a heap in an array (libFuzzer).
 *
 * The first byte chooses policy, integrity, size of the array and hardening; after it every four
 * bytes are one operation: what, which slot, and how much. After each the heap is audited, and
 * blocks hold the number of their slot in their first and last byte.
 */
#include "handle.h"

#include <stdlib.h>

enum { SLOTS = 32, ARRAY_BYTES = 64 * 1024, PIECE_BYTES = 16 * 1024 };

static _Alignas(64) unsigned char array[ARRAY_BYTES];
static _Alignas(64) unsigned char piece[PIECE_BYTES];

struct slot {
    unsigned char *ptr;
    size_t bytes;
};

static void demand(bool condition)
{
    if (!condition) {
        abort();
    }
}

static void slot_mark(struct slot *slots, unsigned index, void *ptr, size_t bytes)
{
    slots[index] = (struct slot){ptr, ptr != NULL ? bytes : 0};
    if (ptr != NULL && bytes > 0) {
        slots[index].ptr[0] = (unsigned char)index;
        slots[index].ptr[bytes - 1] = (unsigned char)index;
    }
}

static void slot_verify(const struct slot *slots, unsigned index)
{
    const struct slot *slot = &slots[index];
    demand(slot->ptr == NULL || slot->bytes == 0 ||
           (slot->ptr[0] == index && slot->ptr[slot->bytes - 1] == index));
}

static void slot_release(HmmHeap *heap, struct slot *slots, unsigned index)
{
    slot_verify(slots, index);
    HmmHeapFree(heap, slots[index].ptr);
    slots[index] = (struct slot){NULL, 0};
}

static void slot_resize(HmmHeap *heap, struct slot *slots, unsigned index, size_t bytes)
{
    slot_verify(slots, index);
    unsigned char *moved = HmmHeapRealloc(heap, slots[index].ptr, bytes);
    if (bytes == 0 && slots[index].ptr != NULL) {
        slots[index] = (struct slot){NULL, 0};
    } else if (moved != NULL) {
        bool has_content = slots[index].bytes > 0 && bytes > 0;
        demand(!has_content || moved[0] == index);
        slot_mark(slots, index, moved, bytes);
    }
}

static void step(HmmHeap *heap, struct slot *slots, const uint8_t *op)
{
    unsigned index = op[1] % SLOTS;
    size_t bytes = (size_t)op[2] << (op[3] % 12);
    HmmHeapStats stats;
    switch (op[0] % 6) {
    case 0:
    case 1:
        slot_release(heap, slots, index);
        HmmHeapGetStats(heap, &stats);
        slot_mark(slots, index, HmmHeapAlloc(heap, bytes), bytes);
        demand((slots[index].ptr != NULL) == (size_max(bytes, 1) <= stats.largest_free_bytes));
        break;
    case 2:
        slot_release(heap, slots, index);
        slot_mark(slots, index, HmmHeapAlignedAlloc(heap, (size_t)1 << (op[0] / 6 % 16), bytes),
                  bytes);
        break;
    case 3:
        slot_resize(heap, slots, index, bytes);
        break;
    case 4:
        slot_release(heap, slots, index);
        break;
    default:
        (void)HmmHeapAdd(heap, piece + op[2] * 16, (size_t)op[3] * 32);
        break;
    }
    demand(HmmHeapCheck(heap));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    if (bytes == 0) {
        return 0;
    }
    static const HmmHardening hardenings[] = {HMM_HARDENING_NONE, HMM_HARDENING_SEALS,
                                              HMM_HARDENING_QUARANTINE};
    const HmmHeapOptions options = {.fit = (HmmFit)(data[0] % 4),
                                    .integrity = (HmmIntegrity)(data[0] / 4 % 4),
                                    .hardening = hardenings[data[0] / (16 * 7)]};
    size_t array_bytes = (size_t)1024 << (data[0] / 16 % 7);
    HmmHeap *heap = HmmHeapInit(array, array_bytes, &options);
    demand(heap != NULL);
    struct slot slots[SLOTS] = {0};
    for (size_t at = 1; at + 4 <= bytes; at += 4) {
        step(heap, slots, data + at);
    }
    for (unsigned index = 0; index < SLOTS; index++) {
        slot_release(heap, slots, index);
    }
    HmmHeapStats stats;
    HmmHeapGetStats(heap, &stats);
    demand(stats.live_count == 0 && stats.live_bytes == 0 && HmmHeapCheck(heap));
    return 0;
}
