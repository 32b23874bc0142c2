/*
 * guard_write.h - whether a write may be made: what the door of copies asks before each of them.
 *
 * All of it is compiled into the door, needs no frame there and no division: most copies are
 * short, and this is what they cost besides. A destination outside of the arena has been
 * told apart before.
 */
#ifndef HMM_GUARD_WRITE_H
#define HMM_GUARD_WRITE_H

#include "guard_block.h"

/* The slot into which a pointer leads, as its seal says. */
struct slot_end {
    size_t offset_bytes; /* of the pointer in the slot */
    size_t room_bytes;
    seal_word *seal;
    uint64_t word;
};

/* Of a pointer into a slab. */
static inline struct slot_end slot_end_of(const void *ptr)
{
    const struct granule *slab = granule_of(ptr);
    size_t offset_bytes = slab_slot_offset(slab, ptr);
    seal_word *seal = seal_of((const char *)ptr - offset_bytes, slab->slot_bytes);
    return (struct slot_end){
        .offset_bytes = offset_bytes,
        .room_bytes = slab->slot_bytes,
        .seal = seal,
        .word = seal_load(seal),
    };
}

/* If the seal is right. */
static inline size_t slot_request_bytes(const struct slot_end *slot)
{
    return slot->room_bytes - hmm_settings.guard.trailer_bytes - facts_slack(slot->word);
}

/* Of a destination in the arena: as far as it lies in a slot, that slot is live, and all of it lies
 * in what was asked for. */
static inline bool write_is_right(const void *to, size_t bytes)
{
    if (granule_kind(granule_of(to)) != GRANULE_SLAB || UNLIKELY(bytes == 0)) {
        return true;
    }
    struct slot_end slot = slot_end_of(to);
    size_t request_bytes = slot_request_bytes(&slot);
    return seal_is_right(&hmm_settings.guard.key, slot.seal, slot.word) && bytes <= request_bytes &&
           slot.offset_bytes <= request_bytes - bytes;
}

/* Of one that is not right. */
HMM_HIDDEN HMM_NORETURN void hmm_guard_accuse_write(const char *call, const void *to);

#endif
