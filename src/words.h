/*
 * words.h - memory that should be 0: looked through, and cleared, a word at a time.
 *
 * Most pieces are a few words, so all of it is compiled into its callers, and nothing becomes a call. It
 * knows the language and nothing else, so it also builds freestanding.
 */
#ifndef HMM_WORDS_H
#define HMM_WORDS_H

#include "base.h"

/* Of the word around `at`, the bytes from there on; the others as 0. */
static inline uint64_t word_from(uintptr_t at)
{
    uint64_t word = *(const uint64_t *)align_down(at, sizeof word);
    unsigned before_bits = (unsigned)(at % sizeof word) * CHAR_BIT;
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    return word >> before_bits << before_bits;
#else
    return word << before_bits >> before_bits;
#endif
}

/* There is one. */
static inline const void *nonzero_byte(uintptr_t at)
{
    while (*(const unsigned char *)at == 0) {
        at++;
    }
    return (const void *)at;
}

/* Two words at a time, whatever is aliased. */
typedef uint64_t word_pair __attribute__((vector_size(16), may_alias));

/* Whether whole words are all 0. Nothing is looked at twice. */
static inline bool words_are_zero(const uint64_t *word, const uint64_t *end)
{
    word_pair all = {0, 0};
    uint64_t rest = 0;
    if (!is_aligned((uintptr_t)word, sizeof all) && word < end) {
        rest = *word++;
    }
    for (; end - word >= 2; word += 2) {
        all |= *(const word_pair *)word;
    }
    rest |= word < end ? *word : 0;
    return (all[0] | all[1] | rest) == 0;
}

/* The first byte of [start, end) that is not 0; NULL: all are. The end is a word's. */
static inline const void *first_nonzero(const void *start, const void *end)
{
    uintptr_t at = (uintptr_t)start;
    const uint64_t *word = (const uint64_t *)align_down(at, sizeof *word) + 1;
    if (LIKELY(start == end || (word_from(at) == 0 && words_are_zero(word, end)))) {
        return NULL;
    }
    return nonzero_byte(at);
}

/* Whole words, from a multiple of two on. */
static inline void words_clear(void *start, size_t bytes)
{
    enum { CALL_BYTES_MIN = 512 };
    if (UNLIKELY(bytes >= CALL_BYTES_MIN)) {
        memset(start, 0, bytes);
        return;
    }
    word_pair *pair = start;
    for (size_t count = bytes / sizeof *pair; count != 0; count--) {
        *pair++ = (word_pair){0, 0};
    }
    if (bytes % sizeof *pair != 0) {
        *(uint64_t *)pair = 0;
    }
}

#endif
