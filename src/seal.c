/*
 * seal.c - what a call says of a block beside what its seal says, and which byte of a seal is
 * damaged. See seal.h.
 */
#include "seal.h"

static const char *const origin_names[] = {"malloc", "operator new", "operator new[]"};

bool hmm_seal_verify_claim(const struct claim *claim, const struct block_facts *facts,
                           struct crime *crime)
{
    size_t claimed_shift =
        size_min(seal_alignment_shift(size_max(claim->alignment, 1)), facts->alignment_shift_max);
    if (facts->origin != claim->origin) {
        *crime = (struct crime){.what = "mismatched call", .maker = origin_names[facts->origin]};
        return false;
    }
    if (claim->has_bytes && claim->bytes != facts->request_bytes) {
        *crime = (struct crime){.what = "wrong size",
                                .has_sizes = true,
                                .claimed = claim->bytes,
                                .known = facts->request_bytes};
        return false;
    }
    if (claim->alignment != 0 &&
        (claimed_shift != facts->alignment_shift || !is_power_of_two(claim->alignment))) {
        *crime = (struct crime){.what = "wrong alignment",
                                .has_sizes = true,
                                .claimed = claim->alignment,
                                .known = (size_t)1 << facts->alignment_shift};
        return false;
    }
    return true;
}

/* Of a mark whose facts are telling, so many bytes are right, the last ones: they
 * were reached last. */
enum { MARK_BYTES_TELLING = 2 };

static unsigned byte_of(uint64_t word, int index)
{
    return (unsigned)(word >> index * CHAR_BIT) & UCHAR_MAX;
}

static uint64_t mark_of(const struct seal_key *key, const void *seal, uint64_t word)
{
    return seal_make(key, seal, seal_facts(word)) & MARK_MASK;
}

const void *hmm_seal_damage(const struct seal_key *key, const void *seal, uint64_t word)
{
    uint64_t mark = mark_of(key, seal, word);
    int from_mark = 0;
    int from_zero = 0;
    int mark_count = 0;
    int zero_count = 0;
    for (int i = SEAL_BYTES - 1; i >= 0; i--) {
        if (byte_of(word, i) != 0) {
            from_zero = i;
            zero_count++;
        }
        if (i < MARK_BYTES && byte_of(word, i) != byte_of(mark, i)) {
            from_mark = i;
            mark_count++;
        }
    }
    if (zero_count < mark_count) {
        return (const unsigned char *)seal + from_zero;
    }
    return (const unsigned char *)seal + (mark_count < MARK_BYTES - 1 ? from_mark : 0);
}

const void *hmm_seal_damage_from_behind(const struct seal_key *key, const void *seal, uint64_t word)
{
    for (int i = MARK_BYTES; i < SEAL_BYTES; i++) {
        for (uint64_t value = 0; value <= UCHAR_MAX; value++) {
            uint64_t other = value << i * CHAR_BIT;
            uint64_t others = word & ~((uint64_t)UCHAR_MAX << i * CHAR_BIT);
            if (seal_is_right(key, seal, others | other)) {
                return (const unsigned char *)seal + i;
            }
        }
    }
    return hmm_seal_damage(key, seal, word);
}

bool hmm_seal_facts_are_telling(const struct seal_key *key, const void *seal, uint64_t word)
{
    uint64_t differing = mark_of(key, seal, word) ^ (word & MARK_MASK);
    return differing >> (MARK_BYTES - MARK_BYTES_TELLING) * CHAR_BIT == 0;
}
