/*
 * slab.c - slots of one size in a granule. See slab.h.
 */
#include "slab.h"
#include "os.h"

struct granule *hmm_slab_create(unsigned size_class, uintptr_t owner)
{
    struct granule *slab = hmm_arena_take(1, 1);
    if (slab == NULL) {
        return NULL;
    }
    slab->free = NULL;
    slab->need = 0;
    atomic_store_explicit(&slab->carved_slots, 0, memory_order_relaxed);
    slab->index_factor = class_index_factor(size_class);
    slab->virgin_units = VIRGIN_NONE;
    slab->next = slab->prev = NULL;
    slab->state = SLAB_CURRENT;
    slab->is_zero = !granule_is_touched(slab);
    atomic_store_explicit(&slab->size_class, (uint8_t)size_class, memory_order_relaxed);
    atomic_store_explicit(&slab->remote, 0, memory_order_relaxed);
    atomic_store_explicit(&slab->threshold, class_wake(size_class), memory_order_relaxed);
    granule_set_kind(slab, GRANULE_SLAB);
    granule_set_owner(slab, owner);
    return slab;
}

/* So many slots that the page in which the first one ends is used up. */
static uint32_t carve_count(size_t offset, size_t slot_bytes)
{
    size_t page_bytes = size_min(hmm_os_page_bytes(), GRANULE_BYTES);
    size_t end = size_min(align_up(offset + slot_bytes, page_bytes), GRANULE_BYTES);
    return (uint32_t)((end - offset) / slot_bytes);
}

struct slot *hmm_slab_carve(struct granule *slab)
{
    size_t slot_bytes = class_bytes(slab_class(slab));
    size_t offset = slab_carved(slab) * slot_bytes;
    uint32_t count = carve_count(offset, slot_bytes);
    struct slot *first = (struct slot *)(granule_start(slab) + offset);
    struct slot *slot = first;
    for (uint32_t carved = 1; carved < count; carved++) {
        slot->next = (struct slot *)((uintptr_t)slot + slot_bytes);
        slot = slot->next;
    }
    slot->next = NULL;
    atomic_store_explicit(&slab->carved_slots, slab_carved(slab) + count,
                          memory_order_relaxed);
    slab->need += count;
    slab->virgin_units = slab->is_zero ? (uint32_t)(offset >> SLOT_UNIT_SHIFT) : VIRGIN_NONE;
    return first;
}

struct slot *hmm_slab_take_free(struct granule *slab)
{
    struct slot *first = slab->free;
    if (first != NULL) {
        slab->free = NULL;
        slab->need = slab_carved(slab);
        slab->virgin_units = VIRGIN_NONE;
    }
    return first;
}

void hmm_slab_put_back(struct granule *slab, struct slot *first)
{
    uint32_t count = 1;
    struct slot *last = first;
    while (last->next != NULL) {
        last = last->next;
        count++;
    }
    last->next = slab->free;
    slab->free = first;
    slab->need -= count;
    slab->virgin_units = VIRGIN_NONE;
}

void hmm_slab_release(struct granule *slab)
{
    granule_set_owner(slab, 0);
    granule_set_kind(slab, GRANULE_FREE);
    atomic_store_explicit(&slab->remote, 0, memory_order_relaxed);
    hmm_arena_give(slab, 1, 1);
}
