/*
 * overflow.c - a block is written past its end, in the two-file form: the crime is named at every
 * level that looks, and never a raw fault, also on 32-bit, where a tag has no checksum and an
 * overwritten one may hold any size.
 *
 * overflow LEVEL BYTE [HARDENING]: fills the tag behind a block with BYTE, then frees the block.
 * Exit status 42: HmmHeapOnFatal was called. Where the heap is hardened the seal before that tag is
 * overwritten, which is the block's own.
 */
#include "hmm_heap.h"

#include <stdlib.h>
#include <string.h>

enum { STATUS_CRIME = 42, STATUS_USAGE = 2, SEAL_BYTES = 8 };

static unsigned char memory[65536] __attribute__((aligned(16)));

void HmmHeapOnFatal(const char *call, const void *ptr, const char *crime)
{
    (void)call;
    (void)ptr;
    exit(strstr(crime, "damaged") != NULL || strstr(crime, "write past") != NULL ? STATUS_CRIME
                                                                                 : EXIT_FAILURE);
}

int main(int argc, char **argv)
{
    if (argc < 3) {
        return STATUS_USAGE;
    }
    HmmHeapOptions options = {.integrity = (HmmIntegrity)atoi(argv[1])};
    options.hardening = (HmmHardening)(argc > 3 ? atoi(argv[3]) : HMM_HARDENING_PROCESS);
    HmmHeap *heap = HmmHeapInit(memory, sizeof memory, &options);
    char *block = HmmHeapAlloc(heap, 100);
    char *next = HmmHeapAlloc(heap, 100);
    if (block == NULL || next == NULL) {
        return EXIT_FAILURE;
    }
    char *tag = next - sizeof(size_t);
    if (options.hardening == HMM_HARDENING_PROCESS) {
        memset(tag, atoi(argv[2]), sizeof(size_t));
    } else {
        memset(tag - SEAL_BYTES, atoi(argv[2]), SEAL_BYTES);
    }
    HmmHeapFree(heap, block);
    return HmmHeapCheck(heap) ? EXIT_FAILURE : EXIT_SUCCESS;
}
