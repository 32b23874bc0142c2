/*
 * fence_empty.c - blocks of 0 bytes: a line each of a granule that nobody can access. See fence.h.
 */
#include "fence_room.h"
#include "large.h"
#include "os.h"
#include "purge.h"

enum {
    EMPTY_COUNT = GRANULE_BYTES / LINE_BYTES,
    EMPTY_WORDS = EMPTY_COUNT / WORD_BITS,
};

static struct granule *empty_granules; /* guarded by the lock */

/* A free bit of the set, which is set then; EMPTY_COUNT: there is none. Under the lock. */
static size_t empty_set_take(struct empty_set *set)
{
    for (uint32_t i = 0; i < EMPTY_WORDS && set->live_count < EMPTY_COUNT; i++) {
        uint32_t word = (set->next_word + i) % EMPTY_WORDS;
        if (set->words[word] != UINT64_MAX) {
            size_t bit = (size_t)__builtin_ctzll(~set->words[word]);
            set->words[word] |= (uint64_t)1 << bit;
            set->live_count++;
            set->next_word = (word + 1) % EMPTY_WORDS;
            return word * WORD_BITS + bit;
        }
    }
    return EMPTY_COUNT;
}

/* The same, of a bit at a multiple of so many. */
static size_t empty_set_take_aligned(struct empty_set *set, size_t step)
{
    for (size_t index = 0; index < EMPTY_COUNT; index += step) {
        uint64_t bit = (uint64_t)1 << index % WORD_BITS;
        if ((set->words[index / WORD_BITS] & bit) == 0) {
            set->words[index / WORD_BITS] |= bit;
            set->live_count++;
            return index;
        }
    }
    return EMPTY_COUNT;
}

static size_t empty_granule_take(struct granule *granule, size_t alignment)
{
    if (alignment <= LINE_BYTES) {
        return empty_set_take(&granule->empty);
    }
    if (!is_aligned(granule_start(granule), size_max(alignment, GRANULE_BYTES))) {
        return EMPTY_COUNT;
    }
    return empty_set_take_aligned(&granule->empty, size_min(alignment, GRANULE_BYTES) / LINE_BYTES);
}

static void *empty_block_take(size_t alignment)
{
    void *ptr = NULL;
    hmm_lock_acquire(&hmm_fences.lock);
    for (struct granule *granule = empty_granules; granule != NULL && ptr == NULL;
         granule = granule->empty.next) {
        size_t index = empty_granule_take(granule, alignment);
        if (index < EMPTY_COUNT) {
            ptr = (void *)(granule_start(granule) + index * LINE_BYTES);
        }
    }
    hmm_lock_release(&hmm_fences.lock);
    return ptr;
}

static bool empty_granule_add(size_t alignment)
{
    uint64_t *words = hmm_arena_metadata(EMPTY_WORDS * sizeof *words);
    struct granule *granule = words == NULL               ? NULL
                              : alignment > GRANULE_BYTES ? hmm_large_take_aligned(0, 1, alignment)
                                                          : hmm_arena_take(1, 1);
    if (granule == NULL) {
        return false;
    }
    granule->empty = (struct empty_set){.words = words};
    granule_set_kind(granule, GRANULE_EMPTY);
    if (hmm_os_decommit_unmarked(granule_address(granule), GRANULE_BYTES)) {
        hmm_purge_count_fenced(GRANULE_BYTES, 0);
    }
    hmm_lock_acquire(&hmm_fences.lock);
    granule->empty.next = empty_granules;
    empty_granules = granule;
    hmm_lock_release(&hmm_fences.lock);
    return true;
}

void *hmm_fence_allocate_empty(size_t alignment)
{
    void *ptr = empty_block_take(alignment);
    return ptr != NULL || !empty_granule_add(alignment) ? ptr : empty_block_take(alignment);
}

/* The bit of a block, 0: the pointer is none. */
static uint64_t empty_bit(const void *ptr, uint64_t **word)
{
    size_t offset = arena_offset(ptr) & (GRANULE_BYTES - 1);
    size_t index = offset / LINE_BYTES;
    *word = &granule_of(ptr)->empty.words[index / WORD_BITS];
    return offset % LINE_BYTES == 0 ? (uint64_t)1 << index % WORD_BITS : 0;
}

bool hmm_fence_is_empty_block(const void *ptr)
{
    uint64_t *word;
    uint64_t bit = empty_bit(ptr, &word);
    hmm_lock_acquire(&hmm_fences.lock);
    bool is_live = (*word & bit) != 0;
    hmm_lock_release(&hmm_fences.lock);
    return is_live;
}

bool hmm_fence_free_empty(void *ptr)
{
    uint64_t *word;
    uint64_t bit = empty_bit(ptr, &word);
    hmm_lock_acquire(&hmm_fences.lock);
    bool is_live = (*word & bit) != 0;
    *word &= ~bit;
    granule_of(ptr)->empty.live_count -= is_live;
    hmm_lock_release(&hmm_fences.lock);
    return is_live;
}
