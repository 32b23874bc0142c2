/*
 * settings.h - hmm_settings: what is decided before the first block is handed out, and not
 * to be changed by anybody after that. The process seals it when an engine starts: the
 * page becomes read-only.
 *
 * All of it is 0 in a process to which nobody has said anything, but for the options.
 */
#ifndef HMM_SETTINGS_H
#define HMM_SETTINGS_H

#include "options.h"
#include "seal.h"

/* Pages of its own; 4 KiB where no other size is known of. */
#if defined(__x86_64__) || defined(__i386__)
enum { SEALED_BYTES = 4096 };
#else
enum { SEALED_BYTES = 64 * 1024 };
#endif

enum guard_level { GUARD_OFF, GUARD_SEALS, GUARD_QUARANTINE, GUARD_FENCES };

/* Of blocks: guard.h. */
struct guard {
    enum guard_level level;
    bool has_sites;
    uint32_t trailer_bytes;          /* seal and sites */
    uint32_t quarantine_block_bytes; /* larger ones are not held back when they are freed */
    size_t bin_bytes_max; /* larger requests, and those of 0 bytes, are no matter of bins */
    size_t short_request_span_bytes; /* guard_fast.h; 0 where there are sites */
    struct seal_key key;
};

/* What that wants of slabs: links that only the secret can read, and that first
 * slots stay unused. */
struct slab_guard {
    uintptr_t link_key; /* odd; 0: links are plain */
    uint32_t first_slot;
    /* Slots are handed out in random order, and fences lie between slabs. */
    bool is_shuffled;
};

/* A link in code. The lowest bytes of an address say where in a granule it leads; they are written
 * where the highest would be: who writes a byte or two into a free slot reaches others first, of
 * which it is known what they were. */
enum { LINK_TURN = 16, LINK_BITS = sizeof(uintptr_t) * CHAR_BIT };

static inline uintptr_t link_mask(uintptr_t slot, uintptr_t key)
{
    return (uintptr_t)rotate_left(slot, LINK_TURN + 1) ^ key;
}

static inline uintptr_t link_code(uintptr_t slot, uintptr_t next, uintptr_t key)
{
    return (next >> LINK_TURN | next << (LINK_BITS - LINK_TURN)) ^ link_mask(slot, key);
}

static inline uintptr_t link_read(uintptr_t slot, uintptr_t word, uintptr_t key)
{
    word ^= link_mask(slot, key);
    return word << LINK_TURN | word >> (LINK_BITS - LINK_TURN);
}

struct settings {
    _Alignas(SEALED_BYTES) struct guard guard;
    struct slab_guard slabs;
    struct options options;
};

extern HMM_HIDDEN struct settings hmm_settings;

#endif
