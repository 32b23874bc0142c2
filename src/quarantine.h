/*
 * quarantine.h - blocks that a thread has freed, and that nobody may use again for a
 * while. See guard.h.
 */
#ifndef HMM_QUARANTINE_H
#define HMM_QUARANTINE_H

#include "base.h"

struct granule;
struct slot;

enum { QUARANTINE_COUNT_MAX = 256 };

/* A short slot, and its slab, so that nobody has to look it up. */
struct held_slot {
    struct slot *slot; /* NULL: the place is empty */
    struct granule *slab;
};

struct held_block {
    void *ptr; /* NULL: the place is empty */
    uint32_t bytes;
};

struct quarantine {
    uint64_t random_state;
    uint32_t bytes; /* of all blocks, but for short slots, whose number bounds them */
    uint32_t next;  /* where the bound takes from */
    struct held_slot slots[QUARANTINE_COUNT_MAX];
    struct held_block blocks[QUARANTINE_COUNT_MAX];
};

#endif
