/*
 * leaks.c - finds blocks that nobody can reach any more, and reports them. See leaks.h.
 *
 *     walk -> blocks, by address -> marked from the roots, then from each other -> by kind and site
 *
 * leaks_roots.c knows the roots. All that the search needs lies in one reservation, which is given
 * back at the end.
 */
#include "leaks.h"
#include "leaks_roots.h"
#include "os.h"
#include "sites.h"
#include "text.h"

#include <stdatomic.h>

enum {
    CHUNK_BYTES = 64 * 1024,
    /* Blocks may appear between counting and looking. */
    SPARE_COUNT = 1024,
};

/* The order of reporting. Until it is marked a block is lost. */
enum fate { FATE_DIRECT, FATE_INDIRECT, FATE_REACHABLE, FATE_COUNT };

/* A block; in the end, blocks of one fate and site. */
struct leaked {
    uintptr_t start; /* in the end: how many blocks */
    size_t bytes;
    uint32_t site;
    uint32_t fate;
};

struct search {
    struct leaked *blocks; /* by address */
    size_t block_count;
    size_t block_room;
    uint32_t *queue; /* marked, and still to be looked into: each block once */
    size_t queue_count;
    uintptr_t *chunk;    /* CHUNK_BYTES of memory that is being looked at */
    struct range heap;   /* from the first block to the end of the last one */
    struct range memory; /* of all this */
};

/* ----------------------------------------------------------------------------------- collecting */

static bool block_count(void *ptr, size_t request_bytes, uint32_t site, void *context)
{
    (void)ptr;
    (void)request_bytes;
    (void)site;
    *(size_t *)context += 1;
    return true;
}

static bool block_collect(void *ptr, size_t request_bytes, uint32_t site, void *context)
{
    struct search *search = context;
    if (search->block_count == search->block_room) {
        return false;
    }
    search->blocks[search->block_count++] =
        (struct leaked){(uintptr_t)ptr, request_bytes, site, FATE_DIRECT};
    return true;
}

/* Heapsort (J. W. J. Williams, 1964): in place, no recursion, no bad case. */
typedef bool (*leaked_order)(const struct leaked *a, const struct leaked *b);

static void sift_down(struct leaked *blocks, size_t root, size_t count, leaked_order is_before)
{
    struct leaked moving = blocks[root];
    size_t child = 2 * root + 1;
    while (child < count) {
        child += child + 1 < count && is_before(&blocks[child], &blocks[child + 1]);
        if (!is_before(&moving, &blocks[child])) {
            break;
        }
        blocks[root] = blocks[child];
        root = child;
        child = 2 * root + 1;
    }
    blocks[root] = moving;
}

static void sort(struct leaked *blocks, size_t count, leaked_order is_before)
{
    for (size_t root = count / 2; root-- > 0;) {
        sift_down(blocks, root, count, is_before);
    }
    for (size_t end = count; end-- > 1;) {
        struct leaked largest = blocks[0];
        blocks[0] = blocks[end];
        blocks[end] = largest;
        sift_down(blocks, 0, end, is_before);
    }
}

static bool is_lower(const struct leaked *a, const struct leaked *b)
{
    return a->start < b->start;
}

/* Room for so many blocks. false: there is none. */
static bool search_reserve(struct search *search, size_t count)
{
    const size_t page_bytes = hmm_os_page_bytes();
    const size_t block_bytes = align_up(count * sizeof(struct leaked), page_bytes);
    const size_t queue_bytes = align_up(count * sizeof(uint32_t), page_bytes);
    const size_t bytes = block_bytes + queue_bytes + CHUNK_BYTES;
    char *memory = count <= UINT32_MAX ? hmm_os_reserve(bytes, bytes) : NULL;
    if (memory == NULL) {
        return false;
    }
    *search = (struct search){
        .blocks = (struct leaked *)(void *)memory,
        .block_room = count,
        .queue = (uint32_t *)(void *)(memory + block_bytes),
        .chunk = (uintptr_t *)(void *)(memory + block_bytes + queue_bytes),
        .memory = {(uintptr_t)memory, (uintptr_t)memory + bytes},
    };
    return true;
}

static bool search_open(struct search *search, leaks_walk walk)
{
    size_t count = SPARE_COUNT;
    walk(block_count, &count);
    if (!search_reserve(search, count)) {
        return false;
    }
    walk(block_collect, search);
    sort(search->blocks, search->block_count, is_lower);
    if (search->block_count != 0) {
        const struct leaked *last = &search->blocks[search->block_count - 1];
        search->heap = (struct range){search->blocks[0].start, last->start + last->bytes + 1};
    }
    return true;
}

static void search_close(struct search *search)
{
    hmm_os_release((void *)search->memory.start, search->memory.end - search->memory.start);
}

/* -------------------------------------------------------------------------------------- marking */

/* The block that an address points into, NULL: none. One of 0 bytes is pointed to by its start. */
static struct leaked *block_at_address(const struct search *search, uintptr_t address)
{
    size_t low = 0;
    size_t high = search->block_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (search->blocks[middle].start <= address) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    struct leaked *block = low != 0 ? &search->blocks[low - 1] : NULL;
    bool is_inside = block != NULL && address - block->start < size_max(block->bytes, 1);
    return is_inside ? block : NULL;
}

static void mark_reachable(struct search *search, struct leaked *block)
{
    if (block->fate != FATE_REACHABLE) {
        block->fate = FATE_REACHABLE;
        search->queue[search->queue_count++] = (uint32_t)(block - search->blocks);
    }
}

/* What a word that points to a block says about it. `from`: the block that the word lies in,
 * NULL: a root. */
static void word_mark(struct search *search, uintptr_t word, const struct leaked *from)
{
    if (word < search->heap.start || word >= search->heap.end) {
        return;
    }
    struct leaked *block = block_at_address(search, word);
    if (block == NULL || block == from) {
        return;
    }
    if (from == NULL || from->fate == FATE_REACHABLE) {
        mark_reachable(search, block);
    } else if (block->fate == FATE_DIRECT) {
        block->fate = FATE_INDIRECT;
    }
}

/* The pages may go while they are looked at: what cannot be copied points nowhere. */
static void memory_mark(struct search *search, struct range range, const struct leaked *from)
{
    uintptr_t start = align_up(range.start, sizeof(uintptr_t));
    while (start + sizeof(uintptr_t) <= range.end) {
        size_t bytes = size_min(range.end - start, CHUNK_BYTES);
        size_t copied_bytes = hmm_os_copy(search->chunk, (const void *)start, bytes);
        for (size_t i = 0; i < copied_bytes / sizeof(uintptr_t); i++) {
            word_mark(search, search->chunk[i], from);
        }
        size_t page_bytes = hmm_os_page_bytes();
        start = copied_bytes == bytes ? start + align_down(bytes, sizeof(uintptr_t))
                                      : align_down(start + copied_bytes, page_bytes) + page_bytes;
    }
}

static void queue_drain(struct search *search)
{
    while (search->queue_count != 0) {
        const struct leaked *block = &search->blocks[search->queue[--search->queue_count]];
        memory_mark(search, (struct range){block->start, block->start + block->bytes}, block);
    }
}

static void root_mark(struct range root, void *context)
{
    struct search *search = context;
    memory_mark(search, root, NULL);
    queue_drain(search);
}

/* What is lost, but could be reached from something else that is lost, would be free with that. */
static void lost_mark(struct search *search)
{
    for (size_t i = 0; i < search->block_count; i++) {
        const struct leaked *block = &search->blocks[i];
        if (block->fate != FATE_REACHABLE) {
            memory_mark(search, (struct range){block->start, block->start + block->bytes}, block);
        }
    }
}

/* ------------------------------------------------------------------------------------ reporting */

struct report {
    int file;
    struct text text;
};

static void report_flush(struct report *report)
{
    (void)hmm_os_write_all(report->file, report->text.bytes, report->text.length);
    hmm_text_clear(&report->text);
}

static bool is_grouped_before(const struct leaked *a, const struct leaked *b)
{
    return a->fate != b->fate ? a->fate < b->fate : a->site < b->site;
}

static bool is_reported_before(const struct leaked *a, const struct leaked *b)
{
    return a->fate != b->fate ? a->fate < b->fate : a->bytes > b->bytes;
}

/* Returns how many groups the blocks have become. */
static size_t group_blocks(struct search *search)
{
    struct leaked *blocks = search->blocks;
    size_t group_count = 0;
    sort(blocks, search->block_count, is_grouped_before);
    for (size_t i = 0; i < search->block_count; i++) {
        const struct leaked block = blocks[i];
        struct leaked *last = group_count != 0 ? &blocks[group_count - 1] : NULL;
        if (last != NULL && last->fate == block.fate && last->site == block.site) {
            last->start++;
            last->bytes += block.bytes;
        } else {
            blocks[group_count++] = (struct leaked){1, block.bytes, block.site, block.fate};
        }
    }
    sort(blocks, group_count, is_reported_before);
    return group_count;
}

static void group_write(struct report *report, const struct leaked *group)
{
    static const char *const names[FATE_COUNT] = {"Direct leak", "Indirect leak",
                                                  "Still reachable"};
    uintptr_t frames[SITE_FRAMES_MAX];
    struct text *text = &report->text;
    hmm_text_add(text, names[group->fate]);
    hmm_text_add(text, " of ");
    hmm_text_add_decimal(text, group->bytes);
    hmm_text_add(text, " byte(s) in ");
    hmm_text_add_decimal(text, group->start);
    hmm_text_add(text, " object(s) allocated from:\n");
    report_flush(report);
    size_t frame_count = hmm_sites_frames(group->site, frames, SITE_FRAMES_MAX);
    for (size_t i = 0; i < frame_count; i++) {
        hmm_sites_write_frame(report->file, i, frames[i]);
    }
    hmm_text_add(text, frame_count != 0 ? "\n" : "    #0 0x0 (allocated before main)\n\n");
    report_flush(report);
}

static void report_add_process(struct report *report)
{
    hmm_text_add(&report->text, "==");
    hmm_text_add_decimal(&report->text, hmm_os_process_id());
    hmm_text_add(&report->text, "==");
}

/* Whose the report is, for hmm leaks, which does not print it. */
static void report_name(struct report *report)
{
    report_add_process(report);
    hmm_text_add(&report->text, "HMM: looked for leaks\n");
    report_flush(report);
}

static void report_begin(struct report *report)
{
    hmm_text_add(&report->text,
                 "=================================================================\n");
    report_add_process(report);
    hmm_text_add(&report->text, "ERROR: HMM: detected memory leaks\n\n");
    report_flush(report);
}

/* One line always, so that a reader knows that there was a search. */
static void report_end(struct report *report, size_t bytes, size_t count)
{
    hmm_text_add(&report->text, "SUMMARY: HMM: ");
    hmm_text_add_decimal(&report->text, bytes);
    hmm_text_add(&report->text, " byte(s) leaked in ");
    hmm_text_add_decimal(&report->text, count);
    hmm_text_add(&report->text, " allocation(s).\n");
    report_flush(report);
}

static void groups_write(const struct search *search, size_t group_count, int file,
                         enum leaks_detail detail)
{
    struct report report = {.file = file};
    size_t leaked_bytes = 0;
    size_t leaked_count = 0;
    hmm_text_clear(&report.text);
    if (detail == LEAKS_AND_REACHABLE) {
        report_name(&report);
    }
    for (size_t i = 0; i < group_count; i++) {
        const struct leaked *group = &search->blocks[i];
        bool is_lost = group->fate != FATE_REACHABLE;
        leaked_bytes += is_lost ? group->bytes : 0;
        leaked_count += is_lost ? group->start : 0;
        if (is_lost || detail == LEAKS_AND_REACHABLE) {
            if (i == 0 && is_lost) {
                report_begin(&report);
            }
            group_write(&report, group);
        }
    }
    report_end(&report, leaked_bytes, leaked_count);
}

void hmm_leaks_report_none(int file, enum leaks_detail detail)
{
    struct report report = {.file = file};
    hmm_text_clear(&report.text);
    hmm_os_file_lock(file);
    if (detail == LEAKS_AND_REACHABLE) {
        report_name(&report);
    }
    report_end(&report, 0, 0);
    hmm_os_file_unlock(file);
}

/* Its frame and what it calls are no roots; its caller's frame is the first one. */
static HMM_NOINLINE bool find_and_report(leaks_walk walk, int file, enum leaks_detail detail)
{
    struct search search;
    uintptr_t stack = (uintptr_t)__builtin_frame_address(0);
    if (!search_open(&search, walk)) {
        return false;
    }
    const struct root_walk roots = {
        .stack = stack, .own = search.memory, .visit = root_mark, .context = &search};
    bool is_done = hmm_leaks_walk_roots(&roots);
    if (is_done) {
        lost_mark(&search);
        size_t group_count = group_blocks(&search);
        hmm_os_file_lock(file);
        groups_write(&search, group_count, file, detail);
        hmm_os_file_unlock(file);
    }
    search_close(&search);
    return is_done;
}

/* Registers that callers may still need go on the stack, into this frame, which must not be left
 * for the call. */
bool hmm_leaks_report(leaks_walk walk, int file, enum leaks_detail detail)
{
    __builtin_unwind_init();
    bool is_done = find_and_report(walk, file, detail);
    atomic_signal_fence(memory_order_seq_cst);
    return is_done;
}
