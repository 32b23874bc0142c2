/*
 * walk.c - walks over lists of slots and tiles of blocks in the target's memory. See copy.h.
 *
 * Every link is checked before it is followed, and every walk is bounded by what there can be.
 */
#include "copy.h"

#include <stdlib.h>

/* ---------------------------------------------------------------------------------------- slots */

struct slot_walk {
    struct reader *reader;
    const struct copy *copy;
    uintptr_t start; /* of the granule */
    size_t slot_bytes;
    uint32_t carved;
    uint8_t *states;
};

/* Marks up to `count_max` slots from `slot` on. How many it met; UINT32_MAX: a link led astray, or
 * to a slot that was marked before. */
static uint32_t mark(const struct slot_walk *walk, uintptr_t slot, uint32_t count_max,
                     enum slot_state state)
{
    uint32_t count = 0;
    for (; slot != 0 && count < count_max; count++) {
        size_t offset = slot - walk->start;
        uintptr_t word;
        if (offset >= GRANULE_BYTES || offset % walk->slot_bytes != 0 ||
            offset / walk->slot_bytes >= walk->carved ||
            walk->states[offset / walk->slot_bytes] != SLOT_USED ||
            !target_copy_cached(walk->reader, slot, &word, sizeof word)) {
            return UINT32_MAX;
        }
        walk->states[offset / walk->slot_bytes] = (uint8_t)state;
        slot = copy_link(walk->copy, slot, word);
    }
    return count;
}

/* The bin and the batches that hold slots of the slab. NULL: all well. */
static const char *mark_cached(const struct slot_walk *walk, size_t index)
{
    const struct copy *copy = walk->copy;
    const struct granule *descriptor = copy->arena.table + index;
    const size_t size_class = copy_class(&copy->granules[index]);
    for (size_t i = copy_holder_index(copy, (uintptr_t)descriptor);
         i < copy->holder_count && copy->holders[i].slab == (uintptr_t)descriptor; i++) {
        const struct thread_copy *thread = &copy->threads[copy->holders[i].thread];
        const size_t place = copy->holders[i].place;
        if (place == size_class &&
            mark(walk, thread->bins[place], walk->carved + 1, SLOT_CACHED) > walk->carved) {
            return "T2: a bin holds slots of the current slab, each once";
        }
        if (place >= CLASS_COUNT) {
            const struct slot_chain *chain = &thread->thread.batches[place - CLASS_COUNT].chain;
            if (mark(walk, (uintptr_t)chain->head, chain->count, SLOT_CACHED) != chain->count) {
                return "T4: a batch holds slots of one slab, each once";
            }
        }
    }
    return NULL;
}

/* Slots that lie, wholly or in part, on pages that are away. How many. */
static uint32_t mark_away(const struct slot_walk *walk, unsigned away)
{
    uint32_t count = 0;
    for (uint32_t slot = 0; away != 0 && slot < walk->carved; slot++) {
        size_t first = slot * walk->slot_bytes / walk->reader->page_bytes;
        size_t last = ((slot + 1) * walk->slot_bytes - 1) / walk->reader->page_bytes;
        unsigned pages = (2u << last) - (1u << first);
        if ((away & pages) != 0) {
            count += walk->states[slot] == SLOT_USED;
            walk->states[slot] = SLOT_FREE;
        }
    }
    return count;
}

/* The free ones: what is away, the slab's own list, and what others freed. NULL: all well. */
static const char *mark_free(const struct slot_walk *walk, const struct granule *slab)
{
    const uint32_t thin = mark_away(walk, remote_thin(slab->remote));
    const uint32_t elsewhere = remote_count(slab->remote) + mark_away(walk, slab->away);
    const uint32_t free_slots = copy_free_slots(walk->copy, slab);
    const uint32_t own = free_slots - (elsewhere < free_slots ? elsewhere : free_slots);
    const uint32_t marked = mark(walk, (uintptr_t)slab->free, walk->carved + 1, SLOT_FREE);
    /* The owner links a slot first and counts it next; a core may have been taken in between. */
    if (marked != own && (slab->owner <= OWNER_DORMANT || marked != own + 1)) {
        return "S1: need agrees with the free list";
    }
    const uint32_t remote = remote_count(slab->remote) - thin;
    const uintptr_t head =
        walk->start + ((uintptr_t)(remote_head(slab->remote) - 1) << SLOT_UNIT_SHIFT);
    return remote == 0 || mark(walk, head, remote, SLOT_FREE) == remote
               ? NULL
               : "R5: the remote list holds as many slots as its word says";
}

bool copy_slot_states(struct reader *reader, const struct copy *copy, size_t index,
                      uint8_t states[SLOTS_MAX], const char **broken)
{
    const struct granule *slab = &copy->granules[index];
    const struct slot_walk walk = {
        .reader = reader,
        .copy = copy,
        .start = copy_granule_start(copy, index),
        .slot_bytes = class_bytes((unsigned)copy_class(slab)),
        .carved = copy_carved(slab),
        .states = states,
    };
    for (size_t i = 0; i < SLOTS_MAX; i++) {
        states[i] = (uint8_t)(i >= copy->first_slot && i < walk.carved ? SLOT_USED : SLOT_UNCARVED);
    }
    const char *found = mark_free(&walk, slab);
    found = found != NULL ? found : mark_cached(&walk, index);
    if (broken != NULL) {
        *broken = found;
    }
    return found == NULL;
}

/* --------------------------------------------------------------------------------------- blocks */

struct piece_list {
    struct piece *entries;
    size_t count;
    size_t room;
};

static void piece_add(struct piece_list *list, uintptr_t start, uintptr_t end, enum piece_kind kind,
                      int32_t heap)
{
    const size_t first_room = 1024;
    if (start >= end) {
        return;
    }
    if (list->count == list->room) {
        list->room = list->room != 0 ? 2 * list->room : first_room;
        list->entries = must_grow(list->entries, list->room, sizeof *list->entries);
    }
    list->entries[list->count++] = (struct piece){start, end - start, kind, heap};
}

/* A zone's gaps are free blocks that lie on the shelf or are being given back. */
static enum piece_kind piece_kind_of(uintptr_t tag, int32_t heap)
{
    if ((tag & BLOCK_IS_FREE) != 0) {
        return PIECE_FREE;
    }
    if ((tag & BLOCK_IS_GAP) != 0) {
        return heap < 0 ? PIECE_FREE : PIECE_GAP;
    }
    return PIECE_USED;
}

/* The blocks that tile [start, end). false: a tag is none; the rest counts as in use. */
static bool blocks_walk(struct reader *reader, const struct block_key *key, uintptr_t start,
                        uintptr_t end, int32_t heap, struct piece_list *list)
{
    while (start < end) {
        uintptr_t tag = 0;
        bool is_read = target_copy_cached(reader, start, &tag, sizeof tag);
        size_t bytes = tag_bytes(tag);
        if (!is_read || !tag_is_sealed(key, block_at(start), tag) || bytes < BLOCK_BYTES_MIN ||
            !is_aligned(bytes, BLOCK_UNIT_BYTES) || bytes > end - start) {
            piece_add(list, start, end, PIECE_USED, heap);
            return false;
        }
        piece_add(list, start, start + bytes, piece_kind_of(tag, heap), heap);
        start += bytes;
    }
    return true;
}

static bool zone_walk(struct reader *reader, const struct copy *copy, size_t index,
                      struct piece_list *list)
{
    const struct granule *first = &copy->granules[index];
    const struct zone *zone = &first->zone;
    const uintptr_t base = copy_granule_start(copy, index);
    const uintptr_t start = base + BLOCK_UNIT_BYTES - BLOCK_TAG_BYTES;
    const uintptr_t most = copy_granule_start(copy, copy->arena.frontier_count);
    if (first->shard >= SHARD_COUNT_MAX || zone->top < start || zone->end < zone->top ||
        zone->end > most) {
        return false;
    }
    bool is_well = blocks_walk(reader, &copy->shards[first->shard].key, start, zone->top, -1, list);
    piece_add(list, zone->top, zone->end, PIECE_WILDERNESS, -1);
    return is_well;
}

static bool heap_walk(struct reader *reader, const struct copy *copy, size_t heap_index,
                      struct piece_list *list)
{
    const struct heap_copy *heap = &copy->heaps[heap_index];
    bool is_well = true;
    for (size_t i = 0; i < heap->region_count; i++) {
        const struct region *region = &copy->regions[heap->first_region + i].region;
        if (region->first != 0) {
            is_well &= blocks_walk(reader, &heap->handle.heap.key, region->first,
                                   region->brk - BLOCK_TAG_BYTES, (int32_t)heap_index, list);
        }
    }
    return is_well;
}

void copy_pieces(struct reader *reader, struct copy *copy, struct piece **pieces,
                 size_t *piece_count)
{
    struct piece_list list = {0};
    bool is_well = true;
    for (size_t index = 0; index < copy->arena.frontier_count; index++) {
        const struct granule *granule = &copy->granules[index];
        if (granule->kind == GRANULE_ZONE && granule->run_offset == 0) {
            is_well &= zone_walk(reader, copy, index, &list);
        }
    }
    for (size_t heap = 0; heap < copy->heap_count; heap++) {
        is_well &= heap_walk(reader, copy, heap, &list);
    }
    if (!is_well) {
        copy_trouble(copy, "B1: a damaged tag");
    }
    *pieces = list.entries;
    *piece_count = list.count;
}
