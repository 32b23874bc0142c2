/*
 * test_medium.c - blocks of medium size: every change is followed by an audit, and whatever is said
 * to be zero is looked at.
 *
 * The arena is small, so that it can be used up. Each test leaves it empty.
 */
#include "block.h"
#include "locked.h"
#include "medium.h"
#include "purge.h"
#include "seed.h"
#include "shard.h"
#include "unit.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum {
    ARENA_BYTES = 64 << 20,
    ZONE_BYTES = 1 << 20,
    ZONE_GRANULES = ZONE_BYTES / GRANULE_BYTES,
    KEPT_GRANULES = 4,
    KIB = 1024,
};

static const unsigned char zeros[MEDIUM_BYTES_MAX + 4 * GRANULE_BYTES];

static void audit(void)
{
    const char *broken = hmm_medium_audit();
    if (broken != NULL) {
        fail_msg("%s", broken);
    }
}

static struct medium_stats stats(void)
{
    struct medium_stats now;
    hmm_medium_get_stats(&now);
    return now;
}

/* Whether there was something to give back. */
static bool trim(void)
{
    size_t held_bytes = stats().held_bytes;
    hmm_medium_yield();
    return hmm_medium_trim(SIZE_MAX) != 0 || stats().held_bytes < held_bytes;
}

static size_t usable(const void *ptr)
{
    struct crime crime = {0};
    size_t bytes = 0;
    assert_true(hmm_medium_usable(ptr, &bytes, &crime));
    return bytes;
}

/* How much of the block was said to be zero, which is checked. */
static size_t last_zero_bytes;

static void *try_take(unsigned shard, size_t alignment, size_t bytes)
{
    struct crime crime = {0};
    struct zero_span zero = {1, 1};
    void *ptr = hmm_medium_allocate(shard, alignment, bytes, &zero, &crime);
    assert_null(crime.what);
    if (ptr == NULL) {
        return NULL;
    }
    size_t usable_bytes = usable(ptr);
    assert_true(usable_bytes >= bytes);
    assert_true(is_aligned((uintptr_t)ptr, size_max(alignment, BLOCK_UNIT_BYTES)));
    last_zero_bytes = zero.end - zero.start;
    if (last_zero_bytes != 0) {
        assert_true(zero.start >= (uintptr_t)ptr);
        assert_true(zero.end <= (uintptr_t)ptr + usable_bytes);
        assert_true(last_zero_bytes <= sizeof zeros);
        assert_int_equal(memcmp((void *)zero.start, zeros, last_zero_bytes), 0);
    }
    return ptr;
}

static void *take_aligned(size_t alignment, size_t bytes)
{
    void *ptr = try_take(0, alignment, bytes);
    assert_non_null(ptr);
    memset(ptr, 0xa5, usable(ptr));
    audit();
    return ptr;
}

static void *take(size_t bytes)
{
    return take_aligned(1, bytes);
}

static void give(void *ptr)
{
    struct crime crime = {0};
    memset(ptr, 0x5a, usable(ptr));
    assert_true(hmm_medium_free(ptr, &crime));
    assert_null(crime.what);
    audit();
}

/* What lies on the shelf is merged. */
static void give_merged(void *ptr)
{
    give(ptr);
    hmm_medium_yield();
    audit();
}

static bool resize(void *ptr, size_t bytes)
{
    struct crime crime = {0};
    size_t old_bytes = usable(ptr);
    size_t told_bytes = 0;
    bool is_done = hmm_medium_resize(ptr, bytes, &told_bytes, &crime);
    assert_null(crime.what);
    assert_int_equal(told_bytes, old_bytes);
    if (is_done) {
        assert_true(usable(ptr) >= bytes);
        memset(ptr, 0xa5, usable(ptr));
    } else {
        assert_int_equal(usable(ptr), old_bytes);
    }
    audit();
    return is_done;
}

static void keep_all(void)
{
    hmm_purge_set(PURGE_BYTES, SIZE_MAX);
}

static void keep_nothing(void)
{
    hmm_purge_set(PURGE_BYTES, 0);
}

static size_t taken_granules(void)
{
    return atomic_load(&hmm_arena.taken_count);
}

static int leave_nothing(void **state)
{
    (void)state;
    (void)trim();
    audit();
    struct medium_stats now = stats();
    assert_int_equal(now.live_count, 0);
    assert_int_equal(now.live_bytes, 0);
    assert_int_equal(now.free_count, 0);
    assert_int_equal(now.zone_bytes, 0);
    assert_int_equal(now.dirty_bytes, 0);
    assert_int_equal(taken_granules(), 0);
    (void)hmm_arena_purge(0, SIZE_MAX);
    assert_null(hmm_arena_audit());
    keep_all();
    return 0;
}

/* ------------------------------------------------------------------------ splitting and merging */

static void free_neighbours_become_one(void **state)
{
    (void)state;
    char *a = take(80 * KIB);
    char *b = take(80 * KIB);
    char *c = take(80 * KIB);
    char *last = take(80 * KIB);
    assert_true(a < b && b < c && c < last);
    size_t one_bytes = usable(a);
    give(a);
    give(c);
    assert_int_equal(stats().free_count, 2);
    give(b);
    struct medium_stats now = stats();
    assert_int_equal(now.free_count, 1);
    assert_int_equal(now.free_bytes, 3 * one_bytes + 2 * BLOCK_TAG_BYTES);
    char *all = take(3 * one_bytes + 2 * BLOCK_TAG_BYTES);
    assert_ptr_equal(all, a);
    assert_int_equal(stats().free_count, 0);
    give(all);
    a = take(80 * KIB);
    assert_ptr_equal(a, all);
    assert_int_equal(stats().free_count, 1);
    b = take(50 * KIB);
    assert_ptr_equal(b, a + one_bytes + BLOCK_TAG_BYTES);
    /* with the block after it */
    give(a);
    give(b);
    assert_int_equal(stats().free_count, 1);
    give(last);
}

static void a_free_block_never_ends_at_the_top(void **state)
{
    (void)state;
    char *a = take(16 * KIB);
    size_t zone_bytes = stats().zone_bytes;
    char *b = take(16 * KIB);
    char *c = take(16 * KIB);
    give(b);
    assert_int_equal(stats().free_count, 1);
    give(c);
    assert_int_equal(stats().free_count, 0);
    assert_int_equal(stats().zone_bytes, zone_bytes);
    assert_ptr_equal(take(20 * KIB), b);
    give(b);
    give(a);
    assert_int_equal(stats().live_count, 0);
}

static void a_rest_too_small_goes_with_the_block(void **state)
{
    (void)state; /* sizes that are not rounded */
    char *a = take(4 * KIB);
    char *b = take(4 * KIB);
    size_t bytes = usable(a);
    give(a);
    assert_ptr_equal(take(bytes - BLOCK_UNIT_BYTES), a);
    assert_int_equal(usable(a), bytes);
    give(a);
    assert_ptr_equal(take(bytes - BLOCK_BYTES_MIN), a);
    assert_int_equal(usable(a), bytes - BLOCK_BYTES_MIN);
    give(a);
    give(b);
}

static void small_blocks_work_too(void **state)
{
    (void)state;
    void *blocks[64];
    for (size_t i = 0; i < 64; i++) {
        blocks[i] = take(i * 3);
    }
    for (size_t i = 0; i < 64; i++) {
        give(blocks[i * 29 % 64]);
    }
}

/* ---------------------------------------------------------------------------------------- shelf */

/* So much is live that four blocks of 100 KiB may lie on the shelf. */
enum { FILLER_COUNT = 8 };
static void *fillers[FILLER_COUNT];

static void fill(void)
{
    for (int i = 0; i < FILLER_COUNT; i++) {
        fillers[i] = take(220 * KIB);
    }
}

static void unfill(void)
{
    for (int i = 0; i < FILLER_COUNT; i++) {
        give(fillers[i]);
    }
    assert_int_equal(stats().live_count, 0);
    assert_int_equal(stats().free_count, 0);
}

static size_t shelf_count(void)
{
    return hmm_medium_shards[0].shelf.count;
}

static void a_freed_block_is_taken_again(void **state)
{
    (void)state;
    fill();
    char *a = take(20 * KIB);
    char *b = take(20 * KIB);
    size_t usable_bytes = usable(a);
    struct medium_stats before = stats();
    give(a);
    give(b);
    assert_int_equal(shelf_count(), 2);
    assert_int_equal(stats().free_count, before.free_count + 2);
    assert_int_equal(stats().live_bytes, before.live_bytes - 2 * usable_bytes);
    /* the last one first; a size or two less has a whole one, unlike half of it */
    assert_ptr_equal(take(20 * KIB), b);
    assert_int_equal(last_zero_bytes, 0);
    assert_ptr_equal(take(18 * KIB), a);
    assert_int_equal(usable(a), usable_bytes);
    assert_int_equal(shelf_count(), 0);
    give(a);
    char *half = take(10 * KIB);
    assert_true(usable(half) < usable_bytes);
    give(half);
    give(b);
    unfill();
}

/* Smaller than any list's, and a unit less than the smallest that lies there. */
static void no_block_is_cut_from_one_that_leaves_too_little(void **state)
{
    (void)state;
    enum { COUNT = 12, SMALL_BYTES = 8 * KIB - BLOCK_TAG_BYTES };
    char *blocks[COUNT];
    fill();
    char *freed = take(8 * KIB);
    char *after = take(8 * KIB);
    memset(after, 'k', usable(after));
    give(freed);
    assert_int_equal(shelf_count(), 1);
    for (int i = 0; i < COUNT; i++) {
        blocks[i] = take(SMALL_BYTES);
        memset(blocks[i], 's', usable(blocks[i]));
    }
    for (size_t i = 0; i < usable(after); i++) {
        assert_int_equal(after[i], 'k');
    }
    for (int i = 0; i < COUNT; i++) {
        give(blocks[i]);
    }
    give(after);
    unfill();
}

static void the_shelf_is_a_share_of_what_is_live(void **state)
{
    (void)state;
    enum { COUNT = 10 };
    char *blocks[COUNT];
    char *walls[COUNT];
    fill();
    for (int i = 0; i < COUNT; i++) {
        blocks[i] = take((size_t)(40 + 3 * i) * KIB);
        walls[i] = take(8 * KIB);
    }
    for (int i = 0; i < COUNT; i++) {
        give(blocks[i]); /* the audit looks at the bound */
    }
    assert_true(shelf_count() > 2 && shelf_count() < COUNT);
    for (int i = 0; i < COUNT; i++) {
        give(walls[i]);
    }
    unfill();
    assert_int_equal(shelf_count(), 0);
}

static void the_shelf_is_merged_before_memory_is_touched(void **state)
{
    (void)state;
    fill();
    char *last = take(200 * KIB); /* the zone is full up to it */
    char *parts[3];
    give(last);
    assert_int_equal(shelf_count(), 1);
    for (int i = 0; i < 3; i++) {
        parts[i] = take(56 * KIB);
    }
    for (int i = 0; i < 3; i++) {
        give(parts[i]);
    }
    size_t zone_bytes = stats().zone_bytes;
    last = take(160 * KIB);
    assert_int_equal(last_zero_bytes, 0);
    assert_true(stats().zone_bytes <= zone_bytes);
    give(last);
    unfill();
}

static void damage_on_the_shelf_is_known(void **state)
{
    (void)state;
    struct crime crime = {0};
    struct zero_span zero;
    fill();
    uintptr_t *a = take(20 * KIB);
    uintptr_t *b = take(20 * KIB);
    give(a);
    give(b);
    assert_int_equal(shelf_count(), 2);
    /* the second would cut the list short, the last leads to where no block is */
    const uintptr_t wild[] = {1, 0, (uintptr_t)&zero, (uintptr_t)&a[2], (uintptr_t)&a[1]};
    uintptr_t saved = b[0];
    for (size_t i = 0; i < sizeof wild / sizeof *wild; i++) {
        b[0] = wild[i];
        crime = (struct crime){0};
        assert_null(hmm_medium_allocate(0, 1, 20 * KIB, &zero, &crime));
        assert_string_equal(crime.what, "damaged free block");
        assert_int_equal(crime.at, (uintptr_t)&b[-1]);
    }
    b[0] = saved;
    saved = b[-1];
    b[-1] ^= (uintptr_t)1 << 20;
    crime = (struct crime){0};
    assert_null(hmm_medium_allocate(0, 1, 20 * KIB, &zero, &crime));
    assert_string_equal(crime.what, "damaged tag");
    b[-1] = saved;
    assert_ptr_equal(take(20 * KIB), b);
    assert_ptr_equal(take(20 * KIB), a);
    /* a write past the end, when the block is freed */
    size_t last = usable(a) / sizeof *a;
    a[last] ^= 1;
    crime = (struct crime){0};
    assert_false(hmm_medium_free(a, &crime));
    assert_string_equal(crime.what, "damaged tag");
    assert_int_equal(crime.at, (uintptr_t)&a[last]);
    a[last] ^= 1;
    give(a);
    give(b);
    unfill();
}

/* ---------------------------------------------------------------------------------------- zones */

static void empty_zones_go_back(void **state)
{
    (void)state;
    enum { COUNT = 40 };
    void *blocks[COUNT];
    for (int i = 0; i < COUNT; i++) {
        blocks[i] = take(MEDIUM_BYTES_MAX);
    }
    assert_true(taken_granules() >= 3 * ZONE_GRANULES);
    for (int i = 0; i < COUNT; i++) {
        give(blocks[i]);
    }
    assert_int_equal(taken_granules(), KEPT_GRANULES);
    assert_true(stats().dirty_bytes <= KEPT_GRANULES * GRANULE_BYTES);
}

static void one_zone_that_was_little_used_stays(void **state)
{
    (void)state;
    give(take(16 * KIB));
    assert_int_equal(taken_granules(), ZONE_GRANULES);
    give(take(16 * KIB));
    assert_int_equal(taken_granules(), ZONE_GRANULES);
    assert_true(trim());
    assert_int_equal(taken_granules(), 0);
    /* of more the first part */
    char *a = take(200 * KIB);
    char *b = take(200 * KIB);
    give(a);
    give(b);
    assert_int_equal(taken_granules(), KEPT_GRANULES);
    (void)trim();
    give(take(16 * KIB)); /* from a zone made of dirty granules */
    assert_int_equal(taken_granules(), KEPT_GRANULES);
    give(take(16 * KIB));
    assert_int_equal(taken_granules(), KEPT_GRANULES);
    /* it has no room, and a second one is not kept */
    give(take(MEDIUM_BYTES_MAX));
    assert_int_equal(taken_granules(), KEPT_GRANULES);
}

static void touched_memory_comes_first(void **state)
{
    (void)state;
    char *a = take(128 * KIB);
    char *b = take(128 * KIB);
    char *c = take(128 * KIB);
    assert_true(last_zero_bytes >= 128 * KIB);
    give(a);
    give(c);
    /* the free block, then the wilderness that was touched, then the one that was not */
    assert_ptr_equal(take(128 * KIB), a);
    assert_int_equal(last_zero_bytes, 0);
    assert_ptr_equal(take(128 * KIB), c);
    assert_int_equal(last_zero_bytes, 0);
    char *d = take(128 * KIB);
    assert_true(last_zero_bytes >= 128 * KIB);
    give(a);
    give(b);
    give(c);
    give(d);
}

static void exhaustion_is_no_crime(void **state)
{
    (void)state;
    enum { COUNT_MAX = ARENA_BYTES / (250 * KIB) + 1 };
    void *blocks[COUNT_MAX];
    for (int round = 0; round < 3; round++) {
        int count = 0;
        while (count < COUNT_MAX && (blocks[count] = try_take(0, 1, 250 * KIB)) != NULL) {
            count++;
            audit();
        }
        assert_true(count >= ARENA_BYTES / (275 * KIB));
        assert_true(count < COUNT_MAX);
        audit();
        assert_null(try_take(0, 1, 250 * KIB));
        assert_null(try_take(5, GRANULE_BYTES, MEDIUM_BYTES_MAX));
        give(blocks[count / 2]);
        blocks[count / 2] = take(250 * KIB);
        for (int i = 0; i < count; i++) {
            give(blocks[i]);
        }
        assert_int_equal(stats().live_count, 0);
    }
}

/* A zone is as large as it can be, and as small as the request allows. */
static void zones_shrink_where_memory_is_short(void **state)
{
    (void)state;
    const size_t all = ARENA_BYTES / GRANULE_BYTES;
    struct granule *wall = hmm_arena_take(all - 6, 1);
    assert_non_null(wall);
    char *a = take(250 * KIB);
    assert_int_equal(taken_granules(), all - 2);
    char *b = take(100 * KIB);
    assert_int_equal(taken_granules(), all);
    assert_null(try_take(0, 1, 100 * KIB));
    assert_null(try_take(0, GRANULE_BYTES, 20 * KIB));
    audit();
    give(b);
    give(a);
    (void)trim();
    hmm_arena_give(wall, all - 6, 0);
}

/* ------------------------------------------------------------------------------------ alignment */

static void payloads_are_aligned(void **state)
{
    (void)state;
    void *blocks[256];
    int count = 0;
    for (size_t alignment = 1; alignment <= MEDIUM_ALIGN_BYTES_MAX; alignment *= 2) {
        for (size_t bytes = 1; bytes <= MEDIUM_BYTES_MAX; bytes *= 16) {
            blocks[count++] = take_aligned(alignment, bytes);
            blocks[count++] = take_aligned(alignment, size_min(bytes + 4000, MEDIUM_BYTES_MAX));
        }
    }
    for (int i = 0; i < count; i += 2) {
        give(blocks[i]);
    }
    /* now out of free blocks */
    for (int i = 0; i < count; i += 2) {
        blocks[i] = take_aligned((size_t)1 << i % 17, 5000);
    }
    for (int i = 0; i < count; i++) {
        give(blocks[i]);
    }
}

/* --------------------------------------------------------------------------------------- resize */

static void resize_shrinks_and_grows(void **state)
{
    (void)state;
    char *a = take(240 * KIB);
    char *b = take(16 * KIB);
    assert_true(resize(a, 80 * KIB));
    assert_int_equal(stats().free_count, 1);
    assert_true(resize(a, 80 * KIB - BLOCK_UNIT_BYTES));
    assert_true(resize(a, 160 * KIB));
    assert_int_equal(stats().free_count, 1);
    assert_true(resize(a, 240 * KIB));
    assert_int_equal(stats().free_count, 0);
    assert_false(resize(a, 250 * KIB));
    assert_false(resize(a, SIZE_MAX));
    assert_true(resize(a, 8 * KIB));
    assert_false(resize(a, 250 * KIB));
    assert_true(resize(a, 240 * KIB - BLOCK_UNIT_BYTES));
    give_merged(b);
    assert_true(resize(a, 900 * KIB));
    assert_int_equal(stats().zone_bytes,
                     BLOCK_UNIT_BYTES - BLOCK_TAG_BYTES +
                         align_up(900 * KIB + BLOCK_TAG_BYTES, BLOCK_UNIT_BYTES));
    assert_true(resize(a, 1));
    assert_int_equal(stats().free_count, 0);
    assert_true(resize(a, 1000 * KIB));
    assert_false(resize(a, ZONE_BYTES));
    give(a);
}

static void a_shrunk_tail_merges(void **state)
{
    (void)state;
    char *a = take(100 * KIB);
    char *b = take(100 * KIB);
    char *c = take(100 * KIB);
    give(b);
    assert_true(resize(a, 50 * KIB));
    assert_int_equal(stats().free_count, 1);
    assert_true(resize(a, 190 * KIB));
    give(c);
    give(a);
}

/* ------------------------------------------------------------------------- purging, zero memory */

/* Amounts are counted in pages of 4 KiB here. */
static void skip_where_pages_are_large(void)
{
    skip_where(hmm_os_page_bytes() > 4 * KIB, "pages are large");
}

static void purged_blocks_are_zero(void **state)
{
    (void)state;
    skip_where_pages_are_large();
    char *a = take(250 * KIB);
    char *b = take(16 * KIB);
    give(a);
    assert_true(trim());
    assert_int_equal(stats().dirty_bytes, 0);
    assert_int_equal(stats().free_count, 1);
    char *c = take(125 * KIB);
    assert_ptr_equal(c, a);
    assert_true(last_zero_bytes > 120 * KIB);
    char *d = take(120 * KIB);
    assert_ptr_equal(d, c + usable(c) + BLOCK_TAG_BYTES);
    assert_true(last_zero_bytes > 110 * KIB);
    /* half of it is zero: what was the larger span stays one */
    give(d);
    assert_true(trim());
    give(c);
    assert_int_equal(stats().free_count, 1);
    assert_true(stats().dirty_bytes > 110 * KIB && stats().dirty_bytes < 130 * KIB);
    assert_true(trim());
    assert_int_equal(stats().dirty_bytes, 0);
    assert_false(trim());
    a = take(250 * KIB);
    assert_ptr_equal(a, c);
    assert_true(last_zero_bytes > 240 * KIB);
    give(a);
    give(b);
}

static void the_wilderness_is_purged(void **state)
{
    (void)state;
    skip_where_pages_are_large();
    char *a = take(16 * KIB);
    char *b = take(250 * KIB);
    give(b);
    assert_true(trim());
    assert_int_equal(stats().dirty_bytes, 0);
    assert_ptr_equal(take(250 * KIB), b);
    assert_true(last_zero_bytes > 240 * KIB);
    give(b);
    assert_true(stats().dirty_bytes > 240 * KIB);
    assert_true(trim());
    assert_int_equal(stats().dirty_bytes, 0);
    assert_ptr_equal(take_aligned(GRANULE_BYTES, 125 * KIB), (void *)align_up((uintptr_t)b, 65536));
    assert_true(last_zero_bytes > 115 * KIB);
    assert_true(resize(a, 20 * KIB));
    give((void *)align_up((uintptr_t)b, 65536));
    give(a);
}

static void growing_into_purged_memory(void **state)
{
    (void)state;
    skip_where_pages_are_large();
    char *a = take(100 * KIB);
    char *b = take(200 * KIB);
    char *c = take(16 * KIB);
    give(b);
    assert_true(trim());
    assert_true(resize(a, 200 * KIB));
    assert_int_equal(stats().dirty_bytes, 0);
    assert_true(resize(a, 100 * KIB));
    assert_true(stats().dirty_bytes > 90 * KIB && stats().dirty_bytes < 110 * KIB);
    assert_true(trim());
    assert_int_equal(stats().dirty_bytes, 0);
    give(c);
    give(a);
}

/* ---------------------------------------------------------------------------- small free blocks */

/* Small ones that hold a whole page at least, wherever they lie. 0: there are none
 * with such pages. */
static size_t small_bytes(void)
{
    size_t bytes = 2 * hmm_os_page_bytes() + KIB;
    skip_where(bytes >= SPARE_BYTES_MIN - KIB, "no small block has a page of its own here");
    return bytes;
}

static struct zero_span pages_of(const char *ptr, size_t bytes)
{
    size_t page_bytes = hmm_os_page_bytes();
    return (struct zero_span){align_up((uintptr_t)ptr + sizeof(struct spare), page_bytes),
                              align_down((uintptr_t)ptr + bytes - sizeof(uintptr_t), page_bytes)};
}

/* Freed blocks are filled with something else. */
static bool is_given_back(const char *ptr, size_t bytes)
{
    struct zero_span pages = pages_of(ptr, bytes);
    assert_true(pages.start < pages.end && pages.end - pages.start <= sizeof zeros);
    return memcmp((void *)pages.start, zeros, pages.end - pages.start) == 0;
}

enum { SMALL_COUNT = 60 };

static char *small[SMALL_COUNT];

/* How many bytes each has been asked for. */
static size_t small_take(void)
{
    size_t bytes = small_bytes();
    for (int i = 0; i < SMALL_COUNT; i++) {
        small[i] = take(bytes);
    }
    return bytes;
}

static void small_give(int first, int step)
{
    for (int i = first; i < SMALL_COUNT; i += step) {
        give(small[i]);
    }
}

static void trimming_reaches_between_blocks(void **state)
{
    (void)state;
    (void)small_take();
    size_t bytes = usable(small[0]);
    size_t live_bytes = stats().live_bytes;
    small_give(0, 2);
    hmm_medium_yield();
    size_t given_bytes = hmm_medium_trim(SIZE_MAX);
    audit();
    size_t pages_bytes = 0;
    for (int i = 0; i < SMALL_COUNT; i += 2) {
        struct zero_span pages = pages_of(small[i], bytes);
        pages_bytes += pages.end - pages.start;
        assert_true(is_given_back(small[i], bytes));
    }
    assert_true(given_bytes >= pages_bytes);
    /* nothing is left, and nobody is asked twice */
    assert_int_equal(hmm_medium_trim(SIZE_MAX), 0);
    assert_int_equal(stats().dirty_bytes, 0);
    assert_int_equal(stats().free_count, SMALL_COUNT / 2);
    /* what is taken there is known to be zero */
    for (int i = 0; i < SMALL_COUNT; i += 2) {
        small[i] = take(bytes);
        assert_true(last_zero_bytes >= hmm_os_page_bytes());
    }
    assert_int_equal(stats().free_count, 0);
    assert_int_equal(stats().live_bytes, live_bytes);
    small_give(0, 1);
}

/* A block that is touched is taken first, however much better another one fits. */
static void what_was_trimmed_comes_last(void **state)
{
    (void)state;
    size_t bytes = small_take();
    size_t touched_bytes = usable(small[0]);
    give_merged(small[0]);
    assert_true(trim());
    assert_true(is_given_back(small[0], touched_bytes));
    give_merged(small[2]);
    assert_ptr_equal(take(bytes), small[2]);
    assert_int_equal(last_zero_bytes, 0);
    assert_ptr_equal(take(bytes), small[0]);
    assert_true(last_zero_bytes != 0);
    small_give(0, 1);
}

static void trimmed_blocks_merge(void **state)
{
    (void)state;
    (void)small_take();
    size_t bytes = usable(small[0]);
    small_give(1, 4);
    assert_true(trim());
    small_give(2, 4); /* behind them */
    hmm_medium_yield();
    audit();
    assert_true(trim());
    audit();
    for (int i = 1; i + 1 < SMALL_COUNT; i += 4) {
        assert_true(is_given_back(small[i], bytes) && is_given_back(small[i + 1], bytes));
    }
    small_give(0, 4); /* before them */
    assert_true(trim());
    audit();
    assert_true(is_given_back(small[0], bytes) && is_given_back(small[4], bytes));
    small_give(3, 4);
}

static void growing_into_what_was_trimmed(void **state)
{
    (void)state;
    size_t bytes = small_take();
    small_give(1, 2);
    assert_true(trim());
    for (int i = 0; i < SMALL_COUNT - 2; i += 2) {
        assert_true(resize(small[i], bytes + bytes / 2));
    }
    for (int i = 0; i < SMALL_COUNT - 2; i += 4) {
        assert_true(resize(small[i], bytes));
    }
    assert_true(trim());
    audit();
    small_give(0, 2);
}

static void trimming_knows_its_budget(void **state)
{
    (void)state;
    enum { COUNT = 400 }; /* several zones */
    char *blocks[COUNT];
    for (int i = 0; i < COUNT; i++) {
        blocks[i] = take(small_bytes());
    }
    for (int i = 0; i < COUNT; i += 2) {
        give(blocks[i]);
    }
    hmm_medium_yield();
    assert_int_equal(hmm_medium_trim(0), 0);
    size_t first_bytes = hmm_medium_trim(1);
    assert_true(first_bytes != 0 && first_bytes <= ZONE_BYTES);
    audit();
    size_t others_bytes = hmm_medium_trim(SIZE_MAX);
    assert_true(first_bytes + others_bytes >= COUNT / 2 * hmm_os_page_bytes());
    assert_int_equal(hmm_medium_trim(SIZE_MAX), 0);
    for (int i = 1; i < COUNT; i += 2) {
        give(blocks[i]);
    }
}

/* A system that does not take locked pages: nothing is lost, and the others go. One that
 * does: all go. */
static void locked_pages_stay_or_go(void **state)
{
    (void)state;
    skip_where_sanitized();
    (void)small_take();
    size_t bytes = usable(small[0]);
    small_give(1, 2);
    hmm_medium_yield();
    struct medium_stats before = stats();
    struct zero_span pages = pages_of(small[1], bytes);
    bool is_gone = false;
    if (mlock((void *)pages.start, pages.end - pages.start) != 0) {
        print_message("# memory cannot be locked\n");
    } else {
        assert_true(hmm_medium_trim(SIZE_MAX) != 0);
        audit();
        struct medium_stats after = stats();
        assert_int_equal(after.free_bytes, before.free_bytes);
        assert_int_equal(after.free_count, before.free_count);
        is_gone = locked_pages_go();
        assert_int_equal(is_given_back(small[1], bytes), is_gone);
        assert_true(is_given_back(small[3], bytes));
        munlock((void *)pages.start, pages.end - pages.start);
    }
    assert_int_equal(hmm_medium_trim(SIZE_MAX) != 0, !is_gone);
    assert_true(is_given_back(small[1], bytes));
    audit();
    small_give(0, 2);
}

/* At most so much a call, and then more with the next one. */
static void purging_is_bounded_by_amount(void **state)
{
    (void)state;
    skip_where_pages_are_large();
    enum { COUNT = 96 };
    char *blocks[COUNT];
    char *small[COUNT];
    for (int i = 0; i < COUNT; i++) {
        blocks[i] = take(250 * KIB);
        small[i] = take(16 * KIB);
    }
    for (int i = 0; i < COUNT - 1; i++) {
        give(blocks[i]);
    }
    size_t before_bytes = stats().dirty_bytes;
    assert_true(before_bytes > (COUNT - 2) * 240 * KIB);
    keep_nothing();
    give(blocks[COUNT - 1]);
    size_t after_bytes = stats().dirty_bytes;
    assert_true(after_bytes > before_bytes - 1500 * KIB && after_bytes < before_bytes);
    for (int i = 0; i < COUNT; i++) {
        give(small[i]);
    }
}

/* --------------------------------------------------------------------------------------- crimes */

static void assert_crime(const struct crime *crime, const char *what)
{
    assert_non_null(crime->what);
    assert_string_equal(crime->what, what);
}

/* Every call finds it, and nothing changes. `free_word` is free's own word. */
static void assert_guilty(void *ptr, const char *free_word, const char *word)
{
    struct medium_stats before = stats();
    size_t bytes = 7;
    struct crime crime = {0};
    assert_false(hmm_medium_free(ptr, &crime));
    assert_crime(&crime, free_word);
    crime = (struct crime){0};
    assert_false(hmm_medium_usable(ptr, &bytes, &crime));
    assert_crime(&crime, word);
    crime = (struct crime){0};
    assert_false(hmm_medium_resize(ptr, 64 * KIB, &bytes, &crime));
    assert_crime(&crime, word);
    assert_int_equal(bytes, 7);
    struct medium_stats after = stats();
    assert_memory_equal(&before, &after, sizeof before);
}

static void freed_pointers_are_known(void **state)
{
    (void)state;
    char *a = take(20 * KIB);
    char *b = take(20 * KIB);
    char *c = take(20 * KIB);
    char *d = take(20 * KIB);
    char *e = take(20 * KIB);
    give_merged(b);
    assert_guilty(b, "double free", "freed block");
    give_merged(c); /* swallowed from above */
    assert_guilty(c, "double free", "freed block");
    give_merged(a); /* swallows from below */
    assert_guilty(a, "double free", "freed block");
    assert_guilty(b, "double free", "freed block");
    give_merged(e); /* into the wilderness */
    assert_guilty(e, "double free", "freed block");
    give_merged(d); /* with the free block before it */
    assert_guilty(d, "double free", "freed block");
    assert_guilty(a, "double free", "freed block");
    audit();
}

static void freed_pointers_are_known_on_the_shelf(void **state)
{
    (void)state;
    fill();
    char *a = take(20 * KIB);
    char *b = take(20 * KIB);
    char *c = take(20 * KIB);
    char *wall = take(16 * KIB);
    give(a);
    give(b);
    assert_int_equal(shelf_count(), 2);
    assert_guilty(a, "double free", "freed block");
    assert_guilty(b, "double free", "freed block");
    give_merged(c);
    assert_int_equal(shelf_count(), 0);
    assert_guilty(a, "double free", "freed block");
    assert_guilty(b, "double free", "freed block");
    give(wall);
    unfill();
}

static void invalid_pointers_are_known(void **state)
{
    (void)state;
    char *a = take(20 * KIB);
    char *b = take(20 * KIB);
    char *c = take(20 * KIB);
    give(b);
    const char *inside = "invalid pointer, inside a block";
    const char *inside_free = "invalid pointer, inside a free block";
    assert_guilty(a + 1, inside, inside);
    assert_guilty(a + BLOCK_UNIT_BYTES, inside, inside);
    assert_guilty(a - BLOCK_UNIT_BYTES, inside, inside);
    assert_guilty(b + 4096, inside_free, inside_free);
    assert_guilty(b + 3, inside_free, inside_free);
    assert_guilty(c + 100 * KIB, "invalid pointer", "invalid pointer");
    assert_guilty(c + 900 * KIB, "invalid pointer", "invalid pointer");
    audit();
    give(a);
    give(c);
}

static void damage_is_known(void **state)
{
    (void)state;
    uintptr_t *a = take(20 * KIB);
    uintptr_t *b = take(20 * KIB);
    uintptr_t *c = take(20 * KIB);
    uintptr_t *d = take(20 * KIB);
    uintptr_t *e = take(20 * KIB);
    size_t last = usable(a) / sizeof *a - 1;
    uintptr_t saved;
    struct crime crime = {0};

    saved = b[-1];
    b[-1] ^= (uintptr_t)1 << 20;
    assert_guilty(b, "damaged tag", "damaged tag");
    assert_false(hmm_medium_free(a, &crime));
    assert_crime(&crime, "damaged tag");
    assert_int_equal(crime.at, (uintptr_t)&b[-1]);
    b[-1] = saved;

    give(b);
    give(d);
    /* the size repeated, seen from the block after */
    saved = b[last];
    b[last] = 12345;
    crime = (struct crime){0};
    assert_false(hmm_medium_free(c, &crime));
    assert_crime(&crime, "damaged free block before");
    b[last] = saved;
    /* a link, seen from the block before and by the search */
    saved = b[0];
    b[0] = (uintptr_t)&saved;
    crime = (struct crime){0};
    assert_false(hmm_medium_free(a, &crime));
    assert_crime(&crime, "damaged free block");
    assert_int_equal(crime.at, (uintptr_t)&b[-1]);
    b[0] = saved;
    saved = d[0];
    d[0] = (uintptr_t)&e[100];
    crime = (struct crime){0};
    struct zero_span zero;
    assert_null(hmm_medium_allocate(0, 1, 20 * KIB, &zero, &crime));
    assert_crime(&crime, "damaged free block");
    d[0] = saved;

    audit();
    give(a);
    give(c);
    give(e);
}

/* --------------------------------------------------------------------------------------- random */

static uint64_t random_state;

/* As many small as large ones, so to speak. */
static size_t random_bytes(void)
{
    size_t shift = random_below(&random_state, 10);
    return ((size_t)8 * KIB + random_below(&random_state, 8 * KIB)) >> 4 << shift % 9;
}

struct held {
    unsigned char *ptr;
    size_t bytes;
    unsigned char seed;
};

enum { STAMP_STEP = 509, HELD_COUNT = 3000 };

static void held_stamp(const struct held *held)
{
    for (size_t i = 0; i < held->bytes; i += STAMP_STEP) {
        held->ptr[i] = (unsigned char)(held->seed + i);
    }
    held->ptr[held->bytes - 1] = held->seed;
}

static void held_check(const struct held *held, size_t bytes)
{
    for (size_t i = 0; i < bytes; i += STAMP_STEP) {
        if (i != held->bytes - 1) {
            assert_int_equal(held->ptr[i], (unsigned char)(held->seed + i));
        }
    }
    if (bytes == held->bytes) {
        assert_int_equal(held->ptr[bytes - 1], held->seed);
    }
}

static void held_drop(struct held *held)
{
    struct crime crime = {0};
    held_check(held, held->bytes);
    assert_true(hmm_medium_free(held->ptr, &crime));
    held->ptr = NULL;
}

static void held_take(struct held *held)
{
    held->bytes = random_bytes();
    held->seed = (unsigned char)random_below(&random_state, 256);
    size_t alignment =
        random_below(&random_state, 8) == 0 ? (size_t)1 << random_below(&random_state, 17) : 1;
    held->ptr = try_take(0, alignment, held->bytes);
    if (held->ptr != NULL) {
        held_stamp(held);
    }
}

static void held_resize(struct held *held)
{
    struct crime crime = {0};
    size_t bytes = random_bytes();
    size_t old_bytes;
    held_check(held, held->bytes);
    bool is_done = hmm_medium_resize(held->ptr, bytes, &old_bytes, &crime);
    assert_null(crime.what);
    assert_true(old_bytes >= held->bytes);
    if (is_done) {
        held_check(held, size_min(bytes, held->bytes - 1));
        held->bytes = bytes;
        held_stamp(held);
    }
}

static void random_run(size_t keep_bytes, size_t held_max, int step_count)
{
    static struct held held[HELD_COUNT];
    hmm_purge_set(PURGE_BYTES, keep_bytes);
    for (int step = 0; step < step_count; step++) {
        struct held *one = &held[random_below(&random_state, held_max)];
        if (one->ptr == NULL) {
            held_take(one);
        } else if (random_below(&random_state, 4) == 0) {
            held_resize(one);
        } else {
            held_drop(one);
        }
        if (step % 64 == 0) {
            audit();
        }
        if (random_below(&random_state, 20000) == 0) {
            (void)trim();
        }
    }
    for (size_t i = 0; i < held_max; i++) {
        if (held[i].ptr != NULL) {
            held_drop(&held[i]);
        }
    }
    audit();
}

static void random_steps(void **state)
{
    (void)state;
    const int share = UNIT_IS_SANITIZED ? 10 : 1;
    random_state = seed_draw();
    print_message("# SEED=%llu\n", (unsigned long long)random_state);
    random_run(SIZE_MAX, HELD_COUNT, 70000 / share); /* sometimes out of memory */
    random_run(1 << 20, HELD_COUNT / 8, 70000 / share);
    random_run(0, HELD_COUNT / 64, 60000 / share);
}

/* -------------------------------------------------------------------------------------- threads */

enum { THREAD_COUNT = 4, SWAP_COUNT = 64, SWAP_STEPS = UNIT_IS_SANITIZED ? 5000 : 200000 };

static _Atomic(size_t *) swaps[SWAP_COUNT];

/* A block holds its size in its first word and in its last. */
static void swap_free(size_t *block)
{
    struct crime crime = {0};
    if (block == NULL) {
        return;
    }
    size_t bytes = block[0];
    if (block[bytes / sizeof *block - 1] != bytes || !hmm_medium_free(block, &crime)) {
        fprintf(stderr, "# %s\n", crime.what != NULL ? crime.what : "content lost");
        abort();
    }
}

static void *swap_run(void *number)
{
    uint64_t random = 88172645463325252u + (uintptr_t)number;
    for (int step = 0; step < SWAP_STEPS; step++) {
        struct crime crime = {0};
        struct zero_span zero;
        (void)random_next(&random);
        size_t bytes = (size_t)(8 * KIB + random % (8 * KIB) / 16 * 16) << (random >> 20) % 5;
        size_t *block = hmm_medium_allocate((unsigned)(uintptr_t)number, 1, bytes, &zero, &crime);
        if (crime.what != NULL) {
            fprintf(stderr, "# %s\n", crime.what);
            abort();
        }
        if (block != NULL) {
            if (zero.start != zero.end && (*(size_t *)zero.start | ((size_t *)zero.end)[-1]) != 0) {
                fprintf(stderr, "# memory that is not zero\n");
                abort();
            }
            block[0] = bytes;
            block[bytes / sizeof *block - 1] = bytes;
        }
        swap_free(atomic_exchange(&swaps[(random >> 30) % SWAP_COUNT], block));
    }
    return NULL;
}

static void threads_run(void *(*run)(void *))
{
    pthread_t threads[THREAD_COUNT];
    for (uintptr_t i = 0; i < THREAD_COUNT; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, run, (void *)i), 0);
    }
    for (int i = 0; i < THREAD_COUNT; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    }
}

static void threads_free_each_others_blocks(void **state)
{
    (void)state;
    for (int round = 0; round < 2; round++) {
        hmm_purge_set(PURGE_BYTES, round == 0 ? SIZE_MAX : (size_t)1 << 20);
        threads_run(swap_run);
        audit();
        for (int i = 0; i < SWAP_COUNT; i++) {
            swap_free(atomic_exchange(&swaps[i], NULL));
        }
        audit();
        assert_int_equal(stats().live_count, 0);
    }
}

static void *freed_elsewhere[3];

static void *free_elsewhere(void *nothing)
{
    for (int i = 0; i < 3; i++) {
        struct crime crime = {0};
        if (!hmm_medium_free(freed_elsewhere[i], &crime)) {
            abort();
        }
    }
    return nothing;
}

static void free_while_locked(void)
{
    pthread_t thread;
    hmm_medium_lock_all();
    assert_int_equal(pthread_create(&thread, NULL, free_elsewhere, NULL), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
    hmm_medium_unlock_all();
    audit();
}

static void a_free_does_not_wait(void **state)
{
    (void)state;
    char *kept = take(16 * KIB);
    freed_elsewhere[0] = take(100 * KIB);
    freed_elsewhere[1] = take(100 * KIB);
    freed_elsewhere[2] = take(100 * KIB);
    size_t live_count = stats().live_count;
    free_while_locked();
    assert_int_equal(stats().live_count, live_count);
    /* whoever comes next frees them */
    assert_true(resize(kept, 8 * KIB));
    assert_int_equal(stats().live_count, live_count - 3);
    audit();
    give(kept);
}

/* Nobody has been in their shard since. */
static void pending_blocks_of_another_shard_are_had_before_a_request_fails(void **state)
{
    (void)state;
    const size_t all = ARENA_BYTES / GRANULE_BYTES;
    struct granule *wall = hmm_arena_take(all - 6, 1);
    assert_non_null(wall);
    for (int i = 0; i < 3; i++) {
        freed_elsewhere[i] = take(100 * KIB);
    }
    assert_null(try_take(1, 1, 100 * KIB));
    free_while_locked();
    void *ptr = try_take(1, 1, 100 * KIB);
    assert_non_null(ptr);
    give(ptr);
    (void)trim();
    hmm_arena_give(wall, all - 6, 0);
}

static void a_pending_crime_is_found_by_the_next_call(void **state)
{
    (void)state;
    struct crime crime = {0};
    size_t bytes;
    char *kept = take(16 * KIB);
    freed_elsewhere[0] = take(100 * KIB);
    freed_elsewhere[1] = take(100 * KIB);
    freed_elsewhere[2] = freed_elsewhere[0];
    free_while_locked();
    assert_false(hmm_medium_resize(kept, 8 * KIB, &bytes, &crime));
    assert_crime(&crime, "double free");
    assert_int_equal(crime.at, (uintptr_t)block_of(freed_elsewhere[0]));
    audit();
    if (stats().live_count == 2) {
        give(freed_elsewhere[1]); /* it was behind */
    }
    give(kept);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(free_neighbours_become_one, leave_nothing),
        cmocka_unit_test_teardown(a_free_block_never_ends_at_the_top, leave_nothing),
        cmocka_unit_test_teardown(a_rest_too_small_goes_with_the_block, leave_nothing),
        cmocka_unit_test_teardown(small_blocks_work_too, leave_nothing),
        cmocka_unit_test_teardown(a_freed_block_is_taken_again, leave_nothing),
        cmocka_unit_test_teardown(no_block_is_cut_from_one_that_leaves_too_little, leave_nothing),
        cmocka_unit_test_teardown(the_shelf_is_a_share_of_what_is_live, leave_nothing),
        cmocka_unit_test_teardown(the_shelf_is_merged_before_memory_is_touched, leave_nothing),
        cmocka_unit_test_teardown(damage_on_the_shelf_is_known, leave_nothing),
        cmocka_unit_test_teardown(empty_zones_go_back, leave_nothing),
        cmocka_unit_test_teardown(one_zone_that_was_little_used_stays, leave_nothing),
        cmocka_unit_test_teardown(touched_memory_comes_first, leave_nothing),
        cmocka_unit_test_teardown(exhaustion_is_no_crime, leave_nothing),
        cmocka_unit_test_teardown(zones_shrink_where_memory_is_short, leave_nothing),
        cmocka_unit_test_teardown(payloads_are_aligned, leave_nothing),
        cmocka_unit_test_teardown(resize_shrinks_and_grows, leave_nothing),
        cmocka_unit_test_teardown(a_shrunk_tail_merges, leave_nothing),
        cmocka_unit_test_teardown(purged_blocks_are_zero, leave_nothing),
        cmocka_unit_test_teardown(the_wilderness_is_purged, leave_nothing),
        cmocka_unit_test_teardown(growing_into_purged_memory, leave_nothing),
        cmocka_unit_test_teardown(trimming_reaches_between_blocks, leave_nothing),
        cmocka_unit_test_teardown(what_was_trimmed_comes_last, leave_nothing),
        cmocka_unit_test_teardown(trimmed_blocks_merge, leave_nothing),
        cmocka_unit_test_teardown(growing_into_what_was_trimmed, leave_nothing),
        cmocka_unit_test_teardown(trimming_knows_its_budget, leave_nothing),
        cmocka_unit_test_teardown(locked_pages_stay_or_go, leave_nothing),
        cmocka_unit_test_teardown(purging_is_bounded_by_amount, leave_nothing),
        cmocka_unit_test_teardown(freed_pointers_are_known, leave_nothing),
        cmocka_unit_test_teardown(freed_pointers_are_known_on_the_shelf, leave_nothing),
        cmocka_unit_test_teardown(invalid_pointers_are_known, leave_nothing),
        cmocka_unit_test_teardown(damage_is_known, leave_nothing),
        cmocka_unit_test_teardown(random_steps, leave_nothing),
        cmocka_unit_test_teardown(threads_free_each_others_blocks, leave_nothing),
        cmocka_unit_test_teardown(a_free_does_not_wait, leave_nothing),
        cmocka_unit_test_teardown(pending_blocks_of_another_shard_are_had_before_a_request_fails,
                                  leave_nothing),
        cmocka_unit_test_teardown(a_pending_crime_is_found_by_the_next_call, leave_nothing),
    };
    if (!hmm_arena_open(ARENA_BYTES)) {
        return 1;
    }
    keep_all();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
