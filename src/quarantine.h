/*
 * quarantine.h - blocks that a thread has freed, and that nobody may use again for a while. See guard.h.
 */
#ifndef HMM_QUARANTINE_H
#define HMM_QUARANTINE_H

#include "base.h"

enum { QUARANTINE_COUNT_MAX = 256 };

struct held_block {
    void *ptr; /* NULL: the place is empty */
    uint32_t bytes;
};

struct quarantine {
    uint64_t random_state; /* not 0 */
    uint32_t bytes;        /* of all blocks */
    uint32_t next;         /* where the bound takes from */
    struct held_block blocks[QUARANTINE_COUNT_MAX];
};

#endif
