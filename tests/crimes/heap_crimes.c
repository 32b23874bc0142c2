/*
 * heap_crimes.c - how to break a heap of one's own, what each level of integrity sees of it, and
 * calls with what is no heap at all.
 *
 * heap_crimes lists its crimes, some with a level; heap_crimes CRIME [LEVEL] commits one. A crime
 * that the level does not promise to see announces nothing, and the program must end as if nothing
 * had happened.
 */
#include "announce.h"
#include "hmm.h"

enum { MEMORY_BYTES = 1 << 16, BLOCK_BYTES = 104 };

static _Alignas(64) unsigned char memory[MEMORY_BYTES];
static _Alignas(64) unsigned char other_memory[MEMORY_BYTES];
static HmmIntegrity level; /* from the command line */

/* `heap` is NULL where the message names none. */
static void announce_heap(const char *call, const void *ptr, const char *what, const char *evidence,
                          const HmmHeap *heap)
{
    char named[60] = "";
    if (heap != NULL) {
        snprintf(named, sizeof named, "heap 0x%lx, ", (unsigned long)heap);
    }
    announce_line("hmm: %s(0x%lx): %s: %s%sthread %d\n", call, (unsigned long)ptr, what, evidence,
                  named, (int)gettid());
}

static const char *owned_by(const HmmHeap *heap)
{
    static char text[60];
    snprintf(text, sizeof text, "owner heap 0x%lx, ", (unsigned long)heap);
    return text;
}

static HmmHeap *heap_make(void)
{
    const HmmHeapOptions options = {.integrity = level};
    HmmHeap *heap = HmmHeapInit(memory, sizeof memory, &options);
    REQUIRE(heap != NULL);
    return heap;
}

static HmmHeap *heap_create(void)
{
    const HmmHeapOptions options = {.integrity = level};
    HmmHeap *heap = HmmHeapCreate((size_t)1 << 20, &options);
    REQUIRE(heap != NULL);
    return heap;
}

/* Blocks side by side in a new heap; the ends keep those between from special places. */
enum { ROW_BLOCKS = 7 };

struct row {
    HmmHeap *heap;
    char *blocks[ROW_BLOCKS];
};

static struct row row_make(void)
{
    struct row row = {.heap = heap_make()};
    for (int i = 0; i < ROW_BLOCKS; i++) {
        row.blocks[i] = HmmHeapAlloc(row.heap, BLOCK_BYTES);
        REQUIRE(row.blocks[i] != NULL);
        REQUIRE(i == 0 || row.blocks[i] == row.blocks[i - 1] + BLOCK_BYTES + TAG_BYTES);
    }
    return row;
}

static const char *block_evidence(const void *ptr)
{
    return block_of_bytes(ptr, BLOCK_BYTES + TAG_BYTES);
}

/* The whole heap is looked at before anything else, so FULL says which invariant is broken. */
static void announce_by_level(bool is_seen, const char *call, const void *ptr, const char *what,
                              const char *evidence, const char *invariant, const HmmHeap *heap)
{
    if (level == HMM_INTEGRITY_FULL) {
        announce_heap(call, ptr, invariant, "", heap);
    } else if (is_seen) {
        announce_heap(call, ptr, what, evidence, heap);
    }
}

/* ------------------------------------------------------------------------------- at every level */

/* Damages nothing but the checksum, so that whoever does not look can go on. */
static void checksum_damage(void *block)
{
    damage((char *)block - 1, 1);
}

static void own_tag(void)
{
    struct row row = row_make();
    announce_by_level(level != HMM_INTEGRITY_NONE, "HmmHeapFree", row.blocks[2], "damaged tag",
                      tag_at(row.blocks[2]), "B1: a damaged tag", row.heap);
    checksum_damage(row.blocks[2]);
    HmmHeapFree(row.heap, row.blocks[2]);
}

static void next_tag(void)
{
    struct row row = row_make();
    announce_by_level(level != HMM_INTEGRITY_NONE, "HmmHeapFree", row.blocks[2], "damaged tag",
                      tag_at(row.blocks[3]), "B1: a damaged tag", row.heap);
    checksum_damage(row.blocks[3]);
    HmmHeapFree(row.heap, row.blocks[2]);
}

static void next_tag_then_realloc(void)
{
    struct row row = row_make();
    announce_by_level(level != HMM_INTEGRITY_NONE, "HmmHeapRealloc", row.blocks[2], "damaged tag",
                      tag_at(row.blocks[3]), "B1: a damaged tag", row.heap);
    checksum_damage(row.blocks[3]);
    EXPECT(HmmHeapRealloc(row.heap, row.blocks[2], 3 * BLOCK_BYTES) != NULL);
}

/* A size is read from the block's own tag, so the neighbour is looked at only by those who always
 * do. */
static void next_tag_then_usable_size(void)
{
    struct row row = row_make();
    announce_by_level(level == HMM_INTEGRITY_NEIGHBOURS, "HmmHeapUsableSize", row.blocks[2],
                      "damaged tag", tag_at(row.blocks[3]), "B1: a damaged tag", row.heap);
    checksum_damage(row.blocks[3]);
    EXPECT_EQUAL(HmmHeapUsableSize(row.heap, row.blocks[2]), BLOCK_BYTES);
}

/* A block that goes might merge with the next, and then the one behind that is read. */
static void tag_behind_the_next(void)
{
    struct row row = row_make();
    announce_by_level(level == HMM_INTEGRITY_NEIGHBOURS, "HmmHeapFree", row.blocks[1],
                      "damaged tag", tag_at(row.blocks[3]), "B1: a damaged tag", row.heap);
    checksum_damage(row.blocks[3]);
    HmmHeapFree(row.heap, row.blocks[1]);
}

/* Far away: only who walks the heap can know. */
static void far_tag(void)
{
    struct row row = row_make();
    announce_by_level(false, "HmmHeapFree", row.blocks[1], "", "", "B1: a damaged tag", row.heap);
    checksum_damage(row.blocks[5]);
    HmmHeapFree(row.heap, row.blocks[1]);
}

static void far_tag_then_alloc(void)
{
    struct row row = row_make();
    announce_by_level(false, "HmmHeapAlloc", NULL, "", "", "B1: a damaged tag", row.heap);
    checksum_damage(row.blocks[3]);
    EXPECT(HmmHeapAlloc(row.heap, BLOCK_BYTES) != NULL);
}

static void free_twice(void)
{
    struct row row = row_make();
    if (level == HMM_INTEGRITY_NONE) {
        return;
    }
    announce_heap("HmmHeapFree", row.blocks[2], "double free", block_evidence(row.blocks[2]),
                  row.heap);
    HmmHeapFree(row.heap, row.blocks[2]);
    HmmHeapFree(row.heap, row.blocks[2]);
}

static void free_twice_after_merging(void)
{
    struct row row = row_make();
    if (level == HMM_INTEGRITY_NONE) {
        return;
    }
    announce_heap("HmmHeapFree", row.blocks[2], "double free", block_evidence(row.blocks[2]),
                  row.heap);
    HmmHeapFree(row.heap, row.blocks[1]);
    HmmHeapFree(row.heap, row.blocks[3]);
    HmmHeapFree(row.heap, row.blocks[2]);
    HmmHeapFree(row.heap, row.blocks[2]);
}

static void free_inside(void)
{
    struct row row = row_make();
    if (level == HMM_INTEGRITY_NONE) {
        return;
    }
    announce_heap("HmmHeapFree", row.blocks[2] + 16, "invalid pointer, inside a block",
                  block_evidence(row.blocks[2]), row.heap);
    HmmHeapFree(row.heap, row.blocks[2] + 16);
}

static void free_misaligned(void)
{
    struct row row = row_make();
    if (level == HMM_INTEGRITY_NONE) {
        return;
    }
    announce_heap("HmmHeapFree", row.blocks[2] + 1, "invalid pointer, inside a block",
                  block_evidence(row.blocks[2]), row.heap);
    HmmHeapFree(row.heap, row.blocks[2] + 1);
}

/* Links that lead to readable memory, where nothing points back. */
static void links(void)
{
    struct row row = row_make();
    char *const stray[] = {row.blocks[0], row.blocks[0]};
    if (level == HMM_INTEGRITY_NONE) {
        return;
    }
    announce_by_level(true, "HmmHeapAlloc", NULL, "damaged free block",
                      block_evidence(row.blocks[2]), "F2: a damaged link", row.heap);
    HmmHeapFree(row.heap, row.blocks[2]);
    memcpy(row.blocks[2], stray, sizeof stray);
    EXPECT(HmmHeapAlloc(row.heap, BLOCK_BYTES) != NULL);
}

/* Links that lead nowhere. NEIGHBOURS promises to look at links before it follows them, and FULL at
 * all. */
static void wild_links(void)
{
    struct row row = row_make();
    if (level != HMM_INTEGRITY_NEIGHBOURS && level != HMM_INTEGRITY_FULL) {
        return;
    }
    announce_by_level(true, "HmmHeapAlloc", NULL, "damaged free block",
                      block_evidence(row.blocks[2]), "F2: a damaged link", row.heap);
    HmmHeapFree(row.heap, row.blocks[2]);
    memset(row.blocks[2], 'A', 16);
    EXPECT(HmmHeapAlloc(row.heap, BLOCK_BYTES) != NULL);
}

/* The search passes a smaller block of the same bin, and follows its link before it has found
 * anything. */
static void wild_links_on_the_way(void)
{
    HmmHeap *heap = heap_make();
    enum { LARGE_BYTES = 8008, LITTLE_LESS = 64 };
    if (level != HMM_INTEGRITY_NEIGHBOURS && level != HMM_INTEGRITY_FULL) {
        return;
    }
    char *large = HmmHeapAlloc(heap, LARGE_BYTES);
    REQUIRE(large != NULL && HmmHeapAlloc(heap, 24) != NULL);
    char *smaller = HmmHeapAlloc(heap, LARGE_BYTES - LITTLE_LESS);
    REQUIRE(smaller != NULL && HmmHeapAlloc(heap, 24) != NULL);
    announce_by_level(true, "HmmHeapAlloc", NULL, "damaged free block",
                      block_of_bytes(smaller, LARGE_BYTES - LITTLE_LESS + TAG_BYTES),
                      "F2: a damaged link", heap);
    HmmHeapFree(heap, large);
    HmmHeapFree(heap, smaller);
    memset(smaller, 'A', 16);
    EXPECT(HmmHeapAlloc(heap, LARGE_BYTES) != NULL);
}

/* No level is needed to see that a pointer is far away. */
static void free_of_the_stack(void)
{
    char bytes[64] = {0};
    HmmHeap *heap = heap_make();
    announce_heap("HmmHeapFree", bytes, "not a heap pointer", "", heap);
    HmmHeapFree(heap, bytes);
}

/* Whatever a call trusts, being asked is being asked: this must see all of it. */
static void check_sees_damage(void)
{
    struct row row = row_make();
    EXPECT(HmmHeapCheck(row.heap));
    checksum_damage(row.blocks[3]);
    EXPECT(!HmmHeapCheck(row.heap));
    checksum_damage(row.blocks[3]);
    EXPECT(HmmHeapCheck(row.heap));
    HmmHeapFree(row.heap, row.blocks[2]);
    damage(row.blocks[2] + 1, 3);
    EXPECT(!HmmHeapCheck(row.heap));
    damage(row.blocks[2] + 1, 3);
    damage(row.blocks[2] + BLOCK_BYTES - TAG_BYTES, 1);
    EXPECT(!HmmHeapCheck(row.heap));
    damage(row.blocks[2] + BLOCK_BYTES - TAG_BYTES, 1);
    EXPECT(HmmHeapCheck(row.heap));
}

/* ------------------------------------------------------------------------------- the wrong heap */

static void free_to_another_created_heap(void)
{
    HmmHeap *owner = heap_create();
    HmmHeap *heap = heap_create();
    char *p = HmmHeapAlloc(owner, 100);
    announce_heap("HmmHeapFree", p, "pointer of another heap", owned_by(owner), heap);
    HmmHeapFree(heap, p);
}

static void realloc_in_another_created_heap(void)
{
    HmmHeap *owner = heap_create();
    HmmHeap *heap = heap_create();
    char *p = HmmHeapAlloc(owner, 100);
    announce_heap("HmmHeapRealloc", p, "pointer of another heap", owned_by(owner), heap);
    EXPECT(HmmHeapRealloc(heap, p, 200) == NULL);
}

static void usable_size_in_another_created_heap(void)
{
    HmmHeap *owner = heap_create();
    HmmHeap *heap = heap_create();
    char *p = HmmHeapAlloc(owner, 100);
    announce_heap("HmmHeapUsableSize", p, "pointer of another heap", owned_by(owner), heap);
    EXPECT_EQUAL(HmmHeapUsableSize(heap, p), 0);
}

/* The owner need not be the newest, nor the first. */
static void free_to_the_fifth_heap(void)
{
    HmmHeap *heaps[9];
    for (int i = 0; i < 9; i++) {
        heaps[i] = heap_create();
    }
    HmmHeapDestroy(heaps[1]);
    HmmHeapDestroy(heaps[7]);
    char *p = HmmHeapAlloc(heaps[3], 100);
    announce_heap("HmmHeapFree", p, "pointer of another heap", owned_by(heaps[3]), heaps[4]);
    HmmHeapFree(heaps[4], p);
}

static void heap_free_of_mallocs(void)
{
    HmmHeap *heap = heap_create();
    char *p = malloc(100);
    REQUIRE(p != NULL);
    announce_heap("HmmHeapFree", p, "pointer of another heap", "owner heap HEAP, ", heap);
    HmmHeapFree(heap, p);
}

static void array_heap_free_of_mallocs(void)
{
    HmmHeap *heap = heap_make();
    char *p = malloc(100);
    REQUIRE(p != NULL);
    announce_heap("HmmHeapFree", p, "pointer of another heap", "owner heap HEAP, ", heap);
    HmmHeapFree(heap, p);
}

/* In libhmm-array.so a created heap is a block of the process heap, and its blocks lie inside that.
 */
static void announce_created(const char *call, const void *ptr, HmmHeap *owner)
{
#ifdef ARRAY
    (void)owner;
    announce_line(
        "hmm: %s(0x%lx): invalid pointer, inside a block: block of BYTES bytes at ADDRESS, "
        "heap HEAP, thread %d\n",
        call, (unsigned long)ptr, (int)gettid());
#else
    announce(call, ptr, "pointer of another heap", owned_by(owner));
#endif
}

static void free_of_a_heaps(void)
{
    HmmHeap *owner = heap_create();
    char *p = HmmHeapAlloc(owner, 100);
    announce_created("free", p, owner);
    free(p);
}

static void realloc_of_a_heaps(void)
{
    HmmHeap *owner = heap_create();
    char *p = HmmHeapAlloc(owner, 100);
    announce_created("realloc", p, owner);
    EXPECT(realloc(p, 200) == NULL);
}

/* Heaps in given memory are on no list, so their owner cannot be named. */
static void free_to_another_array_heap(void)
{
    HmmHeap *owner = HmmHeapInit(other_memory, sizeof other_memory, NULL);
    HmmHeap *heap = heap_make();
    char *p = HmmHeapAlloc(owner, 100);
    announce_heap("HmmHeapFree", p, "not a heap pointer", "", heap);
    HmmHeapFree(heap, p);
}

/* The process heap is open, and wherever it lies, the stack and static memory are not in it. */
static void heap_free_of_the_stack(void)
{
    char bytes[64] = {0};
    HmmHeap *heap = heap_create();
    EXPECT(malloc(24) != NULL);
    announce_heap("HmmHeapFree", bytes, "not a heap pointer", "", heap);
    HmmHeapFree(heap, bytes);
}

static void heap_free_of_static_memory(void)
{
    HmmHeap *heap = heap_create();
    EXPECT(malloc(24) != NULL);
    announce_heap("HmmHeapFree", other_memory, "not a heap pointer", "", heap);
    HmmHeapFree(heap, other_memory);
}

/* What is reserved for the process heap is not yet its own. */
static void heap_free_above_mallocs_break(void)
{
    HmmHeap *heap = heap_create();
    char *p = malloc(24);
    REQUIRE(p != NULL);
    announce_heap("HmmHeapFree", p + ((size_t)64 << 20), "not a heap pointer", "", heap);
    HmmHeapFree(heap, p + ((size_t)64 << 20));
}

static void heap_free_of_the_heap_itself(void)
{
    HmmHeap *heap = heap_make();
    announce_heap("HmmHeapFree", heap, "not a heap pointer", "", heap);
    HmmHeapFree(heap, heap);
}

/* ----------------------------------------------------------------------------------- dead heaps */

static HmmHeap *heap_destroyed(void **block)
{
    HmmHeap *heap = heap_make();
    *block = HmmHeapAlloc(heap, 100);
    REQUIRE(*block != NULL);
    HmmHeapDestroy(heap);
    return heap;
}

static void destroyed_alloc(void)
{
    void *block;
    HmmHeap *heap = heap_destroyed(&block);
    announce_heap("HmmHeapAlloc", NULL, "heap was destroyed", "", heap);
    EXPECT(HmmHeapAlloc(heap, 10) == NULL);
}

static void destroyed_calloc(void)
{
    void *block;
    HmmHeap *heap = heap_destroyed(&block);
    announce_heap("HmmHeapCalloc", NULL, "heap was destroyed", "", heap);
    EXPECT(HmmHeapCalloc(heap, 10, 10) == NULL);
}

static void destroyed_aligned_alloc(void)
{
    void *block;
    HmmHeap *heap = heap_destroyed(&block);
    announce_heap("HmmHeapAlignedAlloc", NULL, "heap was destroyed", "", heap);
    EXPECT(HmmHeapAlignedAlloc(heap, 64, 10) == NULL);
}

static void destroyed_realloc(void)
{
    void *block;
    HmmHeap *heap = heap_destroyed(&block);
    announce_heap("HmmHeapRealloc", block, "heap was destroyed", "", heap);
    EXPECT(HmmHeapRealloc(heap, block, 10) == NULL);
}

static void destroyed_free(void)
{
    void *block;
    HmmHeap *heap = heap_destroyed(&block);
    announce_heap("HmmHeapFree", block, "heap was destroyed", "", heap);
    HmmHeapFree(heap, block);
}

static void destroyed_usable_size(void)
{
    void *block;
    HmmHeap *heap = heap_destroyed(&block);
    announce_heap("HmmHeapUsableSize", block, "heap was destroyed", "", heap);
    EXPECT_EQUAL(HmmHeapUsableSize(heap, block), 0);
}

static void destroyed_add(void)
{
    void *block;
    HmmHeap *heap = heap_destroyed(&block);
    announce_heap("HmmHeapAdd", other_memory, "heap was destroyed", "", heap);
    EXPECT(!HmmHeapAdd(heap, other_memory, sizeof other_memory));
}

static void destroyed_stats(void)
{
    void *block;
    HmmHeapStats stats;
    HmmHeap *heap = heap_destroyed(&block);
    announce_heap("HmmHeapGetStats", NULL, "heap was destroyed", "", heap);
    HmmHeapGetStats(heap, &stats);
}

static void destroyed_check(void)
{
    void *block;
    HmmHeap *heap = heap_destroyed(&block);
    announce_heap("HmmHeapCheck", NULL, "heap was destroyed", "", heap);
    EXPECT(!HmmHeapCheck(heap));
}

static void destroyed_destroy(void)
{
    void *block;
    HmmHeap *heap = heap_destroyed(&block);
    announce_heap("HmmHeapDestroy", NULL, "heap was destroyed", "", heap);
    HmmHeapDestroy(heap);
}

/* The range went back to where it came from: the system, or the array. */
static void destroyed_created_heaps_block_freed(void)
{
    HmmHeap *heap = heap_create();
    HmmHeap *other = heap_create();
    char *p = HmmHeapAlloc(heap, 100);
    HmmHeapDestroy(heap);
#ifdef ARRAY
    announce_heap("HmmHeapFree", p, "pointer of another heap", "owner heap HEAP, ", other);
#else
    announce_heap("HmmHeapFree", p, "not a heap pointer", "", other);
#endif
    HmmHeapFree(other, p);
}

/* ------------------------------------------------------------------------------- what is no heap
 */

static bool visit_nothing(void *ptr, size_t usable_bytes, bool is_used, void *context)
{
    (void)ptr;
    (void)usable_bytes;
    (void)is_used;
    (void)context;
    return true;
}

static void no_heap_alloc(void)
{
    announce_heap("HmmHeapAlloc", NULL, "not a heap", "", NULL);
    EXPECT(HmmHeapAlloc(NULL, 10) == NULL);
}

static void no_heap_calloc(void)
{
    announce_heap("HmmHeapCalloc", NULL, "not a heap", "", NULL);
    EXPECT(HmmHeapCalloc(NULL, 10, 10) == NULL);
}

static void no_heap_aligned_alloc(void)
{
    announce_heap("HmmHeapAlignedAlloc", NULL, "not a heap", "", NULL);
    EXPECT(HmmHeapAlignedAlloc(NULL, 64, 10) == NULL);
}

static void no_heap_realloc(void)
{
    announce_heap("HmmHeapRealloc", memory, "not a heap", "", NULL);
    EXPECT(HmmHeapRealloc(NULL, memory, 10) == NULL);
}

static void no_heap_free(void)
{
    announce_heap("HmmHeapFree", memory, "not a heap", "", NULL);
    HmmHeapFree(NULL, memory);
}

/* Even where there is nothing to do: the heap is wrong all the same. */
static void no_heap_free_of_nothing(void)
{
    announce_heap("HmmHeapFree", NULL, "not a heap", "", NULL);
    HmmHeapFree(NULL, NULL);
}

static void no_heap_usable_size(void)
{
    announce_heap("HmmHeapUsableSize", memory, "not a heap", "", NULL);
    EXPECT_EQUAL(HmmHeapUsableSize(NULL, memory), 0);
}

static void no_heap_add(void)
{
    announce_heap("HmmHeapAdd", memory, "not a heap", "", NULL);
    EXPECT(!HmmHeapAdd(NULL, memory, sizeof memory));
}

static void no_heap_stats(void)
{
    HmmHeapStats stats;
    announce_heap("HmmHeapGetStats", NULL, "not a heap", "", NULL);
    HmmHeapGetStats(NULL, &stats);
}

static void no_heap_walk(void)
{
    announce_heap("HmmHeapWalk", NULL, "not a heap", "", NULL);
    EXPECT(!HmmHeapWalk(NULL, visit_nothing, NULL));
}

static void no_heap_check(void)
{
    announce_heap("HmmHeapCheck", NULL, "not a heap", "", NULL);
    EXPECT(!HmmHeapCheck(NULL));
}

static void no_heap_destroy(void)
{
    HmmHeapDestroy(NULL);
}

static void a_heap_never_made(void)
{
    HmmHeap *heap = (HmmHeap *)(void *)memory;
    announce_heap("HmmHeapAlloc", NULL, "not a heap", "", heap);
    EXPECT(HmmHeapAlloc(heap, 10) == NULL);
}

static void the_memory_instead_of_the_heap(void)
{
    (void)heap_make();
    announce_heap("HmmHeapAlloc", NULL, "not a heap", "", (HmmHeap *)(void *)memory);
    EXPECT(HmmHeapAlloc((HmmHeap *)(void *)memory, 10) == NULL);
}

/* ------------------------------------------------------------------------- a call within a call */

static bool visit_and_allocate(void *ptr, size_t usable_bytes, bool is_used, void *context)
{
    (void)ptr;
    (void)usable_bytes;
    (void)is_used;
    return HmmHeapAlloc(context, 10) != NULL;
}

/* With one thread it is clear who holds the lock, and waiting for it would be for ever. */
static void a_visitor_that_allocates(void)
{
    HmmHeap *heap = heap_make();
    EXPECT(HmmHeapAlloc(heap, 10) != NULL);
    announce_line("hmm: lock(ADDRESS): heap call inside a heap call: thread %d\n", (int)gettid());
    EXPECT(HmmHeapWalk(heap, visit_and_allocate, heap));
}

/* ------------------------------------------------------------------------------------------- main
 */

enum levels { NO_LEVEL, ALL_LEVELS };

struct crime {
    const char *name;
    void (*commit)(void);
    enum levels levels;
};

#define CRIME(function, levels)                                                                    \
    {                                                                                              \
#function, function, levels                                                                \
    }

static const struct crime crimes[] = {
    CRIME(own_tag, ALL_LEVELS),
    CRIME(next_tag, ALL_LEVELS),
    CRIME(next_tag_then_realloc, ALL_LEVELS),
    CRIME(next_tag_then_usable_size, ALL_LEVELS),
    CRIME(tag_behind_the_next, ALL_LEVELS),
    CRIME(far_tag, ALL_LEVELS),
    CRIME(far_tag_then_alloc, ALL_LEVELS),
    CRIME(free_twice, ALL_LEVELS),
    CRIME(free_twice_after_merging, ALL_LEVELS),
    CRIME(free_inside, ALL_LEVELS),
    CRIME(free_misaligned, ALL_LEVELS),
    CRIME(links, ALL_LEVELS),
    CRIME(wild_links, ALL_LEVELS),
    CRIME(wild_links_on_the_way, ALL_LEVELS),
    CRIME(free_of_the_stack, ALL_LEVELS),
    CRIME(check_sees_damage, ALL_LEVELS),
    CRIME(free_to_another_created_heap, ALL_LEVELS),
    CRIME(realloc_in_another_created_heap, NO_LEVEL),
    CRIME(usable_size_in_another_created_heap, NO_LEVEL),
    CRIME(free_to_the_fifth_heap, NO_LEVEL),
    CRIME(heap_free_of_mallocs, ALL_LEVELS),
    CRIME(array_heap_free_of_mallocs, NO_LEVEL),
    CRIME(free_of_a_heaps, NO_LEVEL),
    CRIME(realloc_of_a_heaps, NO_LEVEL),
    CRIME(free_to_another_array_heap, NO_LEVEL),
    CRIME(heap_free_of_the_stack, NO_LEVEL),
    CRIME(heap_free_of_static_memory, NO_LEVEL),
    CRIME(heap_free_above_mallocs_break, NO_LEVEL),
    CRIME(heap_free_of_the_heap_itself, NO_LEVEL),
    CRIME(destroyed_alloc, NO_LEVEL),
    CRIME(destroyed_calloc, NO_LEVEL),
    CRIME(destroyed_aligned_alloc, NO_LEVEL),
    CRIME(destroyed_realloc, NO_LEVEL),
    CRIME(destroyed_free, NO_LEVEL),
    CRIME(destroyed_usable_size, NO_LEVEL),
    CRIME(destroyed_add, NO_LEVEL),
    CRIME(destroyed_stats, NO_LEVEL),
    CRIME(destroyed_check, NO_LEVEL),
    CRIME(destroyed_destroy, NO_LEVEL),
    CRIME(destroyed_created_heaps_block_freed, NO_LEVEL),
    CRIME(no_heap_alloc, NO_LEVEL),
    CRIME(no_heap_calloc, NO_LEVEL),
    CRIME(no_heap_aligned_alloc, NO_LEVEL),
    CRIME(no_heap_realloc, NO_LEVEL),
    CRIME(no_heap_free, NO_LEVEL),
    CRIME(no_heap_free_of_nothing, NO_LEVEL),
    CRIME(no_heap_usable_size, NO_LEVEL),
    CRIME(no_heap_add, NO_LEVEL),
    CRIME(no_heap_stats, NO_LEVEL),
    CRIME(no_heap_walk, NO_LEVEL),
    CRIME(no_heap_check, NO_LEVEL),
    CRIME(no_heap_destroy, NO_LEVEL),
    CRIME(a_heap_never_made, NO_LEVEL),
    CRIME(the_memory_instead_of_the_heap, NO_LEVEL),
    CRIME(a_visitor_that_allocates, NO_LEVEL),
};

static const char *const levels[] = {[HMM_INTEGRITY_TAG] = "tag",
                                     [HMM_INTEGRITY_NONE] = "none",
                                     [HMM_INTEGRITY_NEIGHBOURS] = "neighbours",
                                     [HMM_INTEGRITY_FULL] = "full"};

enum { LEVELS = sizeof levels / sizeof levels[0] };

static void crime_list(const struct crime *crime)
{
    if (crime->levels == NO_LEVEL) {
        puts(crime->name);
    }
    for (int i = 0; crime->levels == ALL_LEVELS && i < LEVELS; i++) {
        printf("%s %s\n", crime->name, levels[i]);
    }
}

int main(int argc, char **argv)
{
    announce_start();
    for (int i = 0; argc > 2 && i < LEVELS; i++) {
        if (strcmp(argv[2], levels[i]) == 0) {
            level = (HmmIntegrity)i;
        }
    }
    for (size_t i = 0; i < sizeof crimes / sizeof crimes[0]; i++) {
        if (argc < 2) {
            crime_list(&crimes[i]);
        } else if (strcmp(argv[1], crimes[i].name) == 0) {
            crimes[i].commit();
            return case_status();
        }
    }
    return argc < 2 ? EXIT_SUCCESS : EXIT_FAILURE;
}
