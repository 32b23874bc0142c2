/*
 * words.h - memory that should be 0: looked through, and cleared, a word at a time.
 *
 * Most pieces are a few words, so all of it is compiled into its callers; where there are more, memset is faster. It
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

/* A word at any address, to which others may be writing. */
HMM_RACY static inline uint64_t word_at(const void *at)
{
    typedef uint64_t word __attribute__((aligned(1), may_alias));
    return *(const word *)at;
}

/* Two words at a time, whatever is aliased. */
typedef uint64_t word_pair __attribute__((vector_size(16), may_alias));
typedef uint64_t word_pair_unaligned __attribute__((vector_size(16), may_alias, aligned(8)));

enum { PAIRS_AT_ONCE = 4, PAIR_BYTES = sizeof(word_pair) };

/* A function that returned a pair would be another where there are no vectors. */
static inline void pairs_join(word_pair *all, const word_pair *pair)
{
    *all |= (pair[0] | pair[1]) | (pair[2] | pair[3]);
}

/* Whether whole pairs are all 0. The last four may overlap with those before: so there is no rest, and the branches
 * can be foreseen. */
static inline bool pairs_are_zero(const word_pair *pair, size_t bytes)
{
    word_pair all = {0, 0};
    const word_pair *end = pair + bytes / PAIR_BYTES;
    if (bytes >= PAIRS_AT_ONCE * PAIR_BYTES) {
        const word_pair *last = end - PAIRS_AT_ONCE;
        for (; pair < last; pair += PAIRS_AT_ONCE) {
            pairs_join(&all, pair);
        }
        pairs_join(&all, last);
    } else if (bytes >= PAIRS_AT_ONCE / 2 * PAIR_BYTES) {
        all = (pair[0] | pair[1]) | (end[-2] | end[-1]);
    } else if (bytes != 0) {
        all = pair[0];
    }
    return (all[0] | all[1]) == 0;
}

/* Of memory that others may be writing to. */
HMM_RACY static inline bool four_words_are_zero(const void *start)
{
    const word_pair_unaligned *pair = start;
    word_pair all = pair[0] | pair[1];
    return (all[0] | all[1]) == 0;
}

/* Whether all bytes are 0, of which there are those of a pair at least. */
static inline bool bytes_are_zero(const char *start, const char *end)
{
    typedef uint64_t pair __attribute__((vector_size(16), may_alias, aligned(1)));
    pair all = *(const pair *)(end - PAIR_BYTES);
    for (; (size_t)(end - start) > PAIR_BYTES; start += PAIR_BYTES) {
        all |= *(const pair *)start;
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
    return rest == 0 && pairs_are_zero((const word_pair *)word, bytes);
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

static inline void pairs_clear(word_pair *pair, size_t bytes)
{
    const word_pair zero = {0, 0};
    word_pair *end = pair + bytes / PAIR_BYTES;
    if (bytes >= PAIRS_AT_ONCE * PAIR_BYTES) {
        word_pair *last = end - PAIRS_AT_ONCE;
        for (; pair < last; pair += PAIRS_AT_ONCE) {
            pair[0] = pair[1] = pair[2] = pair[3] = zero;
            loop_stays();
        }
        last[0] = last[1] = last[2] = last[3] = zero;
    } else if (bytes >= PAIRS_AT_ONCE / 2 * PAIR_BYTES) {
        pair[0] = pair[1] = end[-2] = end[-1] = zero;
    } else if (bytes != 0) {
        pair[0] = zero;
    }
}

/* Whole words, from a multiple of two on. */
static inline void words_clear(void *start, size_t bytes)
{
    size_t pairs_bytes = align_down(bytes, PAIR_BYTES);
    pairs_clear(start, pairs_bytes);
    if (bytes != pairs_bytes) {
        *(uint64_t *)((char *)start + pairs_bytes) = 0;
    }
}

#endif
