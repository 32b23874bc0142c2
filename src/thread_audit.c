/*
 * thread_audit.c - the invariants of slabs and threads, checked. See slab.h and thread.h.
 */
#include "thread_room.h"

static size_t list_length(const struct slot *slot)
{
    size_t length = 0;
    while (slot != NULL) {
        slot = slot_next(slot);
        length++;
    }
    return length;
}

static const char *audit_slab(const struct granule *slab, uintptr_t owner, enum slab_state state)
{
    uint32_t free_count = (uint32_t)list_length(slab->free);
    uint32_t counted = slab->state == SLAB_FULL
                           ? class_wake(slab_class(slab))
                           : slab_slots(slab) - hmm_slab_away_slots(slab) - slab->floor_slots;
    if (granule_kind(slab) != GRANULE_SLAB || granule_owner(slab) != owner) {
        return "S2: a thread owns the slabs on its lists";
    }
    if (slab->state != state || slab->need != counted - free_count) {
        return "S1: need agrees with the free list";
    }
    if (state == SLAB_FULL && !slab_is_carved(slab)) {
        return "S3: a full slab is carved to its end";
    }
    bool has_stages = state != SLAB_FULL;
    if (!has_stages && (slab->floor_slots != 0 || slab->loose_slots != 0)) {
        return "S1: only partial and thin slabs have stages";
    }
    for (const struct slot *slot = slab->free; slot != NULL; slot = slot_next(slot)) {
        if (!slab_is_slot(slab, slot)) {
            return "S1: a free slot is a slot of the slab";
        }
    }
    return NULL;
}

static const char *audit_list(const struct slab_list *list, uintptr_t owner, enum slab_state state)
{
    const char *broken = NULL;
    uint32_t count = 0;
    for (const struct granule *slab = list->first; slab != NULL && broken == NULL;
         slab = slab->next) {
        broken = audit_slab(slab, owner, state);
        count++;
    }
    return broken != NULL || count == list->count ? broken : "S2: a list knows its length";
}

static const char *audit_class(const struct class_slabs *slabs, uintptr_t owner,
                               const struct slot *bin)
{
    const char *broken = audit_list(&slabs->partial, owner, SLAB_PARTIAL);
    broken = broken != NULL ? broken : audit_list(&slabs->thin, owner, SLAB_THIN);
    broken = broken != NULL ? broken : audit_list(&slabs->full, owner, SLAB_FULL);
    if (broken == NULL && slabs->current != NULL) {
        broken = audit_slab(slabs->current, owner, SLAB_CURRENT);
    }
    for (; broken == NULL && bin != NULL; bin = slot_next(bin)) {
        if (slabs->current != granule_of(bin) || !slab_is_slot(slabs->current, bin)) {
            broken = "T2: a bin holds slots of the current slab";
        }
    }
    return broken;
}

const char *hmm_thread_audit(void)
{
    const char *broken = NULL;
    const struct thread *thread = hmm_thread.thread;
    for (unsigned size_class = 0; broken == NULL && size_class < CLASS_COUNT; size_class++) {
        if (thread_is_open(thread)) {
            broken =
                audit_class(&thread->classes[size_class], thread->self, thread->bins[size_class]);
        }
        for (const struct thread *dormant = hmm_threads.dormant; dormant != NULL && broken == NULL;
             dormant = dormant->next) {
            broken = audit_class(&dormant->classes[size_class], OWNER_DORMANT,
                                 dormant->kept_bins[size_class]);
        }
    }
    return broken;
}
