/*
 * heap_guard_explain.c - a crime in a hardened heap, told as far as it can be known.
 *
 * The heap itself can only say that a free block is damaged. But who frees a block leaves 0 in it,
 * and whoever writes into it later writes over links or over the size that is repeated: those are
 * told from the other free blocks, all of which a walk finds by their tags. So the crime is a write
 * after free, and which byte was written first is where the word differs from what it should be.
 *
 * Nothing here runs but after a crime, and nothing that is read is trusted.
 */
#include "heap_guard_block.h"

/* -------------------------------------------------------------------------------- damaged words */

/* A free block that is suspected, and what all other free blocks say of it. */
struct survey {
    const struct block *suspect;
    const struct block *next; /* its links, NULL: not looked at, because it may be no free block */
    const struct block *prev;
    const struct block *follower; /* whose prev is the suspect; NULL: none */
    const struct block *leader;   /* whose next is */
    const struct block *before;   /* which ends where the suspect begins, */
    const struct block *misled;   /* or at whose end stands a size that leads to the suspect */
    bool has_next;                /* the suspect's next is a free block */
    bool has_prev;
};

static bool survey_block(void *ptr, size_t usable_bytes, bool is_used, void *context)
{
    struct survey *survey = context;
    const struct block *block = block_of(ptr);
    const struct block *suspect = survey->suspect;
    (void)usable_bytes;
    if (is_used) {
        return true;
    }
    if (block->prev == suspect) {
        survey->follower = block;
    }
    if (block->next == suspect) {
        survey->leader = block;
    }
    if (block_next(block) == suspect) {
        survey->before = block;
    }
    if (block_before(block_next(block), block_prev_bytes(block_next(block))) == suspect) {
        survey->misled = block;
    }
    survey->has_next |= block == survey->next;
    survey->has_prev |= block == survey->prev;
    return true;
}

/* A word of a free block that is not as it should be. */
struct wrong {
    const struct block *block; /* NULL: none is known */
    const void *word;
    uintptr_t right;
};

static bool block_was_live(const struct heap *heap, const struct block *block)
{
    const struct region *region = heap_region_of(heap, (uintptr_t)block_payload(block));
    return region != NULL && block_address(block) < region->fresh;
}

/* A link that leads to no free block is wrong, and so is an end where another block says that it
 * goes on; where it leads to a free block that says otherwise, that one's is. */
static struct wrong links_look(const struct survey *survey)
{
    const struct block *suspect = survey->suspect;
    const struct block *next = survey->next;
    const struct block *prev = survey->prev;
    if (next == NULL ? survey->follower != NULL : !survey->has_next) {
        return (struct wrong){suspect, &suspect->next, (uintptr_t)survey->follower};
    }
    if (prev == NULL ? survey->leader != NULL : !survey->has_prev) {
        return (struct wrong){suspect, &suspect->prev, (uintptr_t)survey->leader};
    }
    if (next != NULL && next->prev != suspect) {
        return (struct wrong){next, &next->prev, (uintptr_t)suspect};
    }
    if (prev != NULL && prev->next != suspect) {
        return (struct wrong){prev, &prev->next, (uintptr_t)suspect};
    }
    return (struct wrong){NULL, NULL, 0};
}

/* The size repeated at the end of a block. */
static struct wrong footer_look(const struct block *block)
{
    const uintptr_t *footer = block_footer(block, block_bytes(block));
    return *footer != block_bytes(block) ? (struct wrong){block, footer, block_bytes(block)}
                                         : (struct wrong){NULL, NULL, 0};
}

/* The first byte of a word that differs from the right one's. */
static uintptr_t first_difference(const struct wrong *wrong)
{
    const unsigned char *found = wrong->word;
    const unsigned char *right = (const unsigned char *)&wrong->right;
    size_t index = 0;
    while (index < WORD_BYTES - 1 && found[index] == right[index]) {
        index++;
    }
    return (uintptr_t)(found + index);
}

static struct wrong wrong_find(const struct heap *heap, const struct crime *crime)
{
    const struct wrong none = {NULL, NULL, 0};
    struct survey survey = {.suspect = block_at(crime->at)};
    if (crime->what == hmm_crime_damaged_free) {
        survey.next = survey.suspect->next;
        survey.prev = survey.suspect->prev;
    }
    if (!hmm_heap_walk(heap, survey_block, &survey)) {
        return none;
    }
    if (crime->what == hmm_crime_damaged_free_before) {
        return survey.before != NULL ? footer_look(survey.before) : none;
    }
    if (crime->what == hmm_crime_damaged_tag_before) {
        return survey.misled != NULL ? footer_look(survey.misled) : none;
    }
    if (!block_is_free(survey.suspect)) {
        return none;
    }
    struct wrong link = links_look(&survey);
    return link.block != NULL ? link : footer_look(survey.suspect);
}

static bool is_explainable(const struct crime *crime)
{
    return crime->what == hmm_crime_damaged_free || crime->what == hmm_crime_damaged_free_before ||
           crime->what == hmm_crime_damaged_tag_before;
}

/* Where nobody has ever had the block it is damaged, and that is all that is known. */
static void explain_damage(const struct heap *heap, const struct heap_guard *guard,
                           struct crime *crime)
{
    struct wrong wrong = wrong_find(heap, crime);
    if (wrong.block != NULL && block_was_live(heap, wrong.block)) {
        uintptr_t byte = first_difference(&wrong);
        (void)hmm_heap_guard_accuse_stray(guard, wrong.block, byte, crime);
    }
}

/* ---------------------------------------------------------------------------------------- sites */

/* The record of the block that begins at `start`, which ends at `end` at the latest; 0: there is
 * none. Free blocks end with theirs, and a mark says where another begins. */
static uintptr_t record_find(const struct heap_guard *guard, uintptr_t start, uintptr_t end)
{
    uintptr_t at = align_down(start, WORD_BYTES);
    while (at < end && trace_bytes(guard, at, end) == 0) {
        at += WORD_BYTES;
    }
    return at < end && trace_bytes(guard, at, end) == RECORD_BYTES ? at : 0;
}

static void explain_sites(const struct heap *heap, const struct heap_guard *guard, uintptr_t ptr,
                          struct crime *crime)
{
    const struct region *region = heap_region_of(heap, ptr);
    uintptr_t end =
        region != NULL ? size_min(crime->at + crime->block_bytes, region->fresh) : crime->at;
    uintptr_t record = ptr > crime->at && ptr < end ? record_find(guard, ptr, end) : 0;
    if (record != 0) {
        struct record_sites sites = record_load(record).sites;
        crime->site_allocated = sites.allocated;
        crime->site_freed = sites.freed;
    }
}

void hmm_heap_guard_explain(const struct heap *heap, const struct heap_guard *guard,
                            const void *ptr, struct crime *crime)
{
    if (crime->what == NULL) {
        return;
    }
    if (is_explainable(crime)) {
        explain_damage(heap, guard, crime);
    }
    if (guard_has_records(guard)) {
        explain_sites(heap, guard, (uintptr_t)(crime->accused != NULL ? crime->accused : ptr),
                      crime);
    }
}
