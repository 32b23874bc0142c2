/*
 * copy.c - copies the target's tables while it may run on; its block heaps are copied in
 * copy_heaps.c. See copy.h.
 *
 * What is small is copied twice, before and after the rest. If both are the same, nothing has
 * passed between rooms meanwhile; a thread's own pushes and pops may still have.
 */
#include "copy.h"
#include "command.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

enum {
    /* More than any process has; a list that is longer is a loop. */
    THREADS_MAX = 1 << 20,
    BINS_TRIES_MAX = 24,
    DESCRIPTORS_A_PAGE = 4096 / sizeof(struct granule),
    PAGES_AT_ONCE_MAX = 16,
    /* As large as address spaces are. */
    ARENA_SHIFT_MAX = 57,
};

size_t copy_granule_index(const struct copy *copy, const struct granule *descriptor)
{
    uintptr_t offset = (uintptr_t)descriptor - (uintptr_t)copy->arena.table;
    size_t index = offset / sizeof(struct granule);
    bool is_one = offset % sizeof(struct granule) == 0 && index < copy->arena.frontier_count;
    return is_one ? index : SIZE_MAX;
}

size_t copy_metadata_bytes(const struct copy *copy)
{
    const struct arena *arena = &copy->arena;
    if (arena->table == NULL) {
        return 0;
    }
    return arena->frontier_count * sizeof(struct granule) +
           (arena->frontier_count + WORD_BITS - 1) / WORD_BITS * sizeof(struct set_words) +
           ((uintptr_t)arena->sets - arena->metadata);
}

void copy_trouble(struct copy *copy, const char *what)
{
    copy->has_changed = true;
    copy->trouble = copy->trouble != NULL ? copy->trouble : what;
}

/* ------------------------------------------------------------------------------------ the arena */

/* A1, A2, A3, as far as it takes to use it. */
static bool arena_is_sane(const struct arena *arena)
{
    return arena->base != 0 && arena->bytes >> ARENA_SHIFT_MAX == 0 &&
           arena->granule_count == arena->bytes >> GRANULE_SHIFT &&
           arena->frontier_count <= arena->granule_count &&
           arena->populated_count <= arena->granule_count && arena->table != NULL &&
           arena->metadata_start <= arena->metadata && arena->metadata <= (uintptr_t)arena->sets &&
           (uintptr_t)arena->sets < (uintptr_t)arena->table;
}

/* Whether a descriptor on the page that begins with `index` is of a taken granule, and not inside a
 * run that ends at `run_end`. */
static bool is_page_wanted(const struct copy *copy, size_t index, size_t run_end)
{
    const size_t end = size_min(index + DESCRIPTORS_A_PAGE, copy->arena.frontier_count);
    bool is_wanted = false;
    for (size_t i = size_max(index, run_end); i < end && !is_wanted; i++) {
        is_wanted = copy_is_taken(copy, i);
    }
    return is_wanted;
}

/* Cleans up after a copy: what is inside a large run has no descriptor. Returns where the
 * last run ends. */
static size_t runs_clip(struct copy *copy, size_t index, size_t count, size_t run_end)
{
    for (size_t i = index; i < index + count; i++) {
        struct granule *granule = &copy->granules[i];
        if (i < run_end) {
            *granule = (struct granule){0};
        } else if (granule->kind == GRANULE_LARGE) {
            size_t rest = copy->arena.frontier_count - i;
            granule->run.granule_count = size_max(1, size_min(granule->run.granule_count, rest));
            run_end = i + granule->run.granule_count;
        }
    }
    return run_end;
}

/* Descriptors, but for those of pages on which nothing is taken, or all is inside a large run: they
 * may never have been touched, and reading would make the kernel map them. As long as there are no
 * large runs more and more pages are copied at once. */
static bool granules_copy(struct reader *reader, struct copy *copy)
{
    const size_t count = copy->arena.frontier_count;
    size_t run_end = 0;
    size_t pages_max = 1;
    for (size_t index = 0; index < count;) {
        size_t pages = 0;
        while (pages < pages_max &&
               is_page_wanted(copy, index + pages * DESCRIPTORS_A_PAGE, run_end)) {
            pages++;
        }
        size_t piece = size_min(pages * DESCRIPTORS_A_PAGE, count - index);
        if (!reader_copy(reader, (uintptr_t)(copy->arena.table + index), copy->granules + index,
                         piece * sizeof(struct granule))) {
            return false;
        }
        size_t last_run_end = run_end;
        run_end = runs_clip(copy, index, piece, run_end);
        pages_max = run_end != last_run_end ? 1 : size_min(2 * pages_max, PAGES_AT_ONCE_MAX);
        index += size_max(pages, 1) * DESCRIPTORS_A_PAGE;
    }
    return true;
}

/* One descriptor once more. By now, or where the table is damaged, a large run may begin there. */
static bool granule_copy_again(struct reader *reader, struct copy *copy, size_t index)
{
    if (!reader_copy(reader, (uintptr_t)(copy->arena.table + index), copy->granules + index,
                     sizeof *copy->granules)) {
        return false;
    }
    size_t run_end = runs_clip(copy, index, 1, 0);
    if (run_end != 0) {
        (void)runs_clip(copy, index + 1, run_end - index - 1, run_end);
    }
    return true;
}

static bool arena_copy(struct reader *reader, struct copy *copy)
{
    if (!reader_copy(reader, (uintptr_t)reader->root.arena, &copy->arena, sizeof copy->arena) ||
        !reader_copy(reader, (uintptr_t)reader->root.purge, &copy->purge, sizeof copy->purge) ||
        !arena_is_sane(&copy->arena)) {
        return false;
    }
    size_t word_count = copy->arena.frontier_count / WORD_BITS + 1;
    copy->sets = must_allocate(word_count, sizeof *copy->sets);
    copy->granules = must_allocate(copy->arena.frontier_count + 1, sizeof *copy->granules);
    return reader_copy(reader, (uintptr_t)copy->arena.sets, copy->sets,
                       word_count * sizeof *copy->sets) &&
           granules_copy(reader, copy) &&
           reader_copy(reader, (uintptr_t)reader->root.shards, copy->shards, sizeof copy->shards) &&
           reader_copy(reader, (uintptr_t)reader->root.woken, copy->woken, sizeof copy->woken);
}

/* -------------------------------------------------------------------------------------- threads */

/* The memory of a slab, as far as it says which slot follows which. */
struct slab_words {
    _Alignas(uintptr_t) unsigned char bytes[GRANULE_BYTES];
};

/* Copies what may hold links: the first words of large slots, whole pages of small ones. What else
 * is in the slots is not looked at, so the target's processor keeps those lines to itself. Nor is
 * what is away: to look would map it. */
static bool slab_words_copy(struct reader *reader, const struct copy *copy, size_t index,
                            struct slab_words *words)
{
    const struct granule *slab = &copy->granules[index];
    const size_t slot_bytes = class_bytes((unsigned)copy_class(slab));
    const size_t end = copy_carved(slab) * slot_bytes;
    const bool is_whole = slot_bytes <= GRANULE_BYTES / MEMORY_PIECES_MAX;
    const unsigned away = slab->away | remote_thin(slab->remote);
    const size_t step_bytes = is_whole ? reader->page_bytes : slot_bytes;
    struct memory_piece pieces[MEMORY_PIECES_MAX];
    size_t count = 0;
    for (size_t at = 0; at < end && count < MEMORY_PIECES_MAX; at += step_bytes) {
        bool is_away = (away >> at / reader->page_bytes & 1) != 0;
        size_t bytes = is_whole ? size_min(step_bytes, end - at) : sizeof(uintptr_t);
        if (is_away) {
            memset(words->bytes + at, 0, bytes);
            continue;
        }
        pieces[count++] =
            (struct memory_piece){copy_granule_start(copy, index) + at, words->bytes + at, bytes};
    }
    return reader->ops->copy_pieces(reader, pieces, count);
}

/* Counts the slots that a bin holds: a list in the class's current slab. false: it leads astray. */
static bool bin_count(struct reader *reader, const struct copy *copy, struct thread_copy *thread,
                      size_t size_class)
{
    static struct slab_words words;
    const size_t slot_bytes = class_bytes((unsigned)size_class);
    uintptr_t slot = thread->bins[size_class];
    uint32_t *count = &thread->bin_counts[size_class];
    *count = 0;
    if (slot == 0) {
        return true;
    }
    size_t index = copy_granule_index(copy, thread->thread.classes[size_class].current);
    if (index == SIZE_MAX || copy_class(&copy->granules[index]) != size_class ||
        !slab_words_copy(reader, copy, index, &words)) {
        return false;
    }
    const uintptr_t start = copy_granule_start(copy, index);
    const uint32_t most = copy_carved(&copy->granules[index]);
    for (; slot != 0; *count += 1) {
        size_t offset = slot - start;
        uintptr_t word;
        if (*count == most || offset >= most * slot_bytes || offset % slot_bytes != 0) {
            return false;
        }
        memcpy(&word, words.bytes + offset, sizeof word);
        slot = copy_link(copy, slot, word);
    }
    return true;
}

static bool bins_count(struct reader *reader, const struct copy *copy, struct thread_copy *thread)
{
    bool is_well = true;
    for (size_t size_class = 0; size_class < CLASS_COUNT; size_class++) {
        is_well &= bin_count(reader, copy, thread, size_class);
    }
    return is_well;
}

/* false: a thread that has just ended may have taken its bins with it. */
static bool bins_copy(struct reader *reader, struct thread_copy *thread)
{
    return reader_copy(reader, (uintptr_t)thread->thread.bins, thread->bins, sizeof thread->bins);
}

/* A thread that runs takes slots out of its bins while they are read: then all that the bins depend
 * on is copied once more, close together. */
static bool bins_copy_again(struct reader *reader, struct copy *copy, struct thread_copy *thread)
{
    target_forget(reader);
    if (!reader_copy(reader, thread->address, &thread->thread, sizeof thread->thread) ||
        !bins_copy(reader, thread)) {
        return false;
    }
    for (size_t i = 0; i < CLASS_COUNT; i++) {
        size_t index = copy_granule_index(copy, thread->thread.classes[i].current);
        if (thread->bins[i] != 0 && index != SIZE_MAX && !granule_copy_again(reader, copy, index)) {
            return false;
        }
    }
    return true;
}

static void bins_copy_and_count(struct reader *reader, struct copy *copy,
                                struct thread_copy *thread)
{
    bool is_well = bins_copy(reader, thread) && bins_count(reader, copy, thread);
    for (int tries = 1; !is_well && tries < BINS_TRIES_MAX; tries++) {
        is_well = bins_copy_again(reader, copy, thread) && bins_count(reader, copy, thread);
    }
    if (!is_well) {
        copy_trouble(copy, "T2: a bin holds slots of the current slab");
    }
}

static uint64_t clock_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* What was last seen of the thread's bins: nothing, if it is new. */
static struct bins_seen *bins_seen(struct reader *reader, uintptr_t thread)
{
    size_t i = 0;
    while (i < reader->bins_seen_count && reader->bins_seen[i].thread != thread) {
        i++;
    }
    if (i == reader->bins_seen_count) {
        reader->bins_seen =
            must_grow(reader->bins_seen, ++reader->bins_seen_count, sizeof *reader->bins_seen);
        reader->bins_seen[i] = (struct bins_seen){.thread = thread};
    }
    return &reader->bins_seen[i];
}

/* To count a bin is to follow a list through what the target's processor has in its cache, and
 * would have to fetch again: 100 times a second that took 4 % of its time. So a bin that was
 * counted a moment ago still counts as it did. */
static void thread_bins_copy(struct reader *reader, struct copy *copy, struct thread_copy *thread)
{
    enum { MOMENT_MS = 100 };
    struct bins_seen *seen = bins_seen(reader, thread->address);
    uint64_t now_ms = clock_ms();
    if (reader->is_watching && seen->counted_ms != 0 && now_ms - seen->counted_ms < MOMENT_MS &&
        bins_copy(reader, thread)) {
        for (size_t i = 0; i < CLASS_COUNT; i++) {
            thread->bin_counts[i] = thread->bins[i] != 0 ? seen->counts[i] : 0;
        }
        return;
    }
    bins_copy_and_count(reader, copy, thread);
    memcpy(seen->counts, thread->bin_counts, sizeof seen->counts);
    seen->counted_ms = now_ms;
}

static bool thread_copy(struct reader *reader, struct copy *copy, uintptr_t address,
                        enum thread_standing standing)
{
    struct thread_copy *thread = &copy->threads[copy->thread_count];
    *thread = (struct thread_copy){.address = address, .standing = standing};
    struct address_range metadata = copy_metadata(copy);
    if (address < metadata.start || address >= metadata.end ||
        !reader_copy(reader, address, &thread->thread, sizeof thread->thread)) {
        return false;
    }
    copy->thread_count++;
    if (thread->thread.bins == NULL) {
        return true;
    }
    thread_bins_copy(reader, copy, thread);
    uintptr_t guarded = (uintptr_t)thread->thread.guarded;
    if (guarded != 0 && !reader_copy(reader, guarded + offsetof(struct guarded, quarantine),
                                     &thread->quarantine, sizeof thread->quarantine)) {
        copy_trouble(copy, "G4: a guarded thread has a quarantine");
    }
    return true;
}

/* As many as lie side by side in what is in use of the metadata: more are a loop. */
static size_t thread_count_max(const struct copy *copy)
{
    const size_t bytes = (uintptr_t)copy->arena.sets - copy->arena.metadata;
    return size_min(bytes / sizeof(struct thread), THREADS_MAX);
}

static void thread_list_copy(struct reader *reader, struct copy *copy, const struct thread *first,
                             enum thread_standing standing)
{
    const size_t count_max = thread_count_max(copy);
    uintptr_t address = (uintptr_t)first;
    while (address != 0) {
        if (copy->thread_count == count_max) {
            copy_trouble(copy, "T1: a list of threads has an end");
            return;
        }
        copy->threads = must_grow(copy->threads, copy->thread_count + 1, sizeof *copy->threads);
        if (!thread_copy(reader, copy, address, standing)) {
            copy_trouble(copy, "T1: a list of threads leads to threads");
            return;
        }
        address = (uintptr_t)copy->threads[copy->thread_count - 1].thread.next;
    }
}

static int owner_compare(const void *left, const void *right)
{
    return address_compare(&((const struct owner_copy *)left)->self,
                           &((const struct owner_copy *)right)->self);
}

static int holder_compare(const void *left, const void *right)
{
    return address_compare(&((const struct holder_copy *)left)->slab,
                           &((const struct holder_copy *)right)->slab);
}

static void holder_add(struct copy *copy, const struct granule *slab, size_t thread, size_t place)
{
    if (slab != NULL) {
        copy->holders[copy->holder_count++] = (struct holder_copy){(uintptr_t)slab, thread, place};
    }
}

/* Who owns and who holds is asked for each slab: with thousands of threads, each of which has
 * slabs, nobody can look at all of them then. */
static void threads_order(struct copy *copy)
{
    const size_t places = CLASS_COUNT + BATCH_COUNT;
    copy->owners = must_allocate(copy->thread_count, sizeof *copy->owners);
    copy->holders = must_allocate(copy->thread_count * places, sizeof *copy->holders);
    for (size_t i = 0; i < copy->thread_count; i++) {
        const struct thread_copy *thread = &copy->threads[i];
        if (thread->standing == THREAD_LIVE) {
            copy->owners[copy->owner_count++] = (struct owner_copy){thread->thread.self, i};
        }
        for (size_t place = 0; thread->standing != THREAD_UNUSED && place < places; place++) {
            holder_add(copy,
                       place < CLASS_COUNT ? thread->thread.classes[place].current
                                           : thread->thread.batches[place - CLASS_COUNT].slab,
                       i, place);
        }
    }
    qsort(copy->owners, copy->owner_count, sizeof *copy->owners, owner_compare);
    qsort(copy->holders, copy->holder_count, sizeof *copy->holders, holder_compare);
}

size_t copy_owner_index(const struct copy *copy, uintptr_t self)
{
    const struct owner_copy key = {.self = self};
    const struct owner_copy *owner =
        bsearch(&key, copy->owners, copy->owner_count, sizeof key, owner_compare);
    return owner != NULL ? owner->thread : SIZE_MAX;
}

size_t copy_holder_index(const struct copy *copy, uintptr_t slab)
{
    const struct holder_copy key = {.slab = slab};
    const struct holder_copy *holder =
        bsearch(&key, copy->holders, copy->holder_count, sizeof key, holder_compare);
    while (holder != NULL && holder > copy->holders && holder[-1].slab == slab) {
        holder--;
    }
    return holder != NULL ? (size_t)(holder - copy->holders) : copy->holder_count;
}

static bool threads_copy(struct reader *reader, struct copy *copy)
{
    struct thread_lists lists;
    if (!reader_copy(reader, (uintptr_t)reader->root.threads, &lists, sizeof lists)) {
        return false;
    }
    thread_list_copy(reader, copy, lists.live, THREAD_LIVE);
    thread_list_copy(reader, copy, lists.dormant, THREAD_DORMANT);
    thread_list_copy(reader, copy, lists.unused, THREAD_UNUSED);
    threads_order(copy);
    return true;
}

/* ------------------------------------------------------------------------------------ all of it */

/* What there is once a process. */
static bool process_copy(struct reader *reader, struct copy *copy)
{
    struct process process;
    struct slab_guard guard;
    if (!reader_copy(reader, (uintptr_t)reader->root.process, &process, sizeof process) ||
        !reader_copy(reader, (uintptr_t)process.heap, &copy->heap, sizeof copy->heap) ||
        !reader_copy(reader, (uintptr_t)process.engine, &copy->engine, sizeof copy->engine) ||
        !reader_copy(reader, (uintptr_t)process.options, &copy->options, sizeof copy->options) ||
        !reader_copy(reader, (uintptr_t)reader->root.slab_guard, &guard, sizeof guard)) {
        return false;
    }
    copy->link_key = guard.link_key;
    copy->first_slot = guard.first_slot;
    return copy->engine <= ENGINE_BLOCK && copy->first_slot < SLOTS_MAX;
}

static bool copy_once(struct reader *reader, struct copy *copy)
{
    *copy = (struct copy){0};
    target_forget(reader);
    return process_copy(reader, copy) &&
           (copy->engine != ENGINE_FAST ||
            (arena_copy(reader, copy) && threads_copy(reader, copy))) &&
           copy_heaps(reader, copy);
}

static bool is_same(struct reader *reader, uintptr_t address, const void *copied, size_t bytes)
{
    unsigned char now[CACHE_LINE_BYTES];
    for (size_t at = 0; at < bytes; at += sizeof now) {
        size_t count = size_min(sizeof now, bytes - at);
        if (!reader_copy(reader, address + at, now, count) ||
            memcmp(now, (const char *)copied + at, count) != 0) {
            return false;
        }
    }
    return true;
}

bool copy_tables_are_current(struct reader *reader, const struct copy *copy)
{
    if (copy->engine != ENGINE_FAST) {
        return true;
    }
    bool is_still =
        is_same(reader, (uintptr_t)reader->root.arena, &copy->arena, sizeof copy->arena);
    for (size_t i = 0; is_still && i < copy->thread_count; i++) {
        const struct thread_copy *thread = &copy->threads[i];
        is_still = is_same(reader, thread->address, &thread->thread, sizeof thread->thread) &&
                   (thread->thread.bins == NULL || is_same(reader, (uintptr_t)thread->thread.bins,
                                                           thread->bins, sizeof thread->bins));
    }
    return is_still;
}

bool copy_granule_is_current(struct reader *reader, const struct copy *copy, size_t index)
{
    return is_same(reader, (uintptr_t)(copy->arena.table + index), &copy->granules[index],
                   sizeof copy->granules[index]);
}

bool copy_shard_is_current(struct reader *reader, const struct copy *copy, size_t shard)
{
    return is_same(reader, (uintptr_t)(reader->root.shards + shard), &copy->shards[shard],
                   sizeof copy->shards[shard]);
}

bool copy_heap_is_current(struct reader *reader, const struct copy *copy, size_t heap)
{
    return is_same(reader, copy->heaps[heap].address, &copy->heaps[heap].handle,
                   sizeof copy->heaps[heap].handle);
}

bool copy_is_current(struct reader *reader, const struct copy *copy)
{
    bool is_still = copy_tables_are_current(reader, copy);
    if (is_still && copy->engine == ENGINE_FAST) {
        is_still =
            is_same(reader, (uintptr_t)reader->root.shards, copy->shards, sizeof copy->shards);
    }
    for (size_t i = 0; is_still && i < copy->heap_count; i++) {
        is_still = copy_heap_is_current(reader, copy, i);
    }
    return is_still;
}

bool copy_refresh_shard(struct reader *reader, struct copy *copy, size_t shard)
{
    target_forget(reader);
    return reader_copy(reader, (uintptr_t)(reader->root.shards + shard), &copy->shards[shard],
                       sizeof copy->shards[shard]);
}

bool copy_refresh_zone(struct reader *reader, struct copy *copy, size_t index)
{
    const struct granule *table = copy->arena.table;
    struct granule *first = &copy->granules[index];
    if (!reader_copy(reader, (uintptr_t)(table + index), first, sizeof *first)) {
        return false;
    }
    const size_t held = (first->zone.end - copy_granule_start(copy, index)) >> GRANULE_SHIFT;
    const size_t count = size_min(held, copy->arena.frontier_count - index);
    return reader_copy(reader, (uintptr_t)(table + index), first, count * sizeof *first);
}

/* One line about why no copy could be had. */
static void complain(struct reader *reader)
{
    if (reader->kind == READER_CORE) {
        command_error("%s: its heap cannot be read: the core does not hold it, or it is damaged",
                      reader->name);
    } else if (reader->ops->resident_bytes(reader) == 0) {
        command_error("%s has ended", reader->name);
    } else if (!is_same(reader, (uintptr_t)reader->root.self, &reader->root, sizeof reader->root)) {
        /* The root is constant, so its memory is another's: the process has called exec. */
        command_error("%s has become another program", reader->name);
    } else {
        command_error("%s: its heap cannot be read: it is damaged", reader->name);
    }
}

bool copy_take(struct reader *reader, struct copy *copy, int tries_max)
{
    bool is_read = false;
    for (int tries = 0; tries < tries_max; tries++) {
        is_read = copy_once(reader, copy);
        if (is_read && !copy->has_changed && copy_is_current(reader, copy)) {
            return true;
        }
        if (tries + 1 < tries_max) {
            copy_free(copy);
        }
    }
    if (!is_read) {
        complain(reader);
        copy_free(copy);
        return false;
    }
    copy->has_changed = true;
    return true;
}

void copy_free(struct copy *copy)
{
    free(copy->sets);
    free(copy->granules);
    free(copy->threads);
    free(copy->owners);
    free(copy->holders);
    free(copy->heaps);
    free(copy->regions);
    *copy = (struct copy){0};
}
