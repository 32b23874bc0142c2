/*
 * heap_guard_block.c - records, and what a block of a hardened heap is accused
 * of. See heap_guard_block.h.
 */
#include "heap_guard_block.h"

bool hmm_heap_is_record(const struct seal_key *key, uintptr_t address)
{
    struct record record = record_load(address);
    return record.check == record_check(key, address, record.sites);
}

bool hmm_heap_guard_accuse_byte(struct crime *crime, const char *what, const struct block *block,
                                const void *ptr, uintptr_t byte)
{
    *crime = (struct crime){.what = what,
                            .at = block_address(block),
                            .block_bytes = block_bytes(block),
                            .has_byte = true,
                            .byte_offset = (ptrdiff_t)(byte - (uintptr_t)ptr),
                            .accused = ptr};
    return false;
}

bool hmm_heap_guard_accuse_swallowed(const struct heap *heap, const struct region *region,
                                     const void *ptr, struct crime *crime)
{
    (void)heap_blame(heap, region, ptr, crime);
    crime->what = hmm_crime_freed_block;
    return false;
}

bool hmm_heap_guard_accuse_seal(const struct heap_guard *guard, const struct block *block,
                                struct crime *crime)
{
    const void *ptr = block_payload(block);
    if (is_held(guard, ptr)) {
        return crime_set(crime, hmm_crime_freed_block, block, block_bytes(block));
    }
    uintptr_t seal = block_seal_at(block);
    uintptr_t trailer = seal_trailer(guard, seal);
    uint64_t word = seal_load(seal);
    uintptr_t content_end = trailer;
    if (hmm_seal_facts_are_telling(&guard->key, (const void *)seal, word) &&
        facts_slack(word) <= trailer - (uintptr_t)ptr) {
        content_end = trailer - facts_slack(word);
    }
    uintptr_t byte = trailer_damage(guard, content_end, trailer);
    if (byte == 0) {
        byte = word == 0 ? seal : (uintptr_t)hmm_seal_damage(&guard->key, (const void *)seal, word);
    }
    return hmm_heap_guard_accuse_byte(crime, "write past the end", block, ptr, byte);
}

/* Whose memory it was: the last mark before `at` is where a freed block began, else the
 * free block is. */
static const void *owner_of(const struct heap_guard *guard, const struct block *block, uintptr_t at)
{
    uintptr_t tag = align_down(at + BLOCK_TAG_BYTES, BLOCK_UNIT_BYTES) - BLOCK_TAG_BYTES;
    while (tag > block_address(block) && !is_mark(guard, tag)) {
        tag -= BLOCK_UNIT_BYTES;
    }
    return block_payload(block_at(tag));
}

bool hmm_heap_guard_accuse_stray(const struct heap_guard *guard, const struct block *block,
                                 uintptr_t byte, struct crime *crime)
{
    return hmm_heap_guard_accuse_byte(crime, "write after free", block,
                                      owner_of(guard, block, byte), byte);
}

bool hmm_heap_guard_verify_claim(const struct claim *claim, const struct opened *opened,
                                 struct crime *crime)
{
    enum origin origin = facts_origin(opened->facts);
    if (claim->is_waived) {
        return true;
    }
    if (claim->is_excused && origin != claim->origin &&
        is_between_malloc_and_new(origin, claim->origin)) {
        return true;
    }
    struct crime found;
    const struct block_facts facts = {opened->request_bytes, origin,
                                      facts_alignment_shift(opened->facts), ALIGNMENT_SHIFT_MAX};
    if (hmm_seal_verify_claim(claim, &facts, &found)) {
        return true;
    }
    found.at = block_address(opened->block);
    found.block_bytes = block_bytes(opened->block);
    *crime = found;
    return false;
}
