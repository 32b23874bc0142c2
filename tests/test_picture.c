/*
 * test_picture.c - what `hmm map` and `hmm top` make of a snapshot that is written down here: which
 * square is what, what the writers say of it, and which rates two snapshots give.
 */
#include "map_page.h"
#include "picture.h"
#include "top.h"
#include "unit.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

/* --------------------------------------------------------------------------------- a small heap */

enum {
    PAGE_BYTES = 4096,
    GRANULE_PAGES = GRANULE_BYTES / PAGE_BYTES,
    SLAB_FULL_AT = 0,
    SLAB_CURRENT_AT = 1,
    ZONE_AT = 2,
    ZONE_COUNT = 2,
    LARGE_AT = 4,
    LARGE_COUNT = 3,
    LARGE_LAST_PAGES = 5,
    DIRTY_AT = 7,
    CLEAN_AT = 8,
    TAKEN_AT = 9,
    FENCE_AT = 10,
    HUGE_AT = EXTENT_COUNT,
    BEYOND_AT = 2 * EXTENT_COUNT,
    GRANULE_COUNT = 2 * EXTENT_COUNT + 2,
    CLASS_64 = 3,
    THREAD_POINTER = 0x4710,
    HEAP_BYTES = 40 * 1024,
};

static const uintptr_t arena_base = 0x700000000000;
static const uintptr_t heap_base = 0x600000000000;

struct fixture {
    struct snapshot snapshot;
    struct granule_view granules[GRANULE_COUNT];
    struct thread_view thread;
    struct heap_view heap;
    struct region_view region;
    struct mapping_view mapping;
    struct piece pieces[5];
};

const char *command_name = "test";

const char *reader_name(const struct reader *reader)
{
    (void)reader;
    return "pro<gram>";
}

enum reader_kind reader_kind(const struct reader *reader)
{
    (void)reader;
    return READER_PROCESS;
}

/* The first page of a heap alone is in memory. */
bool reader_pages(struct reader *reader, uintptr_t start, size_t page_count, bool *is_resident)
{
    (void)reader;
    for (size_t i = 0; i < page_count; i++) {
        is_resident[i] = start + i * PAGE_BYTES == heap_base;
    }
    return true;
}

const char *reader_doubt(const struct reader *reader, bool has_changed, bool is_unfit)
{
    (void)reader;
    (void)is_unfit;
    return has_changed ? "changed while it was read" : NULL;
}

pid_t reader_process_id(const struct reader *reader)
{
    (void)reader;
    return 1234;
}

void snapshot_free(struct snapshot *snapshot)
{
    (void)snapshot;
}

static void make_slab(struct fixture *fixture, size_t index, size_t used, size_t cached,
                      size_t carved, enum slab_view_state state)
{
    fixture->granules[index] = (struct granule_view){
        .kind = VIEW_SLAB,
        .size_class = CLASS_64,
        .state = (uint8_t)state,
        .used_slots = (uint16_t)used,
        .cached_slots = (uint16_t)cached,
        .carved_slots = (uint16_t)carved,
        .live_bytes = (uint32_t)(used * class_bytes(CLASS_64)),
        .resident_bytes = GRANULE_BYTES,
    };
    struct class_view *class = &fixture->snapshot.classes[CLASS_64];
    class->slab_count++;
    class->used_slots += used;
    class->cached_slots += cached;
    class->carved_slots += carved;
    class->free_slots += carved - used - cached;
    fixture->snapshot.totals.cached_bytes += cached * class_bytes(CLASS_64);
}

static void make_granules(struct fixture *fixture)
{
    const size_t capacity = GRANULE_BYTES / class_bytes(CLASS_64);
    for (unsigned i = 0; i < CLASS_COUNT; i++) {
        fixture->snapshot.classes[i].slot_bytes = class_bytes(i);
    }
    make_slab(fixture, SLAB_FULL_AT, capacity, 0, capacity, SLAB_VIEW_FULL);
    make_slab(fixture, SLAB_CURRENT_AT, 256, 32, 512, SLAB_VIEW_CURRENT);
    fixture->granules[SLAB_FULL_AT].thread = NO_THREAD;
    for (size_t i = 0; i < ZONE_COUNT; i++) {
        fixture->granules[ZONE_AT + i] = (struct granule_view){
            .kind = VIEW_ZONE, .first_offset = (uint32_t)i, .live_bytes = GRANULE_BYTES / 2};
    }
    for (size_t i = 0; i < LARGE_COUNT; i++) {
        bool is_last = i + 1 == LARGE_COUNT;
        fixture->granules[LARGE_AT + i] = (struct granule_view){
            .kind = VIEW_LARGE,
            .first_offset = (uint32_t)i,
            .live_bytes = is_last ? LARGE_LAST_PAGES * PAGE_BYTES : GRANULE_BYTES,
            .resident_bytes = PAGE_BYTES,
        };
    }
    fixture->granules[DIRTY_AT].kind = VIEW_DIRTY;
    fixture->granules[TAKEN_AT].kind = VIEW_TAKEN;
    fixture->granules[FENCE_AT].kind = VIEW_FENCE;
    for (size_t i = HUGE_AT; i < BEYOND_AT; i++) {
        make_slab(fixture, i, capacity, 0, capacity, SLAB_VIEW_ASLEEP);
        fixture->granules[i].thread = NO_THREAD;
    }
    fixture->granules[BEYOND_AT].kind = VIEW_BEYOND;
    fixture->granules[BEYOND_AT].resident_bytes = GRANULE_BYTES;
    fixture->granules[BEYOND_AT + 1].kind = VIEW_BEYOND;
}

/* Two blocks in the zone's first granule, one of which reaches into its second; and a block heap
 * whose first half is used. */
static void make_pieces(struct fixture *fixture)
{
    const uintptr_t zone = arena_base + ((uintptr_t)ZONE_AT << GRANULE_SHIFT);
    struct piece pieces[] = {
        {.start = zone, .bytes = 40000, .kind = PIECE_USED, .heap = -1},
        {.start = zone + 40000, .bytes = 40000, .kind = PIECE_USED, .heap = -1},
        {.start = zone + 80000, .bytes = 40000, .kind = PIECE_FREE, .heap = -1},
        {.start = heap_base, .bytes = HEAP_BYTES / 2, .kind = PIECE_USED, .heap = 0},
        {.start = heap_base + HEAP_BYTES / 2, .bytes = HEAP_BYTES / 2, .kind = PIECE_FREE},
    };
    memcpy(fixture->pieces, pieces, sizeof pieces);
}

static struct fixture *fixture_make(void)
{
    struct fixture *fixture = calloc(1, sizeof *fixture);
    assert_non_null(fixture);
    make_granules(fixture);
    make_pieces(fixture);
    fixture->thread = (struct thread_view){.pointer = THREAD_POINTER, .slab_count = 1};
    fixture->heap = (struct heap_view){.is_process = true, .region_count = 1};
    fixture->heap.stats.live_bytes = HEAP_BYTES / 2;
    fixture->heap.stats.live_count = 1;
    fixture->heap.stats.break_bytes = HEAP_BYTES;
    fixture->region = (struct region_view){.base = heap_base, .brk = heap_base + HEAP_BYTES};
    fixture->mapping = (struct mapping_view){
        .start = arena_base,
        .end = arena_base + GRANULE_COUNT * (uintptr_t)GRANULE_BYTES,
        .is_ours = true,
        .huge_bytes = ARENA_ALIGN_BYTES,
    };
    struct snapshot *snapshot = &fixture->snapshot;
    snapshot->engine = ENGINE_FAST;
    snapshot->page_bytes = PAGE_BYTES;
    snapshot->arena_base = arena_base;
    snapshot->arena_bytes = (size_t)1 << 32;
    snapshot->frontier_count = BEYOND_AT;
    snapshot->granules = fixture->granules;
    snapshot->granule_count = GRANULE_COUNT;
    snapshot->medium = (struct medium_view){.live_bytes = 80000,
                                            .live_count = 2,
                                            .held_bytes = ZONE_COUNT * GRANULE_BYTES,
                                            .zone_count = 1};
    snapshot->large = (struct large_view){.live_bytes = (LARGE_COUNT - 1) * GRANULE_BYTES +
                                                        LARGE_LAST_PAGES * PAGE_BYTES,
                                          .live_count = 1,
                                          .held_bytes = LARGE_COUNT * GRANULE_BYTES};
    snapshot->threads = &fixture->thread;
    snapshot->thread_count = snapshot->live_thread_count = 1;
    snapshot->heaps = &fixture->heap;
    snapshot->regions = &fixture->region;
    snapshot->mappings = &fixture->mapping;
    snapshot->heap_count = snapshot->region_count = snapshot->mapping_count = 1;
    snapshot->pieces = fixture->pieces;
    snapshot->piece_count = sizeof fixture->pieces / sizeof fixture->pieces[0];
    return fixture;
}

static int set_up(void **state)
{
    *state = fixture_make();
    return 0;
}

static int tear_down(void **state)
{
    free(*state);
    return 0;
}

static struct picture *picture_of(struct fixture *fixture)
{
    struct picture *picture = picture_make(NULL, &fixture->snapshot);
    assert_non_null(picture);
    return picture;
}

/* ---------------------------------------------------------------------------------- the squares */

static void each_granule_is_a_cell_of_its_kind(void **state)
{
    struct picture *picture = picture_of(*state);
    assert_int_equal(picture->strip_count, 2);
    const struct strip *arena = &picture->strips[0];
    static const enum cell_kind wanted[] = {
        CELL_SLAB,       CELL_SLAB,  CELL_ZONE,  CELL_ZONE,  CELL_LARGE, CELL_LARGE_MORE,
        CELL_LARGE_MORE, CELL_DIRTY, CELL_EMPTY, CELL_TAKEN, CELL_FENCE};
    assert_int_equal(arena->cell_count, GRANULE_COUNT);
    for (size_t i = 0; i < sizeof wanted / sizeof wanted[0]; i++) {
        assert_int_equal(arena->cells[i].kind, wanted[i]);
    }
    assert_int_equal(arena->cells[BEYOND_AT].kind, CELL_AHEAD);
    assert_int_equal(arena->cells[BEYOND_AT + 1].kind, CELL_EMPTY);
    picture_free(picture);
}

static void a_slab_says_what_its_slots_are(void **state)
{
    struct picture *picture = picture_of(*state);
    const struct cell *full = &picture->strips[0].cells[SLAB_FULL_AT];
    const struct cell *current = &picture->strips[0].cells[SLAB_CURRENT_AT];
    assert_int_equal(full->live, CELL_LIVE_FULL);
    assert_int_equal(full->free, 0);
    assert_int_equal(full->owner, CELL_OWNER_NONE);
    assert_int_equal(full->state, SLAB_VIEW_FULL);
    assert_int_equal(current->used, 256);
    assert_int_equal(current->cached, 32);
    assert_int_equal(current->free, 512 - 256 - 32);
    assert_int_equal(current->live, CELL_LIVE_FULL / 4);
    assert_int_equal(current->owner, 0);
    assert_int_equal(current->pages, GRANULE_PAGES);
    picture_free(picture);
}

static void blocks_are_counted_where_they_begin(void **state)
{
    struct picture *picture = picture_of(*state);
    const struct cell *zone = &picture->strips[0].cells[ZONE_AT];
    assert_int_equal(zone[0].used, 2);
    assert_int_equal(zone[0].free, 0);
    assert_int_equal(zone[1].used, 0);
    assert_int_equal(zone[1].free, 1);
    picture_free(picture);
}

/* Ten cells of a page each, of which the first five are live; one block begins in the first. */
static void a_region_is_cut_into_pages(void **state)
{
    struct picture *picture = picture_of(*state);
    const struct strip *strip = &picture->strips[1];
    assert_int_equal(strip->cell_bytes, PAGE_BYTES);
    assert_int_equal(strip->cell_count, HEAP_BYTES / PAGE_BYTES);
    for (size_t i = 0; i < strip->cell_count; i++) {
        bool is_live = i < strip->cell_count / 2;
        assert_int_equal(strip->cells[i].kind, CELL_TAGGED);
        assert_int_equal(strip->cells[i].live, is_live ? CELL_LIVE_FULL : 0);
        assert_int_equal(strip->cells[i].used, i == 0);
        assert_int_equal(strip->cells[i].pages, i == 0);
        assert_int_equal(strip->cells[i].free, i == strip->cell_count / 2);
    }
    picture_free(picture);
}

/* A page that a million blocks of one region would need is not drawn: the cells grow. */
static void a_wild_region_ends_in_few_cells(void **state)
{
    struct fixture *fixture = *state;
    fixture->region.brk = heap_base + ((uintptr_t)1 << 45);
    struct picture *picture = picture_of(fixture);
    assert_true(picture->strips[1].cell_count <= ((size_t)1 << 22) + 1);
    picture_free(picture);
}

/* By processor time, which others do not lengthen: 3,000 heaps of 1,000 blocks took 8 s when each
 * region looked at the blocks of all. */
static void many_heaps_take_the_time_of_their_blocks(void **state)
{
    enum { HEAPS = 3000, BLOCKS = 1000, BLOCK_BYTES = 48, SECONDS_MAX = 2 };
    struct fixture *fixture = *state;
    struct snapshot *snapshot = &fixture->snapshot;
    struct heap_view *heaps = calloc(HEAPS, sizeof *heaps);
    struct region_view *regions = calloc(HEAPS, sizeof *regions);
    struct piece *pieces = calloc((size_t)HEAPS * BLOCKS, sizeof *pieces);
    for (size_t i = 0; i < HEAPS; i++) {
        const uintptr_t base = heap_base + i * BLOCKS * BLOCK_BYTES;
        heaps[i].region_count = 1;
        regions[i] =
            (struct region_view){.base = base, .brk = base + BLOCKS * BLOCK_BYTES, .heap = i};
        for (size_t block = 0; block < BLOCKS; block++) {
            pieces[i * BLOCKS + block] =
                (struct piece){base + block * BLOCK_BYTES, BLOCK_BYTES, PIECE_USED, (int32_t)i};
        }
    }
    snapshot->heaps = heaps;
    snapshot->regions = regions;
    snapshot->pieces = pieces;
    snapshot->heap_count = snapshot->region_count = HEAPS;
    snapshot->piece_count = (size_t)HEAPS * BLOCKS;
    clock_t before = clock();
    struct picture *picture = picture_of(fixture);
    assert_true(clock() - before < SECONDS_MAX * CLOCKS_PER_SEC);
    picture_free(picture);
    free(heaps);
    free(regions);
    free(pieces);
}

static void huge_pages_are_marked_where_they_must_be(void **state)
{
    struct fixture *fixture = *state;
    struct picture *picture = picture_of(fixture);
    for (size_t i = 0; i < GRANULE_COUNT; i++) {
        bool is_huge = i >= HUGE_AT && i < BEYOND_AT;
        assert_int_equal(picture->strips[0].cells[i].state & CELL_IS_HUGE,
                         is_huge ? CELL_IS_HUGE : 0);
    }
    picture_free(picture);
    /* Twice as many bytes as whole extents: nobody knows which. */
    fixture->mapping.huge_bytes = 2 * ARENA_ALIGN_BYTES;
    picture = picture_of(fixture);
    assert_int_equal(picture->strips[0].cells[HUGE_AT].state & CELL_IS_HUGE, 0);
    picture_free(picture);
}

static void parts_add_up_to_all_addresses(void **state)
{
    struct picture *picture = picture_of(*state);
    size_t sum_bytes = 0;
    for (size_t i = 0; i < picture->part_count; i++) {
        sum_bytes += picture->parts[i].bytes;
    }
    assert_int_equal(sum_bytes, (size_t)GRANULE_COUNT * GRANULE_BYTES + HEAP_BYTES);
    picture_free(picture);
}

static void a_heap_in_a_block_is_counted_once(void **state)
{
    struct fixture *fixture = *state;
    fixture->heap.is_nested = true;
    struct picture *picture = picture_of(fixture);
    assert_int_equal(picture->strip_count, 2);
    for (size_t i = 0; i < picture->part_count; i++) {
        assert_string_not_equal(picture->parts[i].style, "tagged");
    }
    picture_free(picture);
}

/* ---------------------------------------------------------------------------------- the writers */

typedef void (*writer)(FILE *stream, const struct picture *picture);

static char *written(writer write, const struct picture *picture)
{
    char *text = NULL;
    size_t length;
    FILE *stream = open_memstream(&text, &length);
    assert_non_null(stream);
    write(stream, picture);
    assert_int_equal(fclose(stream), 0);
    return text;
}

static void write_plain(FILE *stream, const struct picture *picture)
{
    struct map_terminal terminal = {.columns = 80};
    map_write_terminal(stream, picture, &terminal);
}

static void write_colour(FILE *stream, const struct picture *picture)
{
    struct map_terminal terminal = {.columns = 60, .has_colour = true, .has_blocks = true};
    map_write_terminal(stream, picture, &terminal);
}

static void assert_has(const char *text, const char *part)
{
    if (strstr(text, part) == NULL) {
        fail_msg("not there: %s", part);
    }
}

/* The page is the template but for the heap, and no text of the program's ends the script. */
static void the_page_is_the_template_with_the_heap(void **state)
{
    struct picture *picture = picture_of(*state);
    char *page = written(map_write_html, picture);
    const char *slot = strstr(map_page, "id=\"heap\">null<");
    assert_non_null(slot);
    size_t lead = (size_t)(slot - map_page);
    assert_memory_equal(page, map_page, lead);
    const char *rest = slot + strlen("id=\"heap\">null");
    assert_string_equal(page + strlen(page) - strlen(rest), rest);
    assert_has(page, "{\"program\":\"pro\\u003cgram>\"");
    assert_has(page, "\"owners\":[\"thread 0x4710\"]");
    assert_has(page, "\"start\":\"0x700000000000\",\"cell_bytes\":65536,\"cells\":66,");
    free(page);
    picture_free(picture);
}

/* The first record of the arena: 16 bytes are 22 digits of base64, the last of which is shared. */
static void a_cell_is_sixteen_bytes_of_base64(void **state)
{
    struct picture *picture = picture_of(*state);
    char *page = written(map_write_html, picture);
    /* kind 2, class 3, state 2, pages 16, owner 0xffff, used 1024, free 0, cached 0, live 0xffff,
     * repeat 1 */
    assert_has(page, "\"data\":\"AgMCEP//AAQAAAAA//8BA");
    free(page);
    picture_free(picture);
}

static void adjacent_cells_of_one_look_are_one_record(void **state)
{
    struct picture *picture = picture_of(*state);
    char *page = written(map_write_html, picture);
    char *data = strstr(page, "\"data\":\"") + strlen("\"data\":\"");
    size_t length = (size_t)(strchr(data, '"') - data);
    /* Eleven different ones, the second of two zones' and of three large; empty ones before the
     * extent; the extent; memory ahead; and none. */
    assert_int_equal(length, (15 * 16 + 2) / 3 * 4);
    free(page);
    picture_free(picture);
}

static void a_drawing_is_one_element_with_escaped_texts(void **state)
{
    struct picture *picture = picture_of(*state);
    char *drawing = written(map_write_svg, picture);
    assert_memory_equal(drawing, "<svg ", 5);
    assert_has(drawing, "<title>pro&lt;gram>: heap</title>");
    assert_has(drawing, "<path fill=\"var(--small)\" class=\"pale\"");
    assert_has(drawing, "</svg>\n");
    free(drawing);
    picture_free(picture);
}

static void characters_without_colour_are_ascii(void **state)
{
    struct picture *picture = picture_of(*state);
    char *text = written(write_plain, picture);
    for (const char *at = text; *at != '\0'; at++) {
        assert_true(*at == '\n' || (*at >= ' ' && *at <= '~'));
    }
    assert_has(text, "\n  0x700000000000 Ssmm[==:.?|.....................SSSSSSSSSSSSSSSS\n");
    assert_has(text, "\n  0x700000300000 SSSSSSSSSSSSSSSS-.\n");
    assert_has(text, "\n  0x600000000000 BBBBBbbbbb\n");
    assert_has(text, "Live large           148.0 KiB");
    assert_has(text, "      64         34        34048  97.8 % ");
    free(text);
    picture_free(picture);
}

static void colours_end_with_each_line(void **state)
{
    struct picture *picture = picture_of(*state);
    char *text = written(write_colour, picture);
    assert_has(text, "\n  0x700000000000 \033[38;5;32m█▂\033[38;5;214m◑◑\033[38;5;36m┣━━");
    const char *last = NULL;
    for (const char *at = text; *at != '\0'; at++) {
        last = *at == '\033' ? at : last;
        if (*at == '\n' && last != NULL) {
            assert_memory_equal(last, "\033[0m", 4);
        }
    }
    free(text);
    picture_free(picture);
}

/* ------------------------------------------------------------------------------ what is sampled */

static const struct top_row *row_named(const struct top *top, const char *name)
{
    for (size_t i = 0; i < top->row_count; i++) {
        if (strcmp(top->rows[i].name, name) == 0) {
            return &top->rows[i];
        }
    }
    return NULL;
}

static void rates_are_differences_over_time(void **state)
{
    struct fixture *before = *state;
    struct fixture *after = fixture_make();
    static struct top top;
    before->snapshot.classes[CLASS_64].handed_slots = 1000;
    after->snapshot.classes[CLASS_64].handed_slots = 4000;
    after->snapshot.medium.placed_count = 50;
    before->thread.handed_slots = after->thread.handed_slots = 900;
    after->thread.refill_count = 20;
    assert_true(top_take(&top, &before->snapshot, 10));
    assert_true(row_named(&top, "64")->calls_per_second == 0);
    assert_true(top_take(&top, &after->snapshot, 12));
    assert_true(row_named(&top, "64")->calls_per_second == 1500);
    assert_true(row_named(&top, "medium")->calls_per_second == 25);
    assert_true(top.threads[0].calls_per_second == 0);
    assert_true(top.threads[0].refills_per_second == 10);
    assert_true(top_sample_at(&top, 0)->calls_per_second == 1525);
    /* Threads that ended took their counters along. */
    assert_true(top_take(&top, &before->snapshot, 13));
    assert_true(row_named(&top, "64")->calls_per_second == 0);
    top_end(&top);
    free(after);
}

static void rows_are_ordered_as_asked(void **state)
{
    struct fixture *fixture = *state;
    static struct top top;
    assert_true(top_take(&top, &fixture->snapshot, 1));
    assert_int_equal(top.row_count, 4);
    assert_string_equal(top.rows[0].name, "64");
    assert_string_equal(top.rows[1].name, "large");
    top.sort = TOP_BY_IDLE;
    top_order(&top);
    assert_string_equal(top.rows[0].name, "medium");
    assert_int_equal(top.rows[0].idle_bytes, ZONE_COUNT * GRANULE_BYTES - 80000);
    top.sort = TOP_BY_SIZE;
    top_order(&top);
    assert_string_equal(top.rows[0].name, "64");
    assert_string_equal(top.rows[3].name, "tagged");
    top_end(&top);
}

static void the_history_forgets_the_oldest(void **state)
{
    struct fixture *fixture = *state;
    static struct top top;
    for (size_t i = 0; i < TOP_HISTORY_MAX + 5; i++) {
        fixture->snapshot.totals.live_bytes = i;
        assert_true(top_take(&top, &fixture->snapshot, (double)i));
    }
    assert_int_equal(top.history_count, TOP_HISTORY_MAX);
    assert_int_equal(top_sample_at(&top, 0)->live_bytes, TOP_HISTORY_MAX + 4);
    assert_int_equal(top_sample_at(&top, TOP_HISTORY_MAX - 1)->live_bytes, 5);
    top_end(&top);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(each_granule_is_a_cell_of_its_kind, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_slab_says_what_its_slots_are, set_up, tear_down),
        cmocka_unit_test_setup_teardown(blocks_are_counted_where_they_begin, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_region_is_cut_into_pages, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_wild_region_ends_in_few_cells, set_up, tear_down),
        cmocka_unit_test_setup_teardown(many_heaps_take_the_time_of_their_blocks, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(huge_pages_are_marked_where_they_must_be, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(parts_add_up_to_all_addresses, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_heap_in_a_block_is_counted_once, set_up, tear_down),
        cmocka_unit_test_setup_teardown(the_page_is_the_template_with_the_heap, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_cell_is_sixteen_bytes_of_base64, set_up, tear_down),
        cmocka_unit_test_setup_teardown(adjacent_cells_of_one_look_are_one_record, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(a_drawing_is_one_element_with_escaped_texts, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(characters_without_colour_are_ascii, set_up, tear_down),
        cmocka_unit_test_setup_teardown(colours_end_with_each_line, set_up, tear_down),
        cmocka_unit_test_setup_teardown(rates_are_differences_over_time, set_up, tear_down),
        cmocka_unit_test_setup_teardown(rows_are_ordered_as_asked, set_up, tear_down),
        cmocka_unit_test_setup_teardown(the_history_forgets_the_oldest, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
