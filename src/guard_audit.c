/*
 * guard_audit.c - all live blocks, for those who look at them; and G1-G4. See guard.h.
 */
#include "guard_quarantine.h"
#include "medium.h"

/* -------------------------------------------------------------------------------------- walking */

static bool walk_block(uintptr_t address, size_t room_bytes, guard_visitor visit, void *context)
{
    seal_word *seal = seal_of((void *)address, room_bytes);
    uint64_t word = seal_load(seal);
    if (word == 0 || !seal_is_right(&hmm_settings.guard.key, seal, word)) {
        return true;
    }
    size_t request_bytes = room_bytes - hmm_settings.guard.trailer_bytes - facts_slack(word);
    return visit((void *)address, request_bytes,
                 hmm_settings.guard.has_sites ? sites_of(seal)->allocated : 0, context);
}

static bool walk_slab(const struct granule *slab, guard_visitor visit, void *context)
{
    size_t slot_bytes = class_bytes(slab_class(slab));
    for (uint32_t index = GUARD_FIRST_SLOT; index < slab_carved(slab); index++) {
        if (!walk_block(granule_start(slab) + index * slot_bytes, slot_bytes, visit, context)) {
            return false;
        }
    }
    return true;
}

struct walk {
    guard_visitor visit;
    void *context;
};

static bool walk_medium(void *ptr, size_t room_bytes, void *context)
{
    const struct walk *walk = context;
    return walk_block((uintptr_t)ptr, room_bytes, walk->visit, walk->context);
}

void hmm_guard_walk(guard_visitor visit, void *context)
{
    struct walk walk = {visit, context};
    bool is_going_on = true;
    for (size_t index = 0; index < hmm_arena.frontier_count && is_going_on; index++) {
        const struct granule *granule = &hmm_arena.table[index];
        if (granule_kind(granule) == GRANULE_SLAB) {
            is_going_on = walk_slab(granule, visit, context);
        } else if (granule_kind(granule) == GRANULE_LARGE) {
            is_going_on = visit((void *)granule->run.start, granule->run.request_bytes,
                                granule->run.site, context);
        }
    }
    if (is_going_on) {
        hmm_medium_walk(walk_medium, &walk);
    }
}

/* ------------------------------------------------------------------------------------ the audit */

/* A room that a slot or a medium block fills. */
static const char *audit_room(uintptr_t start, size_t room_bytes)
{
    seal_word *seal = seal_of((void *)start, room_bytes);
    uint64_t word = seal_load(seal);
    uintptr_t trailer = start + room_bytes - hmm_settings.guard.trailer_bytes;
    if (word != 0) {
        bool is_good =
            seal_is_right(&hmm_settings.guard.key, seal, word) &&
            (!hmm_settings.guard.has_sites ||
             sites_of(seal)->freed_or_check == sites_check(seal)) &&
            first_nonzero((void *)(trailer - facts_slack(word)), (void *)trailer) == NULL;
        return is_good ? NULL : "G1: a live block has its seal, and its slack is 0";
    }
    uintptr_t content = start + sizeof(struct slot *);
    bool is_zero = content >= trailer || first_nonzero((void *)content, (void *)trailer) == NULL;
    return is_zero ? NULL : "G2: a free slot is 0 but for its link";
}

static const char *audit_slab(const struct granule *slab)
{
    const char *broken = NULL;
    size_t slot_bytes = class_bytes(slab_class(slab));
    if (seal_load(seal_of((void *)granule_start(slab), slot_bytes)) != 0) {
        return "G3: the first slot is never handed out";
    }
    for (uint32_t index = GUARD_FIRST_SLOT; index < slab_carved(slab) && broken == NULL; index++) {
        broken = audit_room(granule_start(slab) + index * slot_bytes, slot_bytes);
    }
    return broken;
}

static bool audit_medium(void *ptr, size_t room_bytes, void *context)
{
    const char **broken = context;
    *broken = audit_room((uintptr_t)ptr, room_bytes);
    return *broken == NULL;
}

static const char *audit_quarantine(const struct quarantine *quarantine)
{
    size_t bytes = 0;
    for (size_t index = 0; index < QUARANTINE_COUNT; index++) {
        const struct held_block *held = &quarantine->blocks[index];
        bytes += held->bytes;
        if (held->ptr != NULL && !hmm_guard_held_is_free(held->ptr)) {
            return "G4: a block in quarantine is as it came";
        }
        const struct held_slot *slot = &quarantine->slots[index];
        if (slot->slot != NULL &&
            !(hmm_guard_held_is_free(slot->slot) && granule_of(slot->slot) == slot->slab)) {
            return "G4: a slot in quarantine is as it came, and its slab's";
        }
    }
    return bytes == quarantine->bytes && bytes <= QUARANTINE_BYTES
               ? NULL
               : "G4: what is in quarantine is counted and bounded";
}

const char *hmm_guard_audit(void)
{
    const char *broken = NULL;
    for (size_t index = 0; index < hmm_arena.frontier_count && broken == NULL; index++) {
        const struct granule *granule = &hmm_arena.table[index];
        broken = granule_kind(granule) == GRANULE_SLAB ? audit_slab(granule) : NULL;
    }
    if (broken == NULL) {
        hmm_medium_walk(audit_medium, &broken);
    }
    return broken == NULL && thread_is_open(hmm_thread.thread)
               ? audit_quarantine(&hmm_thread.thread->guarded->quarantine)
               : broken;
}
