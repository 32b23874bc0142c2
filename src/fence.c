/*
 * fence.c - inaccessible granules. See fence.h.
 */
#include "fence.h"
#include "os.h"

enum {
    FENCED_MAX = 8192,
    /* Freed blocks that wait, and how many granules all of them may have: one part of the arena. */
    WAITING_COUNT = 32,
    WAITING_SHARE = 16,
    EMPTY_COUNT = GRANULE_BYTES / LINE_BYTES, /* blocks of 0 bytes in a granule, a line apart */
    EMPTY_WORDS = EMPTY_COUNT / WORD_BITS,
};

struct waiting {
    struct granule *first;
};

static struct lock lock = LOCK_INITIALIZER(LOCK_RANK_FENCE);
/* guarded by the lock */
static struct waiting waiting[WAITING_COUNT];
static size_t waiting_next;
static size_t waiting_granule_count;
static struct granule *empty_granules;

static _Atomic ptrdiff_t fenced_count;

/* ------------------------------------------------------------------------------------- granules */

static void *granule_address(const struct granule *granule)
{
    return (void *)granule_start(granule);
}

static uintptr_t run_end(const struct granule *first)
{
    return granule_start(first) + (first->run.granule_count << GRANULE_SHIFT);
}

static uintptr_t page_start(uintptr_t address)
{
    return align_down(address, size_min(hmm_os_page_bytes(), GRANULE_BYTES));
}

/* A granule that nobody can access, and that is no block's. */
static void fence_mark(struct granule *fence)
{
    fence->run = (struct run){0};
    granule_set_kind(fence, GRANULE_FENCE);
}

/* Both fences, and what lies between the first and the block's first page. */
static bool fences_close(struct granule *first)
{
    struct granule *fence = first - 1;
    uintptr_t access = page_start(first->run.start);
    return hmm_os_decommit(granule_address(fence), access - granule_start(fence)) &&
           hmm_os_decommit((void *)run_end(first), GRANULE_BYTES);
}

/* All granules of a block and its fences are accessible and zero, and nobody's. false: they are not. */
static bool fences_open(struct granule *first)
{
    size_t count = first->run.granule_count;
    struct granule *fence = first - 1;
    if (!hmm_os_renew(granule_address(fence), (count + 2) << GRANULE_SHIFT, ARENA_NAME)) {
        return false;
    }
    granule_set_kind(fence, GRANULE_FREE);
    granule_set_kind(first, GRANULE_FREE);
    granule_set_kind(first + count, GRANULE_FREE);
    hmm_arena_give_zero(fence, count + 2);
    counter_add(&fenced_count, -1);
    return true;
}

/* ---------------------------------------------------------------------------------------- blocks */

static size_t fenced_alignment(size_t alignment)
{
    return size_max(alignment, 2 * sizeof(void *));
}

/* Granules that were never touched, or given back, are zero already. */
static void run_clear(const struct granule *first)
{
    const struct granule *granule = first;
    const uintptr_t end = run_end(first);
    uintptr_t start = page_start(first->run.start);
    while (start < end) {
        uintptr_t granule_end = granule_start(granule) + GRANULE_BYTES;
        if (granule_is_touched(granule)) {
            memset((void *)start, 0, granule_end - start);
        }
        start = granule_end;
        granule++;
    }
}

void *hmm_fence_allocate(size_t alignment, size_t bytes)
{
    size_t room_bytes = size_max(bytes, 1);
    if (atomic_load_explicit(&fenced_count, memory_order_relaxed) >= FENCED_MAX ||
        alignment > GRANULE_BYTES || bytes > OBJECT_BYTES_MAX - 4 * (size_t)GRANULE_BYTES) {
        return NULL;
    }
    room_bytes = align_up(room_bytes, fenced_alignment(alignment));
    size_t count = align_up(room_bytes, GRANULE_BYTES) >> GRANULE_SHIFT;
    struct granule *fence = hmm_arena_take(count + 2, 1);
    if (fence == NULL) {
        return NULL;
    }
    counter_add(&fenced_count, 1);
    struct granule *first = fence + 1;
    first->run = (struct run){.granule_count = count, .bytes = bytes, .is_fenced = true};
    first->run.start = run_end(first) - room_bytes;
    first->has_moved = false;
    fence_mark(fence);
    fence_mark(first + count);
    granule_set_kind(first, GRANULE_FENCE);
    if (!fences_close(first)) {
        (void)fences_open(first);
        return NULL;
    }
    run_clear(first);
    granule_set_kind(first, GRANULE_LARGE);
    return (void *)first->run.start;
}

size_t hmm_fence_lead_bytes(const struct granule *first)
{
    return first->run.start - page_start(first->run.start);
}

size_t hmm_fence_tail_bytes(const struct granule *first)
{
    return run_end(first) - first->run.start - first->run.bytes;
}

/* The place of one that has waited long enough, or NULL. */
static struct granule *wait_in_line(struct granule *first)
{
    hmm_lock_acquire(&lock);
    struct granule *old = waiting[waiting_next].first;
    waiting[waiting_next].first = first;
    waiting_next = (waiting_next + 1) % WAITING_COUNT;
    waiting_granule_count += first != NULL ? first->run.granule_count : 0;
    waiting_granule_count -= old != NULL ? old->run.granule_count : 0;
    hmm_lock_release(&lock);
    return old;
}

static bool has_too_many_waiting(void)
{
    hmm_lock_acquire(&lock);
    bool has = waiting_granule_count > hmm_arena.granule_count / WAITING_SHARE;
    hmm_lock_release(&lock);
    return has;
}

static void wait_ended(struct granule *first)
{
    if (first != NULL) {
        (void)fences_open(first);
    }
}

void hmm_fence_free(struct granule *first)
{
    uintptr_t start = page_start(first->run.start);
    granule_set_kind(first, GRANULE_FENCE);
    if (!hmm_os_decommit((void *)start, run_end(first) - start)) {
        (void)fences_open(first);
        return;
    }
    wait_ended(wait_in_line(first));
    for (int i = 0; i < WAITING_COUNT && has_too_many_waiting(); i++) {
        wait_ended(wait_in_line(NULL));
    }
}

void hmm_fence_flush(void)
{
    for (int i = 0; i < WAITING_COUNT; i++) {
        wait_ended(wait_in_line(NULL));
    }
}

void hmm_fence_build(void)
{
    if (atomic_load_explicit(&fenced_count, memory_order_relaxed) >= FENCED_MAX) {
        return;
    }
    struct granule *fence = hmm_arena_take(1, 1);
    if (fence == NULL) {
        return;
    }
    fence_mark(fence);
    if (hmm_os_decommit(granule_address(fence), GRANULE_BYTES)) {
        counter_add(&fenced_count, 1);
    } else {
        granule_set_kind(fence, GRANULE_FREE);
        hmm_arena_give(fence, 1, 0);
    }
}

/* ------------------------------------------------------------------------------ blocks of 0 bytes */

/* A free bit of the set, which is set then; EMPTY_COUNT: there is none. Under the lock. */
static size_t empty_take(struct empty_set *set)
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

static void *empty_find(void)
{
    void *ptr = NULL;
    hmm_lock_acquire(&lock);
    for (struct granule *granule = empty_granules; granule != NULL && ptr == NULL;
         granule = granule->empty.next) {
        size_t index = empty_take(&granule->empty);
        if (index < EMPTY_COUNT) {
            ptr = (void *)(granule_start(granule) + index * LINE_BYTES);
        }
    }
    hmm_lock_release(&lock);
    return ptr;
}

static bool empty_grow(void)
{
    uint64_t *words = hmm_arena_metadata(EMPTY_WORDS * sizeof *words);
    struct granule *granule = words != NULL ? hmm_arena_take(1, 1) : NULL;
    if (granule == NULL) {
        return false;
    }
    granule->empty = (struct empty_set){.words = words};
    granule_set_kind(granule, GRANULE_EMPTY);
    (void)hmm_os_decommit(granule_address(granule), GRANULE_BYTES);
    hmm_lock_acquire(&lock);
    granule->empty.next = empty_granules;
    empty_granules = granule;
    hmm_lock_release(&lock);
    return true;
}

void *hmm_fence_allocate_empty(void)
{
    void *ptr = empty_find();
    return ptr != NULL || !empty_grow() ? ptr : empty_find();
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
    hmm_lock_acquire(&lock);
    bool is_live = (*word & bit) != 0;
    hmm_lock_release(&lock);
    return is_live;
}

bool hmm_fence_free_empty(void *ptr)
{
    uint64_t *word;
    uint64_t bit = empty_bit(ptr, &word);
    hmm_lock_acquire(&lock);
    bool is_live = (*word & bit) != 0;
    *word &= ~bit;
    granule_of(ptr)->empty.live_count -= is_live;
    hmm_lock_release(&lock);
    return is_live;
}

void hmm_fence_lock(void)
{
    hmm_lock_acquire_for_fork(&lock);
}

void hmm_fence_unlock(void)
{
    hmm_lock_release_after_fork(&lock);
}
