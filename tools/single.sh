#!/bin/sh
# Writes the two-file form: hmm_heap.h and hmm_heap.c in the folder that is named.
#
# The header is the part of hmm.h between its [heaps] marks. The source is the rooms that need no
# system, one after the other, with the includes of each other taken out.
set -eu

out=$1
top=$(dirname "$0")/..
headers="base.h check.h lock.h region.h block.h fit.h block_verify.h block_audit.h heap.h heap_index.h heap_verify.h \
    heap_zero.h seal.h heap_record.h heap_guard.h heap_guard_block.h handle.h handle_guarded.h"
sources="region_array.c heap.c heap_region.c heap_audit.c seal.c heap_guard.c heap_guard_block.c heap_guard_audit.c heap_guard_explain.c handle.c handle_guarded.c freestanding.c"

mkdir -p "$out"

licence() {
    echo "/*"
    sed 's/^/ * /; s/ *$//' "$top/LICENSE"
    echo " */"
}

{
    licence
    cat <<'TEXT'

/*
 * hmm_heap.h - heaps in memory that you give them. Two files, no operating system, no library: all
 * they need is memcpy and memset. Compile hmm_heap.c with your program.
 *
 *     static unsigned char memory[4096] __attribute__((aligned(16)));
 *     HmmHeap *heap = HmmHeapInit(memory, sizeof memory, NULL);
 *     void *block = HmmHeapAlloc(heap, 100);
 *
 * Blocks are aligned to 16 bytes (8 on 32-bit targets); one of 0 bytes is a block of its own.
 * HmmHeapRealloc of NULL allocates; to 0 bytes it frees, and returns NULL. HmmHeapFree of NULL does
 * nothing. An alignment is a power of two. A call that fails returns NULL or false, and nothing has
 * changed: that is what the text below means by errno. By a crime it means that HmmHeapOnFatal is
 * called, and by HmmAlloc and its family, which are not here, the above. There is no lock unless the
 * options give one.
 */
#ifndef HMM_TWO_FILE_HEAP_H
#define HMM_TWO_FILE_HEAP_H

#include <stdbool.h>
#include <stddef.h>

#define HMM_API
#ifdef __cplusplus
extern "C" {
#endif

TEXT
    sed -n '/\[heaps\]/,/\[\/heaps\]/p' "$top/include/hmm.h" | sed '1d;$d'
    cat <<'TEXT'

/* Called when a pointer that is not a live block is freed, or a tag is damaged. Define it to report
 * or to reset; when it returns, the processor traps. The default does nothing. */
void HmmHeapOnFatal(const char *call, const void *ptr, const char *crime);

/* Asked for 64 random bits a few times for each new heap. Define it where the target has some: with them
 * nobody can guess a checksum or a seal. The default returns 0, and secrets follow from addresses: they
 * find accidents all the same. */
unsigned long long HmmHeapEntropy(void);

#ifdef __cplusplus
}
#endif

#endif /* HMM_TWO_FILE_HEAP_H */
TEXT
} > "$out/hmm_heap.h"

{
    licence
    printf '\n/* hmm_heap.c - see hmm_heap.h. Written by "make single" from the rooms of HMM. */\n\n'
    printf '#define HMM_FREESTANDING 1\n#include "hmm_heap.h"\n'
    for file in $headers $sources; do
        printf '\n/* ------------------------------------------------------------ %s */\n\n' "$file"
        sed '/^#include "/d' "$top/src/$file"
    done
} > "$out/hmm_heap.c"
