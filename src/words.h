/*
 * words.h - memory that should be 0: looked through, and cleared, a word at a time.
 *
 * Most pieces are a few words, so all of it is compiled into its callers; where there are more,
 * memset is faster. It knows the language and nothing else, so it also builds freestanding.
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

/* A word at any address, to which others may be writing. */
HMM_RACY static inline uint64_t word_at(const void *at)
{
    typedef uint64_t word __attribute__((aligned(1), may_alias));
    return *(const word *)at;
}

/* Two words at a time, whatever is aliased. */
typedef uint64_t word_pair __attribute__((vector_size(16), may_alias));
typedef uint64_t word_pair_unaligned __attribute__((vector_size(16), may_alias, aligned(8)));
typedef uint64_t word_pair_any __attribute__((vector_size(16), may_alias, aligned(1)));

enum {
    PAIR_BYTES = sizeof(word_pair),
    PAIRS_AT_ONCE = 4,
    PAIRS_SHORT = 2 * PAIRS_AT_ONCE,
    PAIRS_SHORT_BYTES = PAIRS_SHORT * PAIR_BYTES,
};

/* A function that returned a pair would be another where there are no vectors. */
static inline void pairs_join(word_pair *all, const word_pair *pair)
{
    *all |= (pair[0] | pair[1]) | (pair[2] | pair[3]);
}

/* Where sizes differ from call to call, looking at a pair twice costs less than a branch that
 * nobody can foresee. So up to four pairs are looked at as four, and more as the first four and
 * the last four. */
static inline void pairs_join_short(word_pair *all, const char *start, size_t bytes)
{
    const word_pair *pair = (const word_pair *)start;
    const word_pair *end = (const word_pair *)(start + bytes);
    if (bytes <= PAIRS_AT_ONCE * PAIR_BYTES) {
        size_t last = bytes - PAIR_BYTES;
        size_t second = size_min(last, PAIR_BYTES);
        *all = pair[0] | *(const word_pair *)(start + second) |
               *(const word_pair *)(start + last - second) | end[-1];
        return;
    }
    *all = pair[0] | pair[1] | pair[2] | pair[3] | end[-4] | end[-3] | end[-2] | end[-1];
}

/* Whether whole pairs are all 0. */
static inline bool pairs_are_zero(const void *start, size_t bytes)
{
    const char *from = start;
    word_pair all = {0, 0};
    if (LIKELY(bytes - 1 < PAIRS_SHORT_BYTES)) {
        pairs_join_short(&all, from, bytes);
    } else if (bytes != 0) {
        const char *last = from + bytes - PAIRS_AT_ONCE * PAIR_BYTES;
        for (; from < last; from += PAIRS_AT_ONCE * PAIR_BYTES) {
            pairs_join(&all, (const word_pair *)from);
        }
        pairs_join(&all, (const word_pair *)last);
    }
    return (all[0] | all[1]) == 0;
}

/* Two words at any multiple of eight, to which others may be writing. */
HMM_RACY static inline uint64_t two_words_at(const char *at)
{
    const word_pair_unaligned pair = *(const word_pair_unaligned *)at;
    return pair[0] | pair[1];
}

/* Whether all bytes are 0, of which there are those of a pair at least. */
static inline bool bytes_are_zero(const char *start, const char *end)
{
    word_pair_any all = *(const word_pair_any *)(end - PAIR_BYTES);
    size_t first = (size_t)(end - start) - PAIR_BYTES;
#pragma GCC unroll 4
    for (size_t i = 0; i < PAIRS_AT_ONCE; i++) {
        all |= *(const word_pair_any *)(start + size_min(i * PAIR_BYTES, first));
    }
    for (size_t at = PAIRS_AT_ONCE * PAIR_BYTES; at < first; at += PAIR_BYTES) {
        all |= *(const word_pair_any *)(start + at);
    }
    return (all[0] | all[1]) == 0;
}

/* Whether whole words are all 0. Nothing is looked at twice. */
static inline bool words_are_zero(const uint64_t *word, const uint64_t *end)
{
    uint64_t rest = 0;
    if (!is_aligned((uintptr_t)word, sizeof(word_pair)) && word < end) {
        rest = *word++;
    }
    if (word < end && !is_aligned((uintptr_t)end, sizeof(word_pair))) {
        rest |= *--end;
    }
    size_t bytes = word < end ? (size_t)((uintptr_t)end - (uintptr_t)word) : 0;
    return rest == 0 && pairs_are_zero(word, bytes);
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

/* Compilers must not make a call of memset of a loop with this in it: most runs are short. */
static inline void loop_stays(void)
{
    __asm__ volatile("");
}

/* Whole pairs, one at least and PAIRS_SHORT at most, as pairs_join_short looks at them; the last
 * one is cleared last. */
HMM_RACY static inline void pairs_clear_short(char *start, size_t bytes)
{
    const word_pair zero = {0, 0};
    word_pair *pair = (word_pair *)start;
    word_pair *end = (word_pair *)(start + bytes);
    pair[0] = zero;
    if (bytes <= PAIRS_AT_ONCE * PAIR_BYTES) {
        size_t last = bytes - PAIR_BYTES;
        size_t second = size_min(last, PAIR_BYTES);
        *(word_pair *)(start + last - second) = zero;
        *(word_pair *)(start + second) = zero;
    } else {
        pair[1] = pair[2] = pair[3] = zero;
        end[-4] = end[-3] = end[-2] = zero;
    }
    end[-1] = zero;
}

/* Whole pairs, PAIRS_AT_ONCE at least. */
static inline void pairs_clear_long(char *start, size_t bytes)
{
    const word_pair zero = {0, 0};
    word_pair *pair = (word_pair *)start;
    word_pair *last = (word_pair *)(start + bytes) - PAIRS_AT_ONCE;
    for (; pair < last; pair += PAIRS_AT_ONCE) {
        pair[0] = pair[1] = pair[2] = pair[3] = zero;
        loop_stays();
    }
    last[0] = last[1] = last[2] = last[3] = zero;
}

#endif
