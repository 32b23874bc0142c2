/*
 * heap_zero.h - memory of a block heap that should be 0, looked through a tag's word at a time. For
 * heap_region.c and the files of heap_guard.h.
 *
 * Blocks begin and end where such a word does, also on 32-bit, where words.h could not read.
 */
#ifndef HMM_HEAP_ZERO_H
#define HMM_HEAP_ZERO_H

#include "base.h"

/* Whatever is aliased: it was the caller's. */
typedef uintptr_t __attribute__((may_alias)) heap_word;

static inline heap_word *heap_word_at(uintptr_t address)
{
    return (heap_word *)address;
}

/* The address of the first word of [start, end) that is not 0; 0: all are. Both
 * are words' addresses. */
static inline uintptr_t words_find_nonzero(uintptr_t start, uintptr_t end)
{
    const heap_word *word = heap_word_at(start);
    const heap_word *last = heap_word_at(end);
    while (last - word >= 4 && (word[0] | word[1] | word[2] | word[3]) == 0) {
        word += 4;
    }
    while (word < last && *word == 0) {
        word++;
    }
    return word < last ? (uintptr_t)word : 0;
}

/* Of the word around `at`, the bytes from there on; the others as 0. */
static inline uintptr_t heap_word_from(uintptr_t at)
{
    uintptr_t word = *heap_word_at(align_down(at, sizeof word));
    unsigned before_bits = (unsigned)(at % sizeof word) * CHAR_BIT;
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    return word >> before_bits << before_bits;
#else
    return word << before_bits >> before_bits;
#endif
}

/* The first byte of [start, end) that is not 0, 0: all are. The end is a word's address. */
static inline uintptr_t bytes_find_nonzero(uintptr_t start, uintptr_t end)
{
    uintptr_t at = align_up(start, sizeof(heap_word));
    uintptr_t word =
        at != start && UNLIKELY(heap_word_from(start) != 0) ? start : words_find_nonzero(at, end);
    while (UNLIKELY(word != 0) && *(const unsigned char *)word == 0) {
        word++;
    }
    return word;
}

#endif
