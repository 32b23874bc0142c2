/*
 * heap_guard_crimes.c - how to break a hardened heap of one's own, and what it says of it.
 *
 * heap_guard_crimes lists its crimes, each with a level and a size; heap_guard_crimes CRIME LEVEL
 * SIZE commits one. With HARDENING=process in the environment the heap takes its level from
 * HMM_OPTIONS, which must then say the same. With sites=1 there each crime also announces in which
 * functions its block was allocated and freed, as
 *     hmm: freed at: FUNCTION
 */
#include "announce.h"
#include "hmm.h"

enum {
    MEMORY_BYTES = 4 << 20,
    SEAL_BYTES = 8,
    RECORD_BYTES = 16, /* of the sites, before the seal */
    BLOCK_UNIT = 2 * TAG_BYTES,
    LEVELS = 2
};

static _Alignas(64) unsigned char memory[MEMORY_BYTES];
static int level; /* from the command line, as is the size that is asked for */
static size_t size_bytes;

static bool has_sites(void)
{
    const char *options = getenv("HMM_OPTIONS");
    return options != NULL && strstr(options, "sites=1") != NULL;
}

/* What a block has behind its content. */
static size_t trailer_bytes(void)
{
    return SEAL_BYTES + (has_sites() ? RECORD_BYTES : 0);
}

static size_t block_bytes_for(size_t bytes)
{
    return (bytes + trailer_bytes() + TAG_BYTES + BLOCK_UNIT - 1) / BLOCK_UNIT * BLOCK_UNIT;
}

/* Evidence: `count` blocks in a row that are one now, from that of `ptr` on. */
static const char *blocks_at(const void *ptr, size_t count)
{
    return block_of_bytes(ptr, count * block_bytes_for(size_bytes));
}

/* Blocks side by side in a new heap; the ends keep those between from special places. */
enum { ROW_BLOCKS = 7 };

struct row {
    HmmHeap *heap;
    char *blocks[ROW_BLOCKS];
};

/* The first frames of all sites: whoever calls the library does nothing else. */
static __attribute__((noinline)) char *block_make(HmmHeap *heap)
{
    char *ptr = HmmHeapAlloc(heap, size_bytes);
    REQUIRE(ptr != NULL);
    return ptr;
}

static __attribute__((noinline)) void block_free(HmmHeap *heap, void *ptr)
{
    HmmHeapFree(heap, ptr);
    REQUIRE(ptr != NULL);
}

static __attribute__((noinline)) char *block_shrink(HmmHeap *heap, void *ptr, size_t bytes)
{
    char *resized = HmmHeapRealloc(heap, ptr, bytes);
    REQUIRE(resized == ptr);
    return resized;
}

static struct row row_make(HmmIntegrity integrity)
{
    const char *source = getenv("HARDENING");
    HmmHeapOptions options = {.integrity = integrity,
                              .hardening =
                                  level == 1 ? HMM_HARDENING_SEALS : HMM_HARDENING_QUARANTINE};
    if (source != NULL && strcmp(source, "process") == 0) {
        options.hardening = HMM_HARDENING_PROCESS;
    }
    memset(memory, 0xee, sizeof memory);
    struct row row = {.heap = HmmHeapInit(memory, sizeof memory, &options)};
    REQUIRE(row.heap != NULL);
    for (int i = 0; i < ROW_BLOCKS; i++) {
        row.blocks[i] = block_make(row.heap);
        REQUIRE(i == 0 || row.blocks[i] == row.blocks[i - 1] + block_bytes_for(size_bytes));
        memset(row.blocks[i], 0x5a, size_bytes);
    }
    return row;
}

/* Which functions are known to have had the block: none, or those that it was allocated
 * and freed by. */
struct history {
    const char *allocated_by;
    const char *freed_by;
};

static const struct history unknown = {NULL, NULL};
static const struct history live = {"block_make", NULL};
static const struct history freed = {"block_make", "block_free"};

static void announce_history(struct history history)
{
    if (has_sites() && history.freed_by != NULL) {
        announce_line("hmm: freed at: %s\n", history.freed_by);
    }
    if (has_sites() && history.allocated_by != NULL) {
        announce_line("hmm: allocated at: %s\n", history.allocated_by);
    }
}

static void accuse(const struct row *row, struct history history, const char *call, const void *ptr,
                   const char *what, const char *evidence)
{
    announce_line("hmm: %s(0x%lx): %s: %sheap 0x%lx, thread %d\n", call, (unsigned long)ptr, what,
                  evidence, (unsigned long)row->heap, (int)gettid());
    announce_history(history);
}

static void accuse_byte(const struct row *row, struct history history, const char *call,
                        const void *ptr, const char *what, size_t byte, const char *evidence)
{
    char text[160];
    snprintf(text, sizeof text, "byte %zu, %s", byte, evidence);
    accuse(row, history, call, ptr, what, text);
}

/* --------------------------------------------------------------------------------- freed blocks */

static void free_twice(void)
{
    struct row row = row_make(HMM_INTEGRITY_TAG);
    accuse(&row, freed, "HmmHeapFree", row.blocks[2], "double free", blocks_at(row.blocks[2], 1));
    block_free(row.heap, row.blocks[2]);
    HmmHeapFree(row.heap, row.blocks[2]);
}

static void free_twice_although_trusted(void)
{
    struct row row = row_make(HMM_INTEGRITY_NONE);
    accuse(&row, freed, "HmmHeapFree", row.blocks[2], "double free", blocks_at(row.blocks[2], 1));
    block_free(row.heap, row.blocks[2]);
    HmmHeapFree(row.heap, row.blocks[2]);
}

/* What waits in quarantine is a block of its own. */
static void free_twice_when_it_was_swallowed(void)
{
    struct row row = row_make(HMM_INTEGRITY_NEIGHBOURS);
    accuse(&row, freed, "HmmHeapFree", row.blocks[2], "double free",
           level == 1 ? blocks_at(row.blocks[1], 3) : blocks_at(row.blocks[2], 1));
    block_free(row.heap, row.blocks[1]);
    block_free(row.heap, row.blocks[2]);
    block_free(row.heap, row.blocks[3]);
    HmmHeapFree(row.heap, row.blocks[2]);
}

static void free_twice_when_it_was_swallowed_from_before(void)
{
    struct row row = row_make(HMM_INTEGRITY_TAG);
    accuse(&row, freed, "HmmHeapFree", row.blocks[3], "double free",
           level == 1 ? blocks_at(row.blocks[2], 2) : blocks_at(row.blocks[3], 1));
    block_free(row.heap, row.blocks[3]);
    block_free(row.heap, row.blocks[2]);
    HmmHeapFree(row.heap, row.blocks[3]);
}

static void realloc_of_a_freed_block(void)
{
    struct row row = row_make(HMM_INTEGRITY_TAG);
    accuse(&row, freed, "HmmHeapRealloc", row.blocks[2], "freed block",
           blocks_at(row.blocks[2], 1));
    block_free(row.heap, row.blocks[2]);
    EXPECT(HmmHeapRealloc(row.heap, row.blocks[2], size_bytes + 1) == NULL);
}

static void usable_size_of_a_swallowed_block(void)
{
    struct row row = row_make(HMM_INTEGRITY_TAG);
    accuse(&row, freed, "HmmHeapUsableSize", row.blocks[2], "freed block",
           level == 1 ? blocks_at(row.blocks[1], 2) : blocks_at(row.blocks[2], 1));
    block_free(row.heap, row.blocks[1]);
    block_free(row.heap, row.blocks[2]);
    EXPECT_EQUAL(HmmHeapUsableSize(row.heap, row.blocks[2]), 0);
}

static void free_inside(void)
{
    struct row row = row_make(HMM_INTEGRITY_TAG);
    accuse(&row, live, "HmmHeapFree", row.blocks[2] + 16, "invalid pointer, inside a block",
           blocks_at(row.blocks[2], 1));
    HmmHeapFree(row.heap, row.blocks[2] + 16);
}

/* Content that looks like a tag, because it is a copy of one. */
static void free_of_a_forged_block(void)
{
    struct row row = row_make(HMM_INTEGRITY_TAG);
    accuse(&row, live, "HmmHeapFree", row.blocks[2] + 16, "invalid pointer, inside a block",
           blocks_at(row.blocks[2], 1));
    memcpy(row.blocks[2] + 16 - TAG_BYTES, row.blocks[2] - TAG_BYTES, TAG_BYTES);
    HmmHeapFree(row.heap, row.blocks[2] + 16);
}

/* --------------------------------------------------------------------------- writes past an end */

static void overflow(size_t from_bytes, size_t bytes, const char *call)
{
    struct row row = row_make(HMM_INTEGRITY_TAG);
    char *p = row.blocks[2];
    accuse_byte(&row, live, call, p, "write past the end", size_bytes + from_bytes,
                blocks_at(p, 1));
    damage(p + size_bytes + from_bytes, bytes);
    if (strcmp(call, "HmmHeapFree") == 0) {
        HmmHeapFree(row.heap, p);
    } else if (strcmp(call, "HmmHeapRealloc") == 0) {
        EXPECT(HmmHeapRealloc(row.heap, p, 2 * size_bytes) == NULL);
    } else {
        EXPECT_EQUAL(HmmHeapUsableSize(row.heap, p), 0);
    }
}

static void overflow_by_1(void)
{
    overflow(0, 1, "HmmHeapFree");
}

static void overflow_by_8(void)
{
    overflow(0, 8, "HmmHeapFree");
}

/* Over the seal and the next block's tag: nothing says any longer where the block ended, so the
 * first that was not the caller's is the evidence. */
static void overflow_by_32(void)
{
    struct row row = row_make(HMM_INTEGRITY_TAG);
    char *p = row.blocks[2];
    accuse_byte(&row, has_sites() ? unknown : live, "HmmHeapFree", p, "write past the end",
                block_bytes_for(size_bytes) - TAG_BYTES - trailer_bytes(), blocks_at(p, 1));
    damage(p + size_bytes, 24 + trailer_bytes());
    HmmHeapFree(row.heap, p);
}

static void overflow_then_realloc(void)
{
    overflow(0, 8, "HmmHeapRealloc");
}

static void overflow_then_usable_size(void)
{
    overflow(0, 1, "HmmHeapUsableSize");
}

static void a_write_to_the_seals_first_byte(void)
{
    overflow(block_bytes_for(size_bytes) - TAG_BYTES - SEAL_BYTES - size_bytes, 1, "HmmHeapFree");
}

/* Zeros where the seal was make a block neither free nor live. */
static void overflow_with_zeros(void)
{
    struct row row = row_make(HMM_INTEGRITY_TAG);
    char *p = row.blocks[2];
    size_t end_bytes = block_bytes_for(size_bytes) - TAG_BYTES;
    accuse_byte(&row, unknown, "HmmHeapFree", p, "write past the end", end_bytes - trailer_bytes(),
                blocks_at(p, 1));
    memset(p + size_bytes, 0, end_bytes - size_bytes);
    HmmHeapFree(row.heap, p);
}

/* What was kept of its making is behind the block, and a write that ends there is seen. */
static void overflow_up_to_the_seal(void)
{
    struct row row = row_make(HMM_INTEGRITY_TAG);
    char *p = row.blocks[2];
    size_t past_bytes = block_bytes_for(size_bytes) - TAG_BYTES - SEAL_BYTES - size_bytes;
    accuse_byte(&row, has_sites() ? unknown : live, "HmmHeapFree", p, "write past the end",
                size_bytes, blocks_at(p, 1));
    damage(p + size_bytes, past_bytes);
    HmmHeapFree(row.heap, p);
}

/* What a block no longer has is behind it, whether or not it could be split off. */
static void overflow_after_it_shrank_to(size_t less_bytes)
{
    struct row row = row_make(HMM_INTEGRITY_TAG);
    char *p = row.blocks[2];
    size_t own_bytes = block_bytes_for(size_bytes);
    size_t smaller_bytes = block_bytes_for(less_bytes);
    bool is_split = own_bytes - smaller_bytes >= 2 * BLOCK_UNIT;
    const struct history shrunk = {"block_shrink", NULL};
    p = block_shrink(row.heap, p, less_bytes);
    accuse_byte(&row, shrunk, "HmmHeapFree", p, "write past the end", less_bytes,
                block_of_bytes(p, is_split ? smaller_bytes : own_bytes));
    damage(p + less_bytes, 1);
    HmmHeapFree(row.heap, p);
}

static void overflow_after_it_shrank_a_little(void)
{
    overflow_after_it_shrank_to(size_bytes - 9);
}

static void overflow_after_it_shrank_to_half(void)
{
    overflow_after_it_shrank_to(size_bytes / 2 - 1);
}

static void underflow_by_8(void)
{
    struct row row = row_make(HMM_INTEGRITY_TAG);
    accuse(&row, unknown, "HmmHeapFree", row.blocks[2], "damaged tag", tag_at(row.blocks[2]));
    damage(row.blocks[2] - 8, 8);
    HmmHeapFree(row.heap, row.blocks[2]);
}

/* Over the tag into the seal before it. */
static void underflow_seen_by_the_block_before(void)
{
    struct row row = row_make(HMM_INTEGRITY_TAG);
    char *p = row.blocks[2];
    accuse_byte(&row, live, "HmmHeapFree", p, "write past the end",
                block_bytes_for(size_bytes) - TAG_BYTES - SEAL_BYTES, blocks_at(p, 1));
    damage(row.blocks[3] - TAG_BYTES - SEAL_BYTES, SEAL_BYTES);
    HmmHeapFree(row.heap, p);
}

/* -------------------------------------------------------------------------- writes after a free */

/* Level 1 looks when the memory is handed out again; level 2 when it leaves the quarantine, which
 * whoever asks for numbers empties. */
static void write_after_free_at(size_t byte)
{
    struct row row = row_make(HMM_INTEGRITY_TAG);
    HmmHeapStats stats;
    char *p = row.blocks[2];
    accuse_byte(&row, freed, level == 1 ? "HmmHeapAlloc" : "HmmHeapGetStats", p, "write after free",
                byte, blocks_at(p, 1));
    block_free(row.heap, p);
    damage(p + byte, 1);
    if (level > 1) {
        HmmHeapGetStats(row.heap, &stats);
    }
    EXPECT(HmmHeapAlloc(row.heap, size_bytes) == NULL);
}

static void write_after_free_at_16(void)
{
    write_after_free_at(16);
}

static void write_after_free_in_the_middle(void)
{
    write_after_free_at(size_bytes / 2 + 3);
}

static void write_after_free_at_the_end(void)
{
    write_after_free_at(size_bytes - 1);
}

/* The block before was freed first, and the free block begins there; a mark says whose
 * memory it was. */
static void write_after_free_into_a_swallowed_block(void)
{
    struct row row = row_make(HMM_INTEGRITY_TAG);
    HmmHeapStats stats;
    char *p = row.blocks[2];
    accuse_byte(&row, freed, level == 1 ? "HmmHeapAlloc" : "HmmHeapGetStats", p, "write after free",
                20, level == 1 ? blocks_at(row.blocks[1], 2) : blocks_at(p, 1));
    block_free(row.heap, row.blocks[1]);
    block_free(row.heap, p);
    damage(p + 20, 2);
    if (level > 1) {
        HmmHeapGetStats(row.heap, &stats);
    }
    EXPECT(HmmHeapAlloc(row.heap, 2 * size_bytes) == NULL);
}

/* A freed block of the row, which is not held back any longer: its first two words are links. */
static char *released(struct row *row, int index)
{
    HmmHeapStats stats;
    block_free(row->heap, row->blocks[index]);
    HmmHeapGetStats(row->heap, &stats);
    return row->blocks[index];
}

/* The first two words of what is free are links. What they were is known from those that
 * they lead to. */
static void write_after_free_over_links(int value, size_t from_bytes, size_t bytes)
{
    struct row row = row_make(HMM_INTEGRITY_TAG);
    char *p = released(&row, 2);
    accuse_byte(&row, freed, "HmmHeapAlloc", p, "write after free", from_bytes, blocks_at(p, 1));
    memset(p + from_bytes, value, bytes);
    EXPECT(HmmHeapAlloc(row.heap, size_bytes) == NULL);
}

static void write_after_free_at_0(void)
{
    write_after_free_over_links('A', 0, 16);
}

static void write_after_free_at_8(void)
{
    write_after_free_over_links('A', sizeof(void *), 1);
}

/* Of what waits they are bytes as good as any. */
static void write_after_free_at_0_while_it_waits(void)
{
    struct row row = row_make(HMM_INTEGRITY_NEIGHBOURS);
    HmmHeapStats stats;
    char *p = row.blocks[2];
    accuse_byte(&row, freed, "HmmHeapGetStats", p, "write after free", 0, blocks_at(p, 1));
    block_free(row.heap, p);
    memset(p, 'A', 16);
    HmmHeapGetStats(row.heap, &stats);
}

/* Two free blocks of one size name each other. */
static void write_after_free_at_3_of_a_list(void)
{
    struct row row = row_make(HMM_INTEGRITY_TAG);
    (void)released(&row, 4);
    char *last = released(&row, 2);
    accuse_byte(&row, freed, "HmmHeapAlloc", last, "write after free", 3, blocks_at(last, 1));
    damage(last + 3, 1);
    EXPECT(HmmHeapAlloc(row.heap, size_bytes) == NULL);
}

/* Of two neighbours in a list it is not the one that is looked at. */
static void write_after_free_into_the_next_of_a_list(void)
{
    struct row row = row_make(HMM_INTEGRITY_TAG);
    char *p = released(&row, 4);
    (void)released(&row, 2);
    accuse_byte(&row, freed, "HmmHeapAlloc", p, "write after free", sizeof(void *) + 2,
                blocks_at(p, 1));
    damage(p + sizeof(void *) + 2, 1);
    EXPECT(HmmHeapAlloc(row.heap, size_bytes) == NULL);
}

/* Links that are cleared look like those of a list's end. */
static void write_after_free_of_zeros(void)
{
    struct row row = row_make(HMM_INTEGRITY_TAG);
    char *p = released(&row, 4);
    char *last = released(&row, 2);
    accuse_byte(&row, freed, "HmmHeapFree", last, "write after free", 0, blocks_at(last, 1));
    REQUIRE(((void **)(void *)last)[0] == p - TAG_BYTES);
    memset(last, 0, 16);
    HmmHeapFree(row.heap, row.blocks[5]);
}

/* Who frees the block behind looks at this one first. */
static void write_after_free_seen_by_the_block_behind(void)
{
    struct row row = row_make(HMM_INTEGRITY_TAG);
    char *p = released(&row, 2);
    accuse_byte(&row, freed, "HmmHeapFree", p, "write after free", 1, blocks_at(p, 1));
    damage(p + 1, 1);
    HmmHeapFree(row.heap, row.blocks[3]);
}

/* The last word of what is free repeats its size. */
static void write_after_free_to_its_last_word(void)
{
    struct row row = row_make(HMM_INTEGRITY_TAG);
    char *p = released(&row, 2);
    size_t byte = block_bytes_for(size_bytes) - 2 * TAG_BYTES + 1;
    accuse_byte(&row, freed, "HmmHeapFree", p, "write after free", byte, blocks_at(p, 1));
    damage(p + byte, 1);
    HmmHeapFree(row.heap, row.blocks[3]);
}

static void write_after_free_to_the_last_word_seen_by_who_allocates(void)
{
    struct row row = row_make(HMM_INTEGRITY_TAG);
    char *p = released(&row, 2);
    size_t byte = block_bytes_for(size_bytes) - 2 * TAG_BYTES;
    accuse_byte(&row, freed, "HmmHeapAlloc", p, "write after free", byte, blocks_at(p, 1));
    damage(p + byte, 8);
    EXPECT(HmmHeapAlloc(row.heap, size_bytes) == NULL);
}

/* A block that grows takes what is free behind it. */
static void write_after_free_seen_by_who_grows(void)
{
    struct row row = row_make(HMM_INTEGRITY_TAG);
    char *p = row.blocks[3];
    HmmHeapStats stats;
    block_free(row.heap, p);
    HmmHeapGetStats(row.heap, &stats); /* it need not wait any longer */
    accuse_byte(&row, freed, "HmmHeapRealloc", p, "write after free", 17, blocks_at(p, 1));
    damage(p + 17, 1);
    EXPECT(HmmHeapRealloc(row.heap, row.blocks[2], size_bytes + 32) == NULL);
}

/* Sooner or later another block takes its place in the quarantine. */
static void write_after_free_seen_by_another_free(void)
{
    struct row row = row_make(HMM_INTEGRITY_TAG);
    char *p = row.blocks[2];
    accuse_byte(&row, freed, "HmmHeapFree", p, "write after free", size_bytes / 2, blocks_at(p, 1));
    block_free(row.heap, p);
    damage(p + size_bytes / 2, 1);
    for (int i = 0; i < 100000; i++) {
        HmmHeapFree(row.heap, HmmHeapAlloc(row.heap, 24));
    }
}

/* When there is no room, what waits is used, and so looked at. */
static void write_after_free_seen_when_memory_is_short(void)
{
    struct row row = row_make(HMM_INTEGRITY_TAG);
    char *p = row.blocks[2];
    accuse_byte(&row, freed, "HmmHeapAlloc", p, "write after free", size_bytes / 2,
                blocks_at(p, 1));
    block_free(row.heap, p);
    damage(p + size_bytes / 2, 1);
    EXPECT(HmmHeapAlloc(row.heap, MEMORY_BYTES) == NULL);
}

/* ----------------------------------------------------------------------------------------- main */

struct crime {
    const char *name;
    void (*commit)(void);
    int level_min;
};

#define CRIME(function, level_min)                                                                 \
    {                                                                                              \
#function, function, level_min                                                             \
    }

static const struct crime crimes[] = {
    CRIME(free_twice, 1),
    CRIME(free_twice_although_trusted, 1),
    CRIME(free_twice_when_it_was_swallowed, 1),
    CRIME(free_twice_when_it_was_swallowed_from_before, 1),
    CRIME(realloc_of_a_freed_block, 1),
    CRIME(usable_size_of_a_swallowed_block, 1),
    CRIME(free_inside, 1),
    CRIME(free_of_a_forged_block, 1),
    CRIME(overflow_by_1, 1),
    CRIME(overflow_by_8, 1),
    CRIME(overflow_by_32, 1),
    CRIME(overflow_then_realloc, 1),
    CRIME(overflow_then_usable_size, 1),
    CRIME(a_write_to_the_seals_first_byte, 1),
    CRIME(overflow_with_zeros, 1),
    CRIME(overflow_up_to_the_seal, 1),
    CRIME(overflow_after_it_shrank_a_little, 1),
    CRIME(overflow_after_it_shrank_to_half, 1),
    CRIME(underflow_by_8, 1),
    CRIME(underflow_seen_by_the_block_before, 1),
    CRIME(write_after_free_at_0, 1),
    CRIME(write_after_free_at_8, 1),
    CRIME(write_after_free_at_0_while_it_waits, 2),
    CRIME(write_after_free_at_3_of_a_list, 1),
    CRIME(write_after_free_into_the_next_of_a_list, 1),
    CRIME(write_after_free_of_zeros, 1),
    CRIME(write_after_free_seen_by_the_block_behind, 1),
    CRIME(write_after_free_to_its_last_word, 1),
    CRIME(write_after_free_to_the_last_word_seen_by_who_allocates, 1),
    CRIME(write_after_free_at_16, 1),
    CRIME(write_after_free_in_the_middle, 1),
    CRIME(write_after_free_at_the_end, 1),
    CRIME(write_after_free_into_a_swallowed_block, 1),
    CRIME(write_after_free_seen_by_who_grows, 1),
    CRIME(write_after_free_seen_by_another_free, 2),
    CRIME(write_after_free_seen_when_memory_is_short, 2),
};

static void crime_list(const struct crime *crime)
{
    static const size_t sizes[] = {40, 3000, 100001};
    for (int at_level = crime->level_min; at_level <= LEVELS; at_level++) {
        for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
            printf("%s %d %zu\n", crime->name, at_level, sizes[i]);
        }
    }
}

int main(int argc, char **argv)
{
    announce_start();
    level = argc > 2 ? atoi(argv[2]) : 0;
    size_bytes = argc > 3 ? strtoul(argv[3], NULL, 10) : 0;
    for (size_t i = 0; i < sizeof crimes / sizeof crimes[0]; i++) {
        if (argc < 2) {
            crime_list(&crimes[i]);
        } else if (argc > 3 && strcmp(argv[1], crimes[i].name) == 0) {
            crimes[i].commit();
            return case_status();
        }
    }
    return argc < 2 ? EXIT_SUCCESS : EXIT_FAILURE;
}
