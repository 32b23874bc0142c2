/*
 * where.c - what is at an address of the target: which block, how it stands, what is beside it, and
 * by whom it was allocated and freed. See reader.h.
 */
#include "copy.h"
#include "guard_block.h"
#include "heap_record.h"

#include <stdlib.h>
#include <string.h>

enum { WHERE_TRIES_MAX = 8 };

/* What addresses are looked up in. */
struct ground {
    struct reader *reader;
    struct copy *copy;
    struct piece *pieces; /* zones' first, in the order of addresses; then heap by heap */
    size_t piece_count;
    uintptr_t sites; /* the store of call stacks, 0: there is none */
};

/* ---------------------------------------------------------------------------------- call stacks */

/* The number may be anything: so the stack has to be what its hash says. */
static struct stack_view stack_find(const struct ground *ground, uint32_t site)
{
    struct stack_view view = {0};
    struct site_stack stack;
    const uintptr_t at = ground->sites + (uintptr_t)site * SITE_UNIT_BYTES;
    if (ground->sites == 0 || site == 0 || !reader_copy(ground->reader, at, &stack, sizeof stack) ||
        stack.frame_count > SITE_FRAMES_MAX ||
        !reader_copy(ground->reader, at + sizeof stack, view.frames,
                     stack.frame_count * sizeof view.frames[0]) ||
        site_stack_hash(view.frames, stack.frame_count) != stack.hash) {
        return (struct stack_view){0};
    }
    view.frame_count = stack.frame_count;
    return view;
}

/* ------------------------------------------------------------------------------ what blocks say */

/* Of a slot or a tagged block: its seal, and the sites before it. */
static void seal_look(const struct ground *ground, bool has_sites, bool has_record,
                      struct where *where)
{
    const uintptr_t seal = where->start + where->bytes - SEAL_BYTES;
    const size_t sites_bytes = has_record ? RECORD_BYTES : SITES_BYTES;
    const size_t trailer_bytes = SEAL_BYTES + (has_sites ? sites_bytes : 0);
    struct sites sites = {0, 0};
    uint64_t word = 0;
    if (!target_copy_cached(ground->reader, seal, &word, sizeof word)) {
        return;
    }
    if (where->standing == BLOCK_IN_USE && facts_slack(word) + trailer_bytes <= where->bytes) {
        where->has_request = true;
        where->request_bytes = where->bytes - trailer_bytes - facts_slack(word);
        where->origin = facts_origin(word);
    }
    if (has_sites &&
        target_copy_cached(ground->reader, seal - sizeof sites, &sites, sizeof sites)) {
        where->allocated = stack_find(ground, sites.allocated);
        if (where->standing != BLOCK_IN_USE) {
            where->freed = stack_find(ground, sites.freed_or_check);
        }
    }
}

static bool is_guarded(const struct copy *copy)
{
    return copy->first_slot != 0;
}

/* Whether a thread holds it back. */
static bool is_on_hold(const struct copy *copy, uintptr_t block)
{
    for (size_t i = 0; i < copy->thread_count; i++) {
        const struct quarantine *quarantine = &copy->threads[i].quarantine;
        for (size_t k = 0; k < QUARANTINE_COUNT_MAX; k++) {
            if ((uintptr_t)quarantine->slots[k].slot == block ||
                (uintptr_t)quarantine->blocks[k].ptr == block) {
                return copy->threads[i].standing != THREAD_UNUSED;
            }
        }
    }
    return false;
}

/* ---------------------------------------------------------------------------------------- slabs */

static enum block_standing slot_standing(const struct ground *ground, const uint8_t *states,
                                         size_t slot, uintptr_t start)
{
    switch (states[slot]) {
    case SLOT_USED:
        return is_on_hold(ground->copy, start) ? BLOCK_ON_HOLD : BLOCK_IN_USE;
    case SLOT_CACHED:
        return BLOCK_IN_CACHE;
    default:
        return BLOCK_IS_UNUSED;
    }
}

static struct neighbour slot_neighbour(const struct ground *ground, const uint8_t *states,
                                       size_t slot, uintptr_t start)
{
    if (slot >= SLOTS_MAX || states[slot] == SLOT_UNCARVED) {
        return (struct neighbour){0, BLOCK_IS_UNUSED};
    }
    return (struct neighbour){start, slot_standing(ground, states, slot, start)};
}

static void room_set(struct where *where, uintptr_t start, uintptr_t end, const char *what)
{
    where->kind = WHERE_ROOM;
    where->start = start;
    where->bytes = end - start;
    where->what = what;
}

static void slot_find(struct ground *ground, size_t index, uintptr_t address, struct where *where)
{
    static uint8_t states[SLOTS_MAX];
    const struct copy *copy = ground->copy;
    const struct granule *slab = &copy->granules[index];
    const unsigned size_class = (unsigned)copy_class(slab);
    const size_t slot_bytes = class_bytes(size_class);
    const uintptr_t granule = copy_granule_start(copy, index);
    const size_t slot = (address - granule) / slot_bytes;
    const char *broken = NULL;
    if (!copy_slot_states(ground->reader, copy, index, states, &broken)) {
        copy_trouble(ground->copy, broken);
    }
    if (slot >= class_capacity(size_class)) {
        room_set(where, granule + class_capacity(size_class) * slot_bytes, granule + GRANULE_BYTES,
                 "the end of a slab, which no slot fits into");
        return;
    }
    where->start = granule + slot * slot_bytes;
    if (states[slot] == SLOT_UNCARVED) {
        room_set(where, where->start, where->start + slot_bytes,
                 slot < copy->first_slot ? "the start of a slab, which is never handed out"
                                         : "a part of a slab that has never been handed out");
        return;
    }
    const size_t owner = copy_owner_index(copy, slab->owner);
    where->kind = WHERE_SLOT;
    where->bytes = slot_bytes;
    where->standing = slot_standing(ground, states, slot, where->start);
    where->container = granule;
    where->slot = slot;
    where->slot_count = class_capacity(size_class);
    where->slab_state = copy_slab_state(slab);
    where->owner = owner != SIZE_MAX ? copy_thread_pointer(&copy->threads[owner]) : 0;
    where->before = slot_neighbour(ground, states, slot - 1, where->start - slot_bytes);
    where->behind = slot_neighbour(ground, states, slot + 1, where->start + slot_bytes);
    if (is_guarded(copy)) {
        seal_look(ground, copy->options.has_sites, false, where);
    }
}

/* -------------------------------------------------------------------------------- tagged blocks */

static enum block_standing piece_standing(const struct ground *ground, const struct piece *piece)
{
    const uintptr_t block = piece->start + BLOCK_TAG_BYTES;
    if (piece->kind != PIECE_USED) {
        return BLOCK_IS_UNUSED;
    }
    const bool is_held = piece->heap < 0
                             ? is_on_hold(ground->copy, block)
                             : bsearch(&block, ground->copy->heaps[piece->heap].places,
                                       GUARD_PLACES_MAX, sizeof block, address_compare) != NULL;
    return is_held ? BLOCK_ON_HOLD : BLOCK_IN_USE;
}

/* Another block of the same zone or region. */
static struct neighbour piece_neighbour(const struct ground *ground, const struct piece *piece)
{
    const bool is_block = piece->kind == PIECE_USED || piece->kind == PIECE_FREE;
    return (struct neighbour){is_block ? piece->start + BLOCK_TAG_BYTES : 0,
                              piece_standing(ground, piece)};
}

static void piece_neighbours(const struct ground *ground, const struct piece *piece,
                             struct where *where)
{
    const struct piece *next = piece + 1;
    if (piece != ground->pieces && piece[-1].heap == piece->heap &&
        piece[-1].start + piece[-1].bytes == piece->start) {
        where->before = piece_neighbour(ground, piece - 1);
    }
    if (next != ground->pieces + ground->piece_count && next->heap == piece->heap &&
        piece->start + piece->bytes == next->start) {
        where->behind = piece_neighbour(ground, next);
    }
}

static void piece_look(const struct ground *ground, const struct piece *piece, struct where *where)
{
    static const char *const rooms[] = {
        [PIECE_GAP] = "a gap: memory that others have taken from the program break",
        [PIECE_WILDERNESS] = "what lies behind the last block of a zone",
    };
    const struct copy *copy = ground->copy;
    const bool is_heap = piece->heap >= 0;
    if (piece->kind == PIECE_GAP || piece->kind == PIECE_WILDERNESS) {
        room_set(where, piece->start, piece->start + piece->bytes, rooms[piece->kind]);
        return;
    }
    where->kind = is_heap ? WHERE_HEAP_BLOCK : WHERE_MEDIUM;
    where->start = piece->start + BLOCK_TAG_BYTES;
    where->bytes = piece->bytes - BLOCK_TAG_BYTES;
    where->standing = piece_standing(ground, piece);
    where->container = is_heap ? copy->heaps[piece->heap].address : 0;
    piece_neighbours(ground, piece, where);
    const bool has_seal =
        is_heap ? copy->heaps[piece->heap].handle.magic == HANDLE_MAGIC_GUARDED : is_guarded(copy);
    if (has_seal && where->standing != BLOCK_IS_UNUSED) {
        seal_look(ground, copy->options.has_sites, is_heap, where);
    }
}

/* The block that the address lies in, or its tag; of nested heaps the inner one's. */
static bool piece_find(const struct ground *ground, uintptr_t address, struct where *where)
{
    const struct piece *found = NULL;
    for (size_t i = 0; i < ground->piece_count; i++) {
        const struct piece *piece = &ground->pieces[i];
        if (address - piece->start < piece->bytes &&
            (found == NULL || piece->bytes < found->bytes)) {
            found = piece;
        }
    }
    if (found != NULL) {
        piece_look(ground, found, where);
    }
    return found != NULL;
}

/* ------------------------------------------------------------------------------------ the arena */

/* The first granule of the large run that holds another; SIZE_MAX: none does. */
static size_t run_find(const struct copy *copy, size_t wanted)
{
    size_t index = 0;
    while (index <= wanted) {
        const struct granule *granule = &copy->granules[index];
        const bool is_run = copy_is_taken(copy, index) && granule->kind == GRANULE_LARGE;
        const size_t count = is_run ? size_max(granule->run.granule_count, 1) : 1;
        if (is_run && wanted - index < count) {
            return index;
        }
        index += count;
    }
    return SIZE_MAX;
}

static void run_look(const struct ground *ground, size_t index, uintptr_t address,
                     struct where *where)
{
    const struct copy *copy = ground->copy;
    const struct run *run = &copy->granules[index].run;
    const uintptr_t start = copy_granule_start(copy, index);
    if (address - run->start >= run->bytes) {
        room_set(where, start, start + (run->granule_count << GRANULE_SHIFT),
                 "the granules of a large block, but beside it");
        return;
    }
    where->kind = WHERE_LARGE;
    where->standing = BLOCK_IN_USE;
    where->start = run->start;
    where->bytes = run->bytes;
    if (is_guarded(copy)) {
        where->has_request = true;
        where->request_bytes = run->request_bytes;
        where->origin = (enum origin)run->origin;
        where->allocated = stack_find(ground, copy->options.has_sites ? run->site : 0);
    }
}

static const char *granule_room(const struct copy *copy, size_t index)
{
    if (index >= copy->arena.frontier_count) {
        return "memory that the heap has reserved, and never used";
    }
    if (!copy_is_taken(copy, index)) {
        return copy_is_touched(copy, index) ? "free memory that the heap keeps"
                                            : "free memory that the system has";
    }
    switch (copy->granules[index].kind) {
    case GRANULE_ZONE:
        return "the start of a zone, before its first block";
    case GRANULE_FENCE:
        return "a fence, or a freed block that waits between fences";
    case GRANULE_EMPTY:
        return "blocks of 0 bytes, which nobody can access";
    default:
        return "memory on its way between threads and the arena";
    }
}

static void granule_find(struct ground *ground, uintptr_t address, struct where *where)
{
    const struct copy *copy = ground->copy;
    const size_t index = (address - copy->arena.base) >> GRANULE_SHIFT;
    const uintptr_t start = copy_granule_start(copy, index);
    if (index < copy->arena.frontier_count && copy_is_taken(copy, index)) {
        const size_t run = run_find(copy, index);
        if (copy->granules[index].kind == GRANULE_SLAB) {
            slot_find(ground, index, address, where);
            return;
        }
        if (run != SIZE_MAX) {
            run_look(ground, run, address, where);
            return;
        }
    }
    room_set(where, start, start + GRANULE_BYTES, granule_room(copy, index));
}

/* ------------------------------------------------------------------------------ everything else */

static bool is_between(uintptr_t address, uintptr_t start, uintptr_t end)
{
    return address >= start && address < end;
}

static bool region_find(const struct copy *copy, uintptr_t address, struct where *where)
{
    for (size_t i = 0; i < copy->region_count; i++) {
        const struct region *region = &copy->regions[i].region;
        if (is_between(address, region->base, region_end(region))) {
            room_set(where, region->base, region_end(region),
                     address < region->brk ? "a block heap's own words, before and behind blocks"
                                           : "memory that a block heap has reserved");
            return true;
        }
    }
    return false;
}

static void mapping_find(const struct where_list *list, uintptr_t address, struct where *where)
{
    where->kind = WHERE_NOTHING;
    for (size_t i = 0; i < list->mapping_count; i++) {
        const struct mapping_view *mapping = &list->mappings[i];
        if (is_between(address, mapping->start, mapping->end)) {
            where->kind = WHERE_MAPPING;
            where->start = mapping->start;
            where->bytes = mapping->end - mapping->start;
            where->what = mapping->name;
            memcpy(where->access, mapping->access, sizeof where->access);
        }
    }
}

static void address_find(struct ground *ground, const struct where_list *list, uintptr_t address,
                         struct where *where)
{
    const struct copy *copy = ground->copy;
    const struct address_range metadata = copy_metadata(copy);
    if (piece_find(ground, address, where)) {
        return;
    }
    if (address - copy->arena.base < copy->arena.bytes) {
        granule_find(ground, address, where);
    } else if (is_between(address, metadata.start, metadata.end)) {
        room_set(where, metadata.start, metadata.end, "the heap's own tables");
    } else if (!region_find(copy, address, where)) {
        mapping_find(list, address, where);
    }
}

bool reader_where(struct reader *reader, const uintptr_t *addresses, size_t count,
                  struct where_list *list)
{
    struct copy copy;
    struct mapping_list mappings = {0};
    struct mapping_list modules = {0};
    *list = (struct where_list){0};
    if (!copy_take(reader, &copy, WHERE_TRIES_MAX)) {
        return false;
    }
    struct ground ground = {.reader = reader, .copy = &copy};
    const uintptr_t store = (uintptr_t)reader->root.sites;
    bool is_read = reader->ops->list(reader, MAPPINGS_PLAIN, &mappings) &&
                   reader->ops->list(reader, MAPPINGS_MODULES, &modules);
    list->mappings = mappings.entries;
    list->mapping_count = mappings.count;
    list->modules = modules.entries;
    list->module_count = modules.count;
    if (!is_read) {
        copy_free(&copy);
        where_free(list);
        return false;
    }
    if (!reader_copy(reader, store, &ground.sites, sizeof ground.sites)) {
        ground.sites = 0;
    }
    list->places = must_allocate(count, sizeof *list->places);
    copy_pieces(reader, &copy, &ground.pieces, &ground.piece_count);
    for (size_t i = 0; i < count; i++) {
        address_find(&ground, list, addresses[i], &list->places[i]);
    }
    list->has_changed = copy.has_changed || !copy_is_current(reader, &copy);
    list->is_unfit = copy.trouble != NULL;
    free(ground.pieces);
    copy_free(&copy);
    return true;
}

void where_free(struct where_list *list)
{
    struct mapping_list mappings = {list->mappings, list->mapping_count, 0};
    struct mapping_list modules = {list->modules, list->module_count, 0};
    mapping_list_free(&mappings);
    mapping_list_free(&modules);
    free(list->places);
    *list = (struct where_list){0};
}
