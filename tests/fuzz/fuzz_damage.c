/*
 * fuzz_damage.c - a fuzzer damages what a heap in an array keeps between its blocks, and goes on
 * calling it (libFuzzer).
 *
 * The first byte chooses policy, integrity and hardening, the second how much of the array is
 * used; after them every four bytes are one operation. Damage goes into tags, links, repeated
 * sizes and payloads: whatever an overflow or a stale pointer reaches between the first block
 * and the break. Each call then either works, on whatever it believes in, or finds the crime,
 * whose words are taken here instead of by fatal.c. It never reads or writes outside of its
 * memory, and never hangs.
 *
 * Checksums are made longer for it (BLOCK_CHECKSUM_SHIFT), because one damaged tag in 65,536 is
 * believed.
 */
#include "handle.h"

#include <setjmp.h>
#include <stdlib.h>
#include <sys/mman.h>

enum {
    SLOTS = 16,
    ARRAY_BYTES = 16 * 1024,
    PIECE_BYTES = 16 * 1024,
    OPERATION_BYTES = 4,
};

/* Two pieces of memory, with none before, between and behind them. */
static unsigned char *array; /* its end is the end of the memory */
static unsigned char *piece;
static jmp_buf crime_found;

struct slot {
    unsigned char *ptr;
    size_t bytes;
};

static struct slot slots[SLOTS];

/* In the place of fatal.c. No lock is held here, so the call can be left. */
void hmm_fatal(const char *call, const void *pointer, const struct crime *crime, const void *heap)
{
    (void)call;
    (void)pointer;
    (void)heap;
    if (crime->what == NULL || crime->what[0] == '\0' || strncmp(call, "assert", 6) == 0 ||
        strcmp(call, "lock") == 0) {
        abort();
    }
    longjmp(crime_found, 1);
}

/* Nor is there a stack to show. */
void hmm_fatal_show_stack(void)
{
}

/* A byte between the first block and the break of one of the heap's regions. */
static unsigned char *damaged_byte(const HmmHeap *heap, uint16_t draw)
{
    const struct region *region = heap->heap.regions;
    if ((draw & 1) != 0 && region->next != NULL) {
        region = region->next;
    }
    return (unsigned char *)(region->first + (draw >> 1) % (region->brk - region->first));
}

/* A place that matters: the words around a block that is or was in use. */
static unsigned char *damaged_byte_near(const HmmHeap *heap, uint8_t index, uint8_t draw)
{
    const struct slot *slot = &slots[index % SLOTS];
    const uintptr_t first = heap->heap.regions->first;
    uintptr_t place = (uintptr_t)slot->ptr + draw % 40 - 16;
    place = (draw & 0x80) != 0 ? place + slot->bytes : place;
    bool is_inside =
        slot->ptr != NULL && heap_region_of(&heap->heap, place) != NULL && place > first;
    return is_inside ? (unsigned char *)place : damaged_byte(heap, (uint16_t)(draw << 8 | index));
}

/* A link or a size that leads somewhere plausible. */
static void damage_word(const HmmHeap *heap, const uint8_t *operation)
{
    uintptr_t *word = (uintptr_t *)align_down(
        (uintptr_t)damaged_byte_near(heap, operation[1], operation[2]), sizeof(uintptr_t));
    const unsigned char *target = damaged_byte(heap, (uint16_t)(operation[3] << 6));
    const struct region *region = heap_region_of(&heap->heap, (uintptr_t)word);
    if (region != NULL && (uintptr_t)word >= region->first) {
        *word = operation[0] % 2 == 0 ? align_down((uintptr_t)target, BLOCK_UNIT_BYTES) +
                                            BLOCK_UNIT_BYTES - BLOCK_TAG_BYTES
                                      : (size_t)operation[3] * BLOCK_UNIT_BYTES;
    }
}

static void slot_set(struct slot *slot, void *ptr, size_t bytes)
{
    if (ptr != NULL) {
        *slot = (struct slot){ptr, bytes};
    }
}

static bool visit_all(void *ptr, size_t usable_bytes, bool is_used, void *context)
{
    (void)ptr;
    (void)is_used;
    *(size_t *)context += usable_bytes;
    return true;
}

static void look(const HmmHeap *heap, const struct slot *slot, unsigned how)
{
    HmmHeapStats stats;
    size_t sum_bytes = 0;
    switch (how % 4) {
    case 0:
        HmmHeapGetStats(heap, &stats);
        break;
    case 1:
        (void)HmmHeapWalk(heap, visit_all, &sum_bytes);
        break;
    case 2:
        (void)HmmHeapCheck(heap);
        break;
    default:
        (void)HmmHeapUsableSize(heap, slot->ptr);
        break;
    }
}

static void step(HmmHeap *heap, const uint8_t *operation)
{
    struct slot *slot = &slots[operation[1] % SLOTS];
    size_t bytes = (size_t)operation[2] << operation[3] % 5;
    switch (operation[0] % 12) {
    case 0:
    case 1:
        slot_set(slot, HmmHeapAlloc(heap, bytes), bytes);
        break;
    case 2:
        slot_set(slot, HmmHeapAlignedAlloc(heap, (size_t)1 << operation[3] / 8 % 10, bytes), bytes);
        break;
    case 3:
    case 4:
        HmmHeapFree(heap, slot->ptr); /* a slot keeps its pointer, so this may be the second time */
        break;
    case 5:
        slot_set(slot, HmmHeapRealloc(heap, slot->ptr, bytes), bytes);
        break;
    case 6:
        look(heap, slot, operation[2]);
        break;
    case 7:
        *damaged_byte(heap, (uint16_t)(operation[1] << 8 | operation[2])) ^= operation[3];
        break;
    case 8:
        *damaged_byte_near(heap, operation[1], operation[2]) ^= operation[3];
        break;
    case 9:
    case 10:
        damage_word(heap, operation);
        break;
    default:
        (void)HmmHeapAdd(heap, piece, PIECE_BYTES);
        break;
    }
}

static void memory_make(void)
{
    if (array != NULL) {
        return;
    }
    const size_t hole_bytes = 64 * 1024;
    unsigned char *range = mmap(NULL, 3 * hole_bytes + ARRAY_BYTES + PIECE_BYTES, PROT_NONE,
                                MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (range == MAP_FAILED) {
        abort();
    }
    array = range + hole_bytes;
    piece = array + ARRAY_BYTES + hole_bytes;
    if (mprotect(array, ARRAY_BYTES, PROT_READ | PROT_WRITE) != 0 ||
        mprotect(piece, PIECE_BYTES, PROT_READ | PROT_WRITE) != 0) {
        abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    if (bytes < 2) {
        return 0;
    }
    static const HmmIntegrity integrities[] = {HMM_INTEGRITY_TAG, HMM_INTEGRITY_NEIGHBOURS,
                                               HMM_INTEGRITY_FULL};
    static const HmmHardening hardenings[] = {HMM_HARDENING_NONE, HMM_HARDENING_SEALS,
                                              HMM_HARDENING_QUARANTINE};
    const HmmHeapOptions options = {.fit = (HmmFit)(data[0] % 4),
                                    .integrity = integrities[data[0] / 4 % 3],
                                    .hardening = hardenings[data[0] / 12 % 3]};
    memset(slots, 0, sizeof slots);
    memory_make();
    memset(array, data[1], ARRAY_BYTES);
    memset(piece, data[1], PIECE_BYTES);
    const size_t heap_bytes = (size_t)2048 << data[1] % 4;
    HmmHeap *heap = HmmHeapInit(array + ARRAY_BYTES - heap_bytes, heap_bytes, &options);
    if (heap == NULL) {
        abort();
    }
    if (setjmp(crime_found) == 0) {
        for (size_t at = 2; at + OPERATION_BYTES <= bytes; at += OPERATION_BYTES) {
            step(heap, data + at);
        }
    }
    return 0;
}
