/*
 * picture.c - makes squares of a snapshot. See picture.h.
 *
 * Granules are cells already. The tagged blocks of zones are counted where they begin; those of
 * block heaps are cut at the cells' borders, so that a cell knows how many of its bytes are live.
 */
#include "picture.h"
#include "hmm.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

enum {
    /* Regions up to this size are drawn by the page, larger ones by the granule. */
    FINE_BYTES_MAX = 4 << 20,
    FINE_BYTES = 4096,
    /* No picture needs more cells for one region; then they grow. */
    CELLS_MAX = 1 << 22,
    PAGES_AT_ONCE = 4096, /* more than any cell has */
    PERCENT = 100,
};

/* Cells have 16 bits for a count, and the blocks that begin in one do not need them. */
static void count_up(uint16_t *count)
{
    *count = (uint16_t)(*count + (*count < UINT16_MAX));
}

static uint16_t count_clip(size_t count)
{
    return (uint16_t)(count < UINT16_MAX ? count : UINT16_MAX);
}

static uint16_t live_share(size_t live_bytes, size_t cell_bytes)
{
    size_t bytes = size_min(live_bytes, cell_bytes);
    return (uint16_t)(bytes * CELL_LIVE_FULL / cell_bytes);
}

/* ------------------------------------------------------------------------------------ the arena */

static enum cell_kind kind_of_granule(const struct granule_view *granule)
{
    switch ((enum granule_view_kind)granule->kind) {
    case VIEW_DIRTY:
        return CELL_DIRTY;
    case VIEW_TAKEN:
        return CELL_TAKEN;
    case VIEW_SLAB:
        return CELL_SLAB;
    case VIEW_ZONE:
        return CELL_ZONE;
    case VIEW_LARGE:
        return granule->first_offset == 0 ? CELL_LARGE : CELL_LARGE_MORE;
    case VIEW_FENCE:
        return CELL_FENCE;
    case VIEW_BEYOND:
        return granule->resident_bytes > 0 ? CELL_AHEAD : CELL_EMPTY;
    default:
        return CELL_EMPTY;
    }
}

static struct cell cell_of_granule(const struct granule_view *granule, size_t page_bytes)
{
    struct cell cell = {
        .kind = (uint8_t)kind_of_granule(granule),
        .pages = (uint8_t)size_min(granule->resident_bytes / page_bytes, CELL_PAGES_UNKNOWN - 1),
        .owner = CELL_OWNER_NONE,
        .live = live_share(granule->live_bytes, GRANULE_BYTES),
    };
    if (cell.kind == CELL_SLAB) {
        size_t taken_slots = (size_t)granule->used_slots + granule->cached_slots;
        cell.size_class = (uint8_t)size_min(granule->size_class, CLASS_COUNT - 1);
        cell.state = granule->state;
        cell.owner = granule->thread == NO_THREAD ? CELL_OWNER_NONE : granule->thread;
        cell.used = granule->used_slots;
        cell.cached = granule->cached_slots;
        cell.free = count_clip(size_max(granule->carved_slots, taken_slots) - taken_slots);
    }
    return cell;
}

static void count_zone_blocks(struct strip *strip, const struct snapshot *snapshot)
{
    for (size_t i = 0; i < snapshot->piece_count; i++) {
        const struct piece *piece = &snapshot->pieces[i];
        size_t index = (piece->start - strip->start) >> GRANULE_SHIFT;
        if (piece->heap >= 0 || index >= strip->cell_count ||
            strip->cells[index].kind != CELL_ZONE) {
            continue;
        }
        if (piece->kind == PIECE_USED) {
            count_up(&strip->cells[index].used);
        } else if (piece->kind == PIECE_FREE) {
            count_up(&strip->cells[index].free);
        }
    }
}

/* Whether all of the extent's pages are in memory, as those of a huge page are. */
static bool is_extent_whole(const struct strip *strip, size_t first, size_t count,
                            size_t page_bytes)
{
    for (size_t i = first; i < first + count; i++) {
        if (strip->cells[i].pages != size_min(GRANULE_BYTES / page_bytes, CELL_PAGES_UNKNOWN - 1)) {
            return false;
        }
    }
    return true;
}

/* The system tells how much of a mapping is in huge pages, not which part. Where as many extents
 * are whole as there are huge pages, it is those; else nothing is claimed. */
static void mark_huge(struct strip *strip, const struct mapping_view *mapping, size_t page_bytes)
{
    const size_t extent_count = ARENA_ALIGN_BYTES / GRANULE_BYTES;
    uintptr_t start = align_up(size_max(mapping->start, strip->start), ARENA_ALIGN_BYTES);
    uintptr_t end = size_min(mapping->end, strip->start + (strip->cell_count << GRANULE_SHIFT));
    for (int round = 0; round < 2; round++) {
        size_t whole_bytes = 0;
        for (uintptr_t at = start; at < end && end - at >= ARENA_ALIGN_BYTES;
             at += ARENA_ALIGN_BYTES) {
            size_t first = (at - strip->start) >> GRANULE_SHIFT;
            if (!is_extent_whole(strip, first, extent_count, page_bytes)) {
                continue;
            }
            whole_bytes += ARENA_ALIGN_BYTES;
            for (size_t i = first; round == 1 && i < first + extent_count; i++) {
                strip->cells[i].state |= CELL_IS_HUGE;
            }
        }
        if (whole_bytes != mapping->huge_bytes) {
            return;
        }
    }
}

static bool make_arena(struct strip *strip, const struct snapshot *snapshot)
{
    char reserved[BYTES_TEXT_MAX];
    char taken[BYTES_TEXT_MAX];
    snprintf(strip->name, sizeof strip->name, "Arena");
    snprintf(strip->note, sizeof strip->note, "%s up to its frontier, of %s reserved",
             bytes_text(taken, snapshot->frontier_count << GRANULE_SHIFT),
             bytes_text(reserved, snapshot->arena_bytes));
    strip->start = snapshot->arena_base;
    strip->cell_bytes = GRANULE_BYTES;
    strip->cell_count = snapshot->granule_count;
    strip->cells = calloc(strip->cell_count, sizeof *strip->cells);
    if (strip->cells == NULL) {
        return false;
    }
    for (size_t i = 0; i < strip->cell_count; i++) {
        strip->cells[i] = cell_of_granule(&snapshot->granules[i], snapshot->page_bytes);
    }
    count_zone_blocks(strip, snapshot);
    for (size_t i = 0; i < snapshot->mapping_count; i++) {
        if (snapshot->mappings[i].huge_bytes > 0) {
            mark_huge(strip, &snapshot->mappings[i], snapshot->page_bytes);
        }
    }
    return true;
}

/* ------------------------------------------------------------------------------ the block heaps */

/* What a region's cells hold, while they are counted. */
struct cell_bytes {
    uint32_t live;
    uint32_t foreign;
};

/* Adds the piece to the cells that it lies in. */
static void piece_spread(const struct strip *strip, const struct piece *piece,
                         struct cell_bytes *bytes)
{
    uintptr_t end = piece->start + piece->bytes;
    uintptr_t at = piece->start;
    while (at < end) {
        size_t index = (at - strip->start) / strip->cell_bytes;
        if (index >= strip->cell_count) {
            return;
        }
        uintptr_t next = size_min(end, strip->start + (index + 1) * strip->cell_bytes);
        if (piece->kind == PIECE_USED) {
            bytes[index].live += (uint32_t)(next - at);
        } else if (piece->kind == PIECE_GAP) {
            bytes[index].foreign += (uint32_t)(next - at);
        }
        at = next;
    }
}

/* They are in the order of heaps; those of zones come before. */
static size_t first_piece(const struct snapshot *snapshot, size_t heap)
{
    size_t low = 0;
    size_t high = snapshot->piece_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        bool is_before = snapshot->pieces[middle].heap < (int32_t)heap;
        low = is_before ? middle + 1 : low;
        high = is_before ? high : middle;
    }
    return low;
}

static void region_fill(struct strip *strip, const struct snapshot *snapshot,
                        const struct region_view *region, struct cell_bytes *bytes)
{
    for (size_t i = first_piece(snapshot, region->heap);
         i < snapshot->piece_count && (size_t)snapshot->pieces[i].heap == region->heap; i++) {
        const struct piece *piece = &snapshot->pieces[i];
        if (piece->start < strip->start || piece->start >= region->brk) {
            continue;
        }
        struct cell *cell = &strip->cells[(piece->start - strip->start) / strip->cell_bytes];
        if (piece->kind == PIECE_USED) {
            count_up(&cell->used);
        } else if (piece->kind == PIECE_FREE) {
            count_up(&cell->free);
        }
        piece_spread(strip, piece, bytes);
    }
    for (size_t i = 0; i < strip->cell_count; i++) {
        struct cell *cell = &strip->cells[i];
        bool is_foreign = bytes[i].foreign > strip->cell_bytes / 2;
        cell->kind = is_foreign ? CELL_FOREIGN : CELL_TAGGED;
        cell->pages = CELL_PAGES_UNKNOWN;
        cell->owner = CELL_OWNER_NONE;
        cell->live = live_share(bytes[i].live, strip->cell_bytes);
    }
}

/* How many of the pages of each of a few cells are in memory. */
static void count_pages_of(struct cell *cells, size_t cell_count, const bool *is_resident,
                           size_t cell_pages)
{
    for (size_t i = 0; i < cell_count; i++) {
        cells[i].pages = 0;
        for (size_t page = 0; page < cell_pages; page++) {
            cells[i].pages = (uint8_t)(cells[i].pages + is_resident[i * cell_pages + page]);
        }
    }
}

static void count_pages(struct strip *strip, struct reader *reader, size_t page_bytes)
{
    bool is_resident[PAGES_AT_ONCE];
    size_t cell_pages = strip->cell_bytes / page_bytes;
    if (cell_pages >= CELL_PAGES_UNKNOWN) {
        return;
    }
    size_t cells_at_once = PAGES_AT_ONCE / cell_pages;
    for (size_t first = 0; first < strip->cell_count; first += cells_at_once) {
        size_t cell_count = size_min(cells_at_once, strip->cell_count - first);
        if (reader_pages(reader, strip->start + first * strip->cell_bytes, cell_count * cell_pages,
                         is_resident)) {
            count_pages_of(&strip->cells[first], cell_count, is_resident, cell_pages);
        }
    }
}

static void region_name(struct strip *strip, const struct snapshot *snapshot,
                        const struct region_view *region)
{
    static const char *const fits[] = {"good", "first", "next", "best"};
    const struct heap_view *heap = &snapshot->heaps[region->heap];
    char taken[BYTES_TEXT_MAX];
    if (heap->is_process) {
        snprintf(strip->name, sizeof strip->name, "Block heap of the process");
    } else {
        snprintf(strip->name, sizeof strip->name, "HmmHeap %#zx", heap->address);
    }
    snprintf(strip->note, sizeof strip->note, "%s up to the break, %s fit",
             bytes_text(taken, region->brk - region->base), fits[(unsigned)heap->fit % 4]);
}

static bool make_region(struct strip *strip, const struct snapshot *snapshot,
                        const struct region_view *region)
{
    size_t fine_bytes = size_max(FINE_BYTES, snapshot->page_bytes);
    size_t span_bytes = region->brk - region->base;
    strip->cell_bytes = span_bytes > FINE_BYTES_MAX ? GRANULE_BYTES : fine_bytes;
    while (span_bytes / strip->cell_bytes > CELLS_MAX) {
        strip->cell_bytes *= 2;
    }
    region_name(strip, snapshot, region);
    strip->is_nested = snapshot->heaps[region->heap].is_nested;
    strip->start = align_down(region->base, fine_bytes);
    strip->cell_count = (region->brk - strip->start + strip->cell_bytes - 1) / strip->cell_bytes;
    strip->cells = calloc(strip->cell_count, sizeof *strip->cells);
    struct cell_bytes *bytes = calloc(strip->cell_count, sizeof *bytes);
    bool is_made = strip->cells != NULL && bytes != NULL;
    if (is_made) {
        region_fill(strip, snapshot, region, bytes);
    }
    free(bytes);
    return is_made;
}

/* ---------------------------------------------------------------------------- parts and figures */

static void part_add(struct picture *picture, const char *name, const char *style, size_t bytes)
{
    if (bytes > 0 && picture->part_count < PICTURE_PARTS_MAX) {
        picture->parts[picture->part_count++] =
            (struct picture_part){.name = name, .style = style, .bytes = bytes};
    }
}

static size_t small_live_bytes(const struct snapshot *snapshot)
{
    size_t bytes = 0;
    for (unsigned i = 0; i < CLASS_COUNT; i++) {
        bytes += snapshot->classes[i].used_slots * snapshot->classes[i].slot_bytes;
    }
    return bytes;
}

static size_t tagged_live_bytes(const struct snapshot *snapshot)
{
    size_t bytes = 0;
    for (size_t i = 0; i < snapshot->heap_count; i++) {
        bytes += snapshot->heaps[i].is_nested ? 0 : snapshot->heaps[i].stats.live_bytes;
    }
    return bytes;
}

/* How many bytes of all strips are of each kind. */
static void sum_kinds(const struct picture *picture, size_t bytes[CELL_KIND_COUNT])
{
    memset(bytes, 0, CELL_KIND_COUNT * sizeof *bytes);
    for (size_t i = 0; i < picture->strip_count; i++) {
        const struct strip *strip = &picture->strips[i];
        for (size_t j = 0; !strip->is_nested && j < strip->cell_count; j++) {
            bytes[strip->cells[j].kind] += strip->cell_bytes;
        }
    }
}

static void make_parts(struct picture *picture, const size_t kinds[CELL_KIND_COUNT])
{
    const struct snapshot *snapshot = picture->snapshot;
    size_t small = small_live_bytes(snapshot);
    size_t tagged = tagged_live_bytes(snapshot);
    size_t cached = snapshot->totals.cached_bytes;
    size_t held = kinds[CELL_SLAB] + kinds[CELL_ZONE] + kinds[CELL_LARGE] + kinds[CELL_LARGE_MORE] +
                  kinds[CELL_TAGGED] + kinds[CELL_TAKEN];
    size_t live = small + snapshot->medium.live_bytes + snapshot->large.live_bytes + tagged;
    part_add(picture, "Live slots", "small", small);
    part_add(picture, "Live medium", "medium", snapshot->medium.live_bytes);
    part_add(picture, "Live large", "large", snapshot->large.live_bytes);
    part_add(picture, "Live tagged", "tagged", tagged);
    part_add(picture, "In threads' bins", "cached", cached);
    part_add(picture, "Free inside", "spare", size_less(held, live + cached));
    part_add(picture, "Free, touched", "dirty", kinds[CELL_DIRTY]);
    part_add(picture, "Ahead of use", "ahead", kinds[CELL_AHEAD]);
    part_add(picture, "Memory of others", "foreign", kinds[CELL_FOREIGN]);
    part_add(picture, "Fences", "fence", kinds[CELL_FENCE]);
    part_add(picture, "Free, no memory", "empty", kinds[CELL_EMPTY]);
}

static char *figure_add(struct picture *picture, const char *name, const char *note)
{
    struct picture_figure *figure = &picture->figures[picture->figure_count];
    picture->figure_count += picture->figure_count + 1 < PICTURE_FIGURES_MAX;
    figure->name = name;
    figure->note = note;
    return figure->text;
}

static size_t longest_free_bytes(const struct strip *strip)
{
    size_t longest = 0;
    size_t count = 0;
    for (size_t i = 0; i < strip->cell_count; i++) {
        count = cell_is_free(&strip->cells[i]) ? count + 1 : 0;
        longest = size_max(longest, count);
    }
    return longest * strip->cell_bytes;
}

static size_t huge_bytes(const struct snapshot *snapshot)
{
    size_t bytes = 0;
    for (size_t i = 0; i < snapshot->mapping_count; i++) {
        bytes += snapshot->mappings[i].is_ours ? snapshot->mappings[i].huge_bytes : 0;
    }
    return bytes;
}

static void make_figures(struct picture *picture, const size_t kinds[CELL_KIND_COUNT])
{
    const struct totals *totals = &picture->snapshot->totals;
    size_t held = kinds[CELL_SLAB] + kinds[CELL_ZONE] + kinds[CELL_TAGGED];
    size_t live = small_live_bytes(picture->snapshot) + picture->snapshot->medium.live_bytes +
                  tagged_live_bytes(picture->snapshot) + totals->cached_bytes;
    bytes_text(figure_add(picture, "Resident", "of the process"), totals->resident_bytes);
    bytes_text(figure_add(picture, "of it the heap", ""), totals->resident_heap_bytes);
    if (huge_bytes(picture->snapshot) > 0) {
        bytes_text(figure_add(picture, "In huge pages", ""), huge_bytes(picture->snapshot));
    }
    if (totals->swapped_bytes > 0) {
        bytes_text(figure_add(picture, "Swapped out", ""), totals->swapped_bytes);
    }
    if (held > 0) {
        snprintf(figure_add(picture, "Fragmentation", "of slabs, zones and tagged heaps"),
                 BYTES_TEXT_MAX, "%zu %%", size_less(held, live) * PERCENT / held);
    }
    if (picture->snapshot->granule_count > 0) {
        bytes_text(figure_add(picture, "Longest free run", ""),
                   longest_free_bytes(&picture->strips[0]));
    }
}

/* ------------------------------------------------------------------------------------ the whole */

static void make_origin(struct picture *picture, const struct reader *reader)
{
    static const char *const engines[] = {"no heap yet", "fast engine", "block engine"};
    char when[STRIP_TEXT_MAX] = "";
    char page[BYTES_TEXT_MAX];
    time_t now = time(NULL);
    struct tm local;
    if (localtime_r(&now, &local) != NULL) {
        strftime(when, sizeof when, "%Y-%m-%d %H:%M:%S", &local);
    }
    const struct snapshot *snapshot = picture->snapshot;
    snprintf(picture->origin, sizeof picture->origin, "%s%s, pages of %s, HMM %s, %s",
             reader_kind(reader) == READER_PROGRAM ? "at its end, " : "",
             engines[snapshot->engine % 3], bytes_text(page, snapshot->page_bytes), HMM_VERSION,
             when);
}

static bool make_strips(struct picture *picture, struct reader *reader)
{
    const struct snapshot *snapshot = picture->snapshot;
    picture->strips = calloc(snapshot->region_count + 1, sizeof *picture->strips);
    if (picture->strips == NULL) {
        return false;
    }
    if (snapshot->granule_count > 0 &&
        !make_arena(&picture->strips[picture->strip_count++], snapshot)) {
        return false;
    }
    for (size_t i = 0; i < snapshot->region_count; i++) {
        const struct region_view *region = &snapshot->regions[i];
        if (region->brk <= region->base) {
            continue;
        }
        if (!make_region(&picture->strips[picture->strip_count++], snapshot, region)) {
            return false;
        }
        count_pages(&picture->strips[picture->strip_count - 1], reader, snapshot->page_bytes);
    }
    return true;
}

struct picture *picture_make(struct reader *reader, const struct snapshot *snapshot)
{
    struct picture *picture = calloc(1, sizeof *picture);
    if (picture == NULL) {
        return NULL;
    }
    picture->snapshot = snapshot;
    picture->name = reader_name(reader);
    picture->doubt = reader_doubt(reader, snapshot->has_changed, snapshot->is_unfit);
    if (!make_strips(picture, reader)) {
        picture_free(picture);
        return NULL;
    }
    size_t kinds[CELL_KIND_COUNT];
    sum_kinds(picture, kinds);
    make_parts(picture, kinds);
    make_figures(picture, kinds);
    make_origin(picture, reader);
    return picture;
}

void picture_free(struct picture *picture)
{
    if (picture == NULL) {
        return;
    }
    for (size_t i = 0; i < picture->strip_count; i++) {
        free(picture->strips[i].cells);
    }
    free(picture->strips);
    free(picture);
}

struct square strip_square(const struct strip *strip, size_t first, size_t count)
{
    size_t counts[CELL_KIND_COUNT] = {0};
    size_t lives[CELL_KIND_COUNT] = {0};
    for (size_t i = first; i < first + count && i < strip->cell_count; i++) {
        enum cell_kind kind = strip->cells[i].kind;
        /* Together they are no longer the first of anything. */
        kind = kind == CELL_LARGE && count > 1 ? CELL_LARGE_MORE : kind;
        counts[kind]++;
        lives[kind] += strip->cells[i].live;
    }
    enum cell_kind best = CELL_EMPTY;
    for (enum cell_kind kind = 0; kind < CELL_KIND_COUNT; kind++) {
        best = counts[kind] > counts[best] ? kind : best;
    }
    size_t live = counts[best] > 0 ? lives[best] / counts[best] : 0;
    return (struct square){.kind = best, .live = live};
}

const char *cell_kind_name(enum cell_kind kind)
{
    static const char *const names[CELL_KIND_COUNT] = {
        [CELL_EMPTY] = "free, without memory",
        [CELL_DIRTY] = "free, touched",
        [CELL_SLAB] = "slab",
        [CELL_ZONE] = "zone of medium blocks",
        [CELL_LARGE] = "large block",
        [CELL_LARGE_MORE] = "large block",
        [CELL_TAGGED] = "tagged blocks",
        [CELL_TAKEN] = "taken, not yet in use",
        [CELL_AHEAD] = "not used yet, but in memory",
        [CELL_FOREIGN] = "memory of others",
        [CELL_FENCE] = "fence",
    };
    return names[kind];
}
