/*
 * heap_guard_block.h - a block with its seal, and free memory with its marks: the half of each call
 * of a hardened heap that looks. For the files of heap_guard.h only; Q1-Q3 are there.
 *
 * Who looks returns whether all is well, and describes the crime where it
 * is not (heap_guard_block.c).
 */
#ifndef HMM_HEAP_GUARD_BLOCK_H
#define HMM_HEAP_GUARD_BLOCK_H

#include "heap_guard.h"
#include "heap_verify.h"
#include "heap_zero.h"

enum {
    WORD_BYTES = sizeof(heap_word),
    ALIGNMENT_SHIFT_MAX = ALIGNMENT_SHIFT_MIN + (1 << ALIGNMENT_BITS) - 1,
};

/* A block that was looked at, and what its seal says. */
struct opened {
    struct region *region;
    struct block *block;
    size_t request_bytes;
    uint64_t facts;
};

/* ---------------------------------------------------------------------------------- small words */

static inline uintptr_t block_end(const struct block *block)
{
    return block_address(block) + block_bytes(block);
}

/* Where the seal of a block lies that is used. */
static inline uintptr_t block_seal_at(const struct block *block)
{
    return block_end(block) - SEAL_BYTES;
}

/* Where the record before a seal begins; without records, the seal. */
static inline uintptr_t seal_trailer(const struct heap_guard *guard, uintptr_t seal)
{
    return seal + SEAL_BYTES - guard_trailer_bytes(guard);
}

/* A seal begins where a tag's word does, which on 32-bit is no multiple of its size. */
static inline uint64_t seal_load(uintptr_t seal)
{
    uint64_t word;
    memcpy(&word, (const void *)seal, sizeof word);
    return word;
}

static inline bool is_right(const struct heap_guard *guard, uintptr_t seal, uint64_t word)
{
    return seal_is_right(&guard->key, (const void *)seal, word);
}

/* What stands where a tag was swallowed. */
static inline uintptr_t mark_make(const struct heap_guard *guard, uintptr_t tag)
{
    return (uintptr_t)rotate_left(((uint64_t)tag ^ ~guard->key.add) * guard->key.multiply, 32);
}

static inline bool is_mark(const struct heap_guard *guard, uintptr_t address)
{
    return is_aligned(address + BLOCK_TAG_BYTES, BLOCK_UNIT_BYTES) &&
           *heap_word_at(address) == mark_make(guard, address);
}

/* How much of what stands there is a mark or a record, 0: it is neither. Records
 * end before `end`. */
static inline size_t trace_bytes(const struct heap_guard *guard, uintptr_t address, uintptr_t end)
{
    if (is_mark(guard, address)) {
        return WORD_BYTES;
    }
    return guard_has_records(guard) && is_aligned(address, BLOCK_UNIT_BYTES) &&
                   end - address >= RECORD_BYTES && hmm_heap_is_record(&guard->key, address)
               ? RECORD_BYTES
               : 0;
}

static inline unsigned alignment_shift_of(size_t alignment)
{
    return (unsigned)size_min(seal_alignment_shift(alignment), ALIGNMENT_SHIFT_MAX);
}

static inline bool is_held(const struct heap_guard *guard, const void *ptr)
{
    size_t place = 0;
    while (place < guard->place_count && guard->places[place] != ptr) {
        place++;
    }
    return place < guard->place_count;
}

/* --------------------------------------------------------------------------------------- crimes */

/* Each describes a crime, and returns false. Of the block whose payload was `ptr` when it was last
 * allocated: */
HMM_HIDDEN HMM_COLD bool hmm_heap_guard_accuse_byte(struct crime *crime, const char *what,
                                                    const struct block *block, const void *ptr,
                                                    uintptr_t byte);

/* A pointer to a block that was freed, and swallowed by another free one since. */
HMM_HIDDEN HMM_COLD bool hmm_heap_guard_accuse_swallowed(const struct heap *heap,
                                                         const struct region *region,
                                                         const void *ptr, struct crime *crime);

/* A seal that is not right: the block is held back, or somebody wrote over its end. */
HMM_HIDDEN HMM_COLD bool hmm_heap_guard_accuse_seal(const struct heap_guard *guard,
                                                    const struct block *block, struct crime *crime);

/* What a call found is described as far as it can be known: who wrote where free memory has its
 * links, and by whom the block was allocated and freed. The call was about `ptr`, or about none. */
HMM_HIDDEN HMM_COLD void hmm_heap_guard_explain(const struct heap *heap,
                                                const struct heap_guard *guard, const void *ptr,
                                                struct crime *crime);

/* A byte of a free block that is not as it should be. */
HMM_HIDDEN HMM_COLD bool hmm_heap_guard_accuse_stray(const struct heap_guard *guard,
                                                     const struct block *block, uintptr_t byte,
                                                     struct crime *crime);

/* What the call says of the block against what the block says. */
HMM_HIDDEN bool hmm_heap_guard_verify_claim(const struct claim *claim, const struct opened *opened,
                                            struct crime *crime);

/* ---------------------------------------------------------------------------------------- seals */

/* The first byte that is damaged between what was asked for and the seal, 0: none is. A record is
 * damaged as a whole: its first byte stands for it. */
static inline uintptr_t trailer_damage(const struct heap_guard *guard, uintptr_t content_end,
                                       uintptr_t trailer)
{
    uintptr_t damage = bytes_find_nonzero(content_end, trailer);
    if (guard_has_records(guard) && damage == 0 && !hmm_heap_is_record(&guard->key, trailer)) {
        return trailer;
    }
    return damage;
}

/* From a pointer that nobody vouches for to a live block whose tag and seal are right. */
static inline bool block_open(const struct heap *heap, const struct heap_guard *guard,
                              const void *ptr, struct opened *opened, struct crime *crime)
{
    struct region *region = heap_region_of(heap, (uintptr_t)ptr);
    if (UNLIKELY(region == NULL)) {
        return crime_set(crime, "not a heap pointer", NULL, 0);
    }
    if (is_aligned((uintptr_t)ptr, BLOCK_UNIT_BYTES) &&
        block_address(block_of(ptr)) >= region->first &&
        UNLIKELY(is_mark(guard, block_address(block_of(ptr))))) {
        return hmm_heap_guard_accuse_swallowed(heap, region, ptr, crime);
    }
    if (!heap_verify_all(heap, crime) || !heap_verify_used(heap, region, ptr, crime)) {
        return false;
    }
    struct block *block = block_of(ptr);
    uintptr_t seal = block_seal_at(block);
    uint64_t word = seal_load(seal);
    if (UNLIKELY(!is_right(guard, seal, word))) {
        return hmm_heap_guard_accuse_seal(guard, block, crime);
    }
    uintptr_t trailer = seal_trailer(guard, seal);
    size_t request_bytes = trailer - (uintptr_t)ptr - facts_slack(word);
    uintptr_t damage = trailer_damage(guard, (uintptr_t)ptr + request_bytes, trailer);
    if (UNLIKELY(damage != 0)) {
        return hmm_heap_guard_accuse_byte(crime, "write past the end", block, ptr, damage);
    }
    *opened = (struct opened){region, block, request_bytes, seal_facts(word)};
    return true;
}

/* ---------------------------------------------------------------------------------- free memory */

/* What a search of free memory found; 0: nothing. */
struct traces {
    uintptr_t first_trace; /* the first mark or record */
    uintptr_t stray;       /* the first word that is neither 0 nor one of these */
};

static inline struct traces free_search(const struct heap_guard *guard, uintptr_t start,
                                        uintptr_t end)
{
    uintptr_t at = start < end ? words_find_nonzero(start, end) : 0;
    struct traces found = {0, at};
    size_t bytes = UNLIKELY(at != 0) ? trace_bytes(guard, at, end) : 0;
    if (bytes != 0) {
        found.first_trace = at;
        while (bytes != 0) {
            at = words_find_nonzero(at + bytes, end);
            bytes = at != 0 ? trace_bytes(guard, at, end) : 0;
        }
        found.stray = at;
    }
    return found;
}

/* Whether [start, end) of a free block is as it should be (Q1), as far as anybody has ever had it.
 * *first_trace: the first mark or record there, 0: there is none. */
static inline bool free_verify(const struct heap_guard *guard, const struct region *region,
                               const struct block *block, uintptr_t start, uintptr_t end,
                               uintptr_t *first_trace, struct crime *crime)
{
    end = size_min(end, (uintptr_t)block_footer(block, block_bytes(block)));
    struct traces found = free_search(guard, start, size_min(end, region->fresh));
    *first_trace = found.first_trace;
    return LIKELY(found.stray == 0) ||
           hmm_heap_guard_accuse_stray(
               guard, block, bytes_find_nonzero(found.stray, found.stray + WORD_BYTES), crime);
}

/* The parts of a free block that will be handed out or written over when a block of `bytes` is
 * taken from it: from the word that becomes the size of what lies before it, to the links of what
 * lies behind it. */
static inline bool room_verify(const struct heap *heap, const struct heap_guard *guard,
                               const struct block *block, size_t alignment, size_t bytes,
                               uintptr_t *first_trace, struct crime *crime)
{
    size_t lead_bytes = fit_lead_bytes(block, alignment);
    uintptr_t placed = block_address(block) + lead_bytes;
    uintptr_t start = lead_bytes == 0 ? placed + sizeof *block : placed - WORD_BYTES;
    const struct region *region = heap_region_of(heap, (uintptr_t)block_payload(block));
    return free_verify(guard, region, block, start, placed + bytes + sizeof *block, first_trace,
                       crime);
}

#endif
