/*
 * test_guard.c - hardening: seals, quarantine and fences, with the rooms at hand.
 *
 * Each test runs in a process of its own with options of its own, and each crime in another, whose
 * last line is read. What a stranger sees of the same is in crimes.t.
 *
 * test_guard [PATTERN]
 */
#include "alloc.h"
#include "forked.h"
#include "stats.h"
#include "run_out.h"
#include "doors/footprint.h"
#include "fence_room.h"
#include "guard_fast.h"
#include "large.h"
#include "purge.h"
#include "sites.h"

#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/resource.h>

enum { LARGE_BYTES = 300000 };

const char *HmmOptions;

/* ----------------------------------------------------------------------------- a test's process */

static void in_a_process_with(const char *options, void (*run)(void))
{
    assert_int_equal(status_with(options, run), 0);
}

/* What a child that calls `commit` says at its end, and by which signal it dies. */
struct end {
    int signal;
    char line[512];
};

static struct end end_of(void (*commit)(void *), void *argument)
{
    struct end end = {0};
    int ends[2];
    int status = 0;
    REQUIRE(pipe(ends) == 0);
    pid_t child = fork();
    if (child == 0) {
        REQUIRE(dup2(ends[1], STDERR_FILENO) >= 0);
        signal(SIGSEGV, SIG_DFL); /* cmocka's handler would go on with its test */
        commit(argument);
        _exit(EXIT_SUCCESS);
    }
    close(ends[1]);
    size_t length = 0;
    ssize_t got = 1;
    while (got > 0 && length < sizeof end.line - 1) {
        got = read(ends[0], end.line + length, sizeof end.line - 1 - length);
        length += got > 0 ? (size_t)got : 0;
    }
    close(ends[0]);
    REQUIRE(waitpid(child, &status, 0) == child);
    end.signal = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
    return end;
}

/* Whether it dies with the line "hmm: CALL(0xPTR): WHAT...". */
static bool is_crime(void (*commit)(void *), void *argument, const char *call, const void *ptr,
                     const char *what)
{
    char wanted[200];
    struct end end = end_of(commit, argument);
    snprintf(wanted, sizeof wanted, "hmm: %s(0x%lx): %s", call, (unsigned long)ptr, what);
    bool is_said = strncmp(end.line, wanted, strlen(wanted)) == 0;
    if (end.signal != SIGABRT || !is_said) {
        case_say("# wanted: %s\n# got: signal %d, %s\n", wanted, end.signal, end.line);
    }
    return end.signal == SIGABRT && is_said;
}

static void *block(size_t bytes)
{
    void *ptr = HmmAlloc(bytes);
    REQUIRE(ptr != NULL);
    return ptr;
}

static void commit_free(void *ptr)
{
    HmmFree(ptr);
}

static void put(void *ptr, ptrdiff_t offset)
{
    volatile unsigned char *byte = (unsigned char *)ptr + offset;
    *byte = (unsigned char)(*byte + 1);
}

/* ------------------------------------------------------------------------------------- handlers */

static struct {
    jmp_buf after;
    const void *ptr;
    const void *context;
    char line[200];
} told;

static void leave(const char *message, const void *ptr, void *context)
{
    told.ptr = ptr;
    told.context = context;
    snprintf(told.line, sizeof told.line, "%s", message);
    longjmp(told.after, 1);
}

/* No lock is held, and nothing has changed. */
static void a_handler_is_told_and_may_leave_run(void)
{
    static const size_t sizes[] = {100, 20000, LARGE_BYTES};
    int errors = open("/dev/null", O_WRONLY);
    REQUIRE(dup2(errors, STDERR_FILENO) >= 0);
    EXPECT(HmmSetFatalHandler(leave, &told) == NULL);
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        void *ptr = block(sizes[i]);
        void *inside = (char *)ptr + SLOT_UNIT_BYTES;
        told.ptr = NULL;
        if (setjmp(told.after) == 0) {
            HmmFree(inside);
        }
        EXPECT(told.ptr == inside);
        EXPECT(told.context == &told);
        EXPECT(strstr(told.line, "invalid pointer, inside a block") != NULL);
        EXPECT(told.line[strlen(told.line) - 1] == '\n');
        HmmFree(block(sizes[i]));
        HmmFree(ptr);
        audit();
    }
    EXPECT(HmmSetFatalHandler(NULL, NULL) == leave);
}

static void a_handler_is_told_and_may_leave(void **state)
{
    (void)state;
    static const char *const options[] = {"engine=fast", "hardened=1", "hardened=2"};
    for (size_t i = 0; i < sizeof options / sizeof options[0]; i++) {
        in_a_process_with(options[i], a_handler_is_told_and_may_leave_run);
    }
}

static void shrink(void *ptr, size_t bytes)
{
    (void)HmmRealloc(ptr, bytes / 2);
}

static void release(void *ptr, size_t bytes)
{
    (void)bytes;
    HmmFree(ptr);
}

/* A handler that leaves realloc or free finds the block as it was, also what it would have lost. */
static void a_block_beside_a_damaged_tag_is_as_it_was_after(void (*act)(void *ptr, size_t bytes))
{
    enum { BYTES = 20000 };
    int errors = open("/dev/null", O_WRONLY);
    REQUIRE(dup2(errors, STDERR_FILENO) >= 0);
    unsigned char *ptr = block(BYTES);
    uint64_t *behind = (uint64_t *)block(BYTES) - 1;
    REQUIRE((unsigned char *)behind > ptr && (unsigned char *)behind < ptr + BYTES + 64);
    memset(ptr, 0x5a, BYTES);
    EXPECT(HmmSetFatalHandler(leave, &told) == NULL);
    *behind ^= (uint64_t)1 << 60;
    told.ptr = NULL;
    if (setjmp(told.after) == 0) {
        act(ptr, BYTES);
    }
    *behind ^= (uint64_t)1 << 60;
    EXPECT(told.ptr == ptr);
    EXPECT(strstr(told.line, "damaged tag") != NULL);
    for (size_t i = 0; i < BYTES; i++) {
        REQUIRE(ptr[i] == 0x5a);
    }
    EXPECT(HmmUsableSize(ptr) == BYTES);
    HmmFree(ptr);
    audit();
}

static void a_block_that_did_not_shrink_is_as_it_was_run(void)
{
    a_block_beside_a_damaged_tag_is_as_it_was_after(shrink);
}

static void a_block_that_was_not_freed_is_as_it_was_run(void)
{
    a_block_beside_a_damaged_tag_is_as_it_was_after(release);
}

static void a_block_beside_a_damaged_tag_is_as_it_was(void **state)
{
    (void)state;
    static const char *const options[] = {"hardened=1", "hardened=2"};
    for (size_t i = 0; i < sizeof options / sizeof options[0]; i++) {
        in_a_process_with(options[i], a_block_that_did_not_shrink_is_as_it_was_run);
        in_a_process_with(options[i], a_block_that_was_not_freed_is_as_it_was_run);
    }
}

/* Nothing has been made that nobody gets, either. */
static void realloc_beside_damage_leaks_nothing_run(void)
{
    static const size_t sizes[] = {100, 1000, 5000, 20000};
    int errors = open("/dev/null", O_WRONLY);
    REQUIRE(dup2(errors, STDERR_FILENO) >= 0);
    EXPECT(HmmSetFatalHandler(leave, &told) == NULL);
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        static HmmStats before, after;
        (void)block(sizes[i]);
        char *ptr = block(sizes[i]);
        HmmGetStats(&before);
        ptr[-1] ^= 0x55;
        told.ptr = NULL;
        if (setjmp(told.after) == 0) {
            (void)HmmRealloc(ptr, 3 * sizes[i] + 100);
        }
        ptr[-1] ^= 0x55;
        HmmGetStats(&after);
        EXPECT(told.ptr == ptr);
        EXPECT_EQUAL(after.live_count, before.live_count);
        HmmFree(ptr);
    }
    audit();
}

static void realloc_beside_damage_leaks_nothing(void **state)
{
    (void)state;
    in_a_process_with("hardened=1", realloc_beside_damage_leaks_nothing_run);
    in_a_process_with("hardened=2", realloc_beside_damage_leaks_nothing_run);
    in_a_process_with("hardened=1,sites=1", realloc_beside_damage_leaks_nothing_run);
}

static void look_away(const char *message, const void *ptr, void *context)
{
    (void)message;
    (void)ptr;
    (void)context;
}

static void commit_watched_free(void *ptr)
{
    HmmSetFatalHandler(look_away, NULL);
    HmmFree(ptr);
}

TEST_WITH(abort_follows_a_handler_that_returns, "hardened=1")
{
    char *inside = (char *)block(100) + SLOT_UNIT_BYTES;
    EXPECT(is_crime(commit_watched_free, inside, "free", inside, "invalid pointer"));
}

/* ---------------------------------------------------------------------------------------- seals */

/* All requests up to what a slot takes, and some above: what was asked for is what may be used. */
TEST_WITH(usable_is_what_was_asked_for, "hardened=1")
{
    for (size_t bytes = 0; bytes <= 2 * SMALL_BYTES_MAX; bytes += bytes < 600 ? 1 : 37) {
        unsigned char *ptr = block(bytes);
        EXPECT_EQUAL(HmmUsableSize(ptr), bytes);
        content_write(ptr, bytes, 7);
        EXPECT_EQUAL(HmmUsableSize(ptr), bytes);
        HmmFree(ptr);
    }
    audit();
}

/* Where others would be given a larger block than they asked for: what a seal says of the
 * rest is bounded. */
TEST_WITH(reused_medium_blocks_tell_their_size, "hardened=1")
{
    enum { COUNT = 16, MOST_BYTES = 250000, STEP_BYTES = 1001 };
    unsigned char *kept[COUNT];
    for (int i = 0; i < COUNT; i++) {
        kept[i] = block(MOST_BYTES);
    }
    for (size_t bytes = MOST_BYTES; bytes > MOST_BYTES / 2; bytes -= STEP_BYTES) {
        unsigned char **place = &kept[bytes % COUNT];
        HmmFree(*place);
        *place = block(bytes);
        EXPECT_EQUAL(HmmUsableSize(*place), bytes);
        *place = HmmRealloc(*place, bytes - bytes / 16);
        EXPECT_EQUAL(HmmUsableSize(*place), bytes - bytes / 16);
    }
    audit();
}

/* All sizes about those that others are rounded to, out of a block that is a step larger. */
TEST_WITH(resized_medium_blocks_tell_their_size, "hardened=1")
{
    enum { LEAST_BYTES = 16 << 10, MOST_BYTES = 128 << 10, STEPS = 16, AROUND_BYTES = 48 };
    for (size_t power = LEAST_BYTES; power <= MOST_BYTES; power *= 2) {
        for (size_t step = 0; step < STEPS; step++) {
            const size_t step_bytes = power / STEPS;
            const size_t middle_bytes = power + step * step_bytes;
            for (size_t bytes = middle_bytes - AROUND_BYTES; bytes < middle_bytes + AROUND_BYTES;
                 bytes++) {
                void *ptr = HmmRealloc(block(bytes + step_bytes), bytes);
                EXPECT_EQUAL(HmmUsableSize(ptr), bytes);
                HmmFree(ptr);
            }
        }
    }
    audit();
}

/* The byte behind each block, and where its seal begins. */
static void each_byte_behind_a_block_counts(size_t bytes_max, size_t step_bytes)
{
    for (size_t bytes = 1; bytes < bytes_max; bytes += step_bytes) {
        char *ptr = block(bytes);
        char what[60];
        put(ptr, (ptrdiff_t)bytes);
        snprintf(what, sizeof what, "write past the end: byte %zu, ", bytes);
        EXPECT(is_crime(commit_free, ptr, "free", ptr, what));
        char *volatile byte = ptr + bytes;
        *byte = (char)(*byte - 1);
        HmmFree(ptr);
    }
}

TEST_WITH(each_byte_behind_a_slot_counts, "hardened=1")
{
    each_byte_behind_a_block_counts(200, 7);
    each_byte_behind_a_block_counts(SMALL_BYTES_MAX + 2000, 997);
}

TEST_WITH(each_byte_behind_a_short_slot_counts_where_it_waits, "hardened=2")
{
    each_byte_behind_a_block_counts(200, 1);
}

TEST_WITH(each_byte_behind_a_block_with_sites_counts, "hardened=1,sites=1")
{
    hmm_sites_prepare();
    each_byte_behind_a_block_counts(80, 5);
}

/* With sites a slot of 16 bytes is all trailer. */
TEST_WITH(blocks_of_no_bytes_with_sites_come_and_go, "hardened=1,sites=1")
{
    enum { COUNT = 500 };
    static void *blocks[COUNT];
    hmm_sites_prepare();
    for (int i = 0; i < COUNT; i++) {
        blocks[i] = block(0);
        EXPECT_EQUAL(HmmUsableSize(blocks[i]), 0);
    }
    for (int i = 0; i < COUNT; i += 2) {
        HmmFree(blocks[i]);
    }
    for (int i = 1; i < COUNT; i += 2) {
        HmmFree(blocks[i]);
    }
    audit();
}

/* At the sizes where one room ends and the next one begins. */
static void blocks_at_the_edges(size_t edge_bytes)
{
    for (size_t bytes = edge_bytes - 40; bytes <= edge_bytes + 40; bytes++) {
        for (size_t alignment = 1; alignment <= 65536; alignment *= 16) {
            unsigned char *ptr = HmmAlignedAlloc(alignment, bytes);
            REQUIRE(ptr != NULL);
            EXPECT(is_aligned((uintptr_t)ptr, alignment));
            EXPECT_EQUAL(HmmUsableSize(ptr), bytes);
            content_write(ptr, bytes, 3);
            HmmFree(ptr);
        }
    }
    audit();
}

static void blocks_at_all_edges(void)
{
    blocks_at_the_edges(SMALL_BYTES_MAX);
    blocks_at_the_edges(256 * 1024);
}

TEST_WITH(edges_at_level_1, "hardened=1")
{
    blocks_at_all_edges();
}

TEST_WITH(edges_at_level_2_with_sites, "hardened=2,sites=1")
{
    hmm_sites_prepare();
    blocks_at_all_edges();
}

TEST_WITH(edges_at_level_3, "hardened=3")
{
    blocks_at_all_edges();
}

TEST_WITH(no_bytes_at_any_alignment, "hardened=2")
{
    for (size_t alignment = 1; alignment <= (size_t)1 << 22; alignment *= 2) {
        void *ptr = HmmAlignedAlloc(alignment, 0);
        REQUIRE(ptr != NULL);
        EXPECT(is_aligned((uintptr_t)ptr, alignment));
        EXPECT_EQUAL(HmmUsableSize(ptr), 0);
        ptr = HmmRealloc(ptr, 100);
        REQUIRE(ptr != NULL);
        memset(ptr, 1, 100);
        HmmFree(ptr);
    }
    audit();
}

/* -------------------------------------------------------------------------- what is left behind */

/* A block that shrinks where it lies leaves nothing of the rest. */
TEST_WITH(what_a_shrinking_block_leaves_is_zero, "hardened=1")
{
    enum { BYTES = 200000, LEFT_BYTES = 20000, PIECE_BYTES = 50000, PIECES = 3 };
    unsigned char *ptr = block(BYTES);
    memset(ptr, 0x5a, BYTES);
    EXPECT(HmmRealloc(ptr, LEFT_BYTES) == ptr);
    for (int i = 0; i < PIECES; i++) {
        const unsigned char *piece = block(PIECE_BYTES);
        size_t stale_count = 0;
        for (size_t at = 0; at < PIECE_BYTES; at++) {
            stale_count += piece[at] == 0x5a;
        }
        EXPECT(stale_count < 8);
    }
    audit();
}

/* What slabs and zones leave behind is links and tags. */
static void large_blocks_are_zero_after_small_ones(void)
{
    enum { COUNT = 20000 };
    static void *blocks[COUNT];
    for (int i = 0; i < COUNT; i++) {
        blocks[i] = block(i % 2 == 0 ? 200 : 100 + (size_t)i % 16000);
        put(blocks[i], 0);
    }
    for (int i = 0; i < COUNT; i++) {
        HmmFree(blocks[i]);
    }
    (void)hmm_guard_flush("malloc", hmm_thread.thread);
    for (int i = 0; i < 20; i++) {
        const unsigned char *ptr = HmmCalloc(1, LARGE_BYTES + (size_t)i * 1000);
        REQUIRE(ptr != NULL);
        EXPECT(content_is_zero(ptr, LARGE_BYTES + (size_t)i * 1000));
    }
    audit();
}

TEST_WITH(large_blocks_are_zero_at_level_1, "hardened=1")
{
    large_blocks_are_zero_after_small_ones();
}

TEST_WITH(large_blocks_are_zero_at_level_2, "hardened=2")
{
    large_blocks_are_zero_after_small_ones();
}

static size_t minor_faults(void)
{
    struct rusage usage;
    EXPECT(getrusage(RUSAGE_SELF, &usage) == 0);
    return (size_t)usage.ru_minflt;
}

/* Medium blocks that were never touched are zero, and stay as they are. Those that were used are
 * zero again, wherever links and tags have been meanwhile. */
TEST_WITH(medium_blocks_are_cleared_as_far_as_needed, "hardened=1")
{
    enum { COUNT = 200, BYTES = 200000, FAULTS_A_BLOCK = 8 };
    static unsigned char *blocks[COUNT];
    size_t faults = minor_faults();
    for (size_t i = 0; i < COUNT; i++) {
        blocks[i] = HmmCalloc(1, BYTES);
        REQUIRE(blocks[i] != NULL);
    }
    EXPECT(minor_faults() - faults < COUNT * FAULTS_A_BLOCK);
    for (size_t round = 0; round < 10; round++) {
        for (size_t i = 0; i < COUNT; i++) {
            size_t bytes =
                SMALL_BYTES_MAX + (i * 7919 + round * 104729) % (BYTES - SMALL_BYTES_MAX);
            HmmFree(blocks[i]);
            blocks[i] = HmmCalloc(1, bytes);
            REQUIRE(blocks[i] != NULL);
            EXPECT(content_is_zero(blocks[i], bytes));
            memset(blocks[i], 0x5a, bytes);
        }
    }
    audit();
}

TEST_WITH(fenced_blocks_are_zero_at_level_3, "hardened=3,purge=peak")
{
    enum { COUNT = 300 };
    static unsigned char *blocks[COUNT];
    for (int round = 0; round < 3; round++) {
        for (size_t i = 0; i < COUNT; i++) {
            blocks[i] = HmmCalloc(1, 1 + i * 211);
            REQUIRE(blocks[i] != NULL);
            EXPECT(content_is_zero(blocks[i], 1 + i * 211));
            memset(blocks[i], 0x5a, 1 + i * 211);
        }
        for (size_t i = 0; i < COUNT; i++) {
            HmmFree(blocks[i]);
        }
    }
    audit();
}

/* ---------------------------------------------------------------------------- writes after free */

/* Fills a page's slots of the class, frees them, damages one of them at `offset`, and allocates
 * until somebody notices. */
struct dirt {
    size_t bytes;
    ptrdiff_t offset;
    void *victim;
};

static void commit_reuse(void *argument)
{
    const struct dirt *dirt = argument;
    put(dirt->victim, dirt->offset);
    for (int i = 0; i < 3000; i++) {
        (void)block(dirt->bytes);
    }
}

static void commit_thread_end(void *argument)
{
    pthread_t thread;
    REQUIRE(pthread_create(&thread, NULL, argument, NULL) == 0);
    pthread_join(thread, NULL);
}

static void writes_after_free_are_seen(size_t bytes)
{
    enum { COUNT = 100 };
    void *blocks[COUNT];
    for (int i = 0; i < COUNT; i++) {
        blocks[i] = block(bytes);
    }
    for (int i = 0; i < COUNT; i++) {
        HmmFree(blocks[i]);
    }
    for (int i = 0; i < COUNT; i += 11) {
        for (ptrdiff_t offset = 0; offset < (ptrdiff_t)bytes; offset += 8) {
            struct dirt dirt = {bytes, offset, blocks[i]};
            struct end end = end_of(commit_reuse, &dirt);
            bool is_seen = end.signal == SIGABRT && strstr(end.line, "): write after free: byte ");
            if (!EXPECT(is_seen)) {
                case_say("# block %d, offset %zd: signal %d, %s\n", i, offset, end.signal,
                         end.line);
            }
        }
    }
}

TEST_WITH(writes_after_free_are_seen_at_reuse, "hardened=1")
{
    writes_after_free_are_seen(24);
    writes_after_free_are_seen(56);
    writes_after_free_are_seen(120);
    writes_after_free_are_seen(200);
}

TEST_WITH(the_last_slot_freed_is_looked_at_in_whole, "hardened=1")
{
    enum { BYTES = 56 };
    void *ptr = block(BYTES);
    HmmFree(ptr);
    for (ptrdiff_t offset = 0; offset < BYTES; offset++) {
        struct dirt dirt = {BYTES, offset, ptr};
        struct end end = end_of(commit_reuse, &dirt);
        if (!EXPECT(end.signal == SIGABRT && strstr(end.line, "): write after free: byte "))) {
            case_say("# offset %zd: signal %d, %s\n", offset, end.signal, end.line);
        }
    }
}

/* A thread that ends with a damaged link in its bin. */
static void *end_with_a_damaged_link(void *unused)
{
    enum { COUNT = 3000, BYTES = 40 };
    static void *blocks[COUNT];
    (void)unused;
    for (int i = 0; i < COUNT; i++) {
        blocks[i] = block(BYTES);
    }
    for (int i = 0; i < COUNT; i++) {
        HmmFree(blocks[i]);
    }
    for (int i = 0; i < COUNT / 2; i++) {
        (void)block(BYTES); /* more than a page has: the others are in the bin then */
    }
    for (int i = 0; i < COUNT; i++) {
        memset(blocks[i], 0x41, 8);
    }
    return NULL;
}

TEST_WITH(links_are_not_followed_at_a_threads_end, "hardened=1")
{
    struct end end = end_of(commit_thread_end, (void *)(uintptr_t)end_with_a_damaged_link);
    EXPECT_EQUAL(end.signal, SIGABRT);
    EXPECT(strstr(end.line, "): write after free: byte 0, ") != NULL);
}

/* ----------------------------------------------------------------------------------- quarantine */

TEST_WITH(quarantine_is_bounded, "hardened=2")
{
    enum { COUNT = 2000, BYTES = 4000 };
    static void *blocks[COUNT];
    size_t reused_count = 0;
    for (int i = 0; i < COUNT; i++) {
        blocks[i] = block(i % 3 == 0 ? 10 * BYTES : BYTES);
    }
    for (int i = 0; i < COUNT; i++) {
        HmmFree(blocks[i]);
        EXPECT(hmm_thread.thread->guarded->quarantine.bytes <= QUARANTINE_BYTES);
    }
    for (int i = 0; i < COUNT; i++) {
        const void *ptr = block(BYTES);
        for (int other = 0; other < COUNT; other++) {
            reused_count += ptr == blocks[other];
        }
    }
    EXPECT(reused_count > COUNT / 10);
    audit();
    hmm_guard_flush("malloc", hmm_thread.thread);
    EXPECT_EQUAL(hmm_thread.thread->guarded->quarantine.bytes, 0);
    audit();
}

/* Short slots wait apart from others: as many of them, whatever they have. */
TEST_WITH(short_slots_wait_in_places_of_their_own, "hardened=2")
{
    enum { COUNT = 4 * QUARANTINE_COUNT };
    static void *blocks[COUNT];
    const struct quarantine *quarantine;
    int held_count = 0;
    for (int i = 0; i < COUNT; i++) {
        blocks[i] = block(1 + (size_t)i % SHORT_ROOM_BYTES_MIN * 4);
    }
    quarantine = &hmm_thread.guarded->quarantine;
    for (int i = 0; i < COUNT; i++) {
        HmmFree(blocks[i]);
    }
    for (int i = 0; i < QUARANTINE_COUNT; i++) {
        const struct slot *slot = quarantine->slots[i].slot;
        held_count += slot != NULL;
        EXPECT(slot == NULL || quarantine->slots[i].slab == granule_of(slot));
    }
    EXPECT(held_count > QUARANTINE_COUNT / 2);
    audit();
    hmm_guard_flush("malloc", hmm_thread.thread);
    for (int i = 0; i < QUARANTINE_COUNT; i++) {
        EXPECT(quarantine->slots[i].slot == NULL);
    }
    audit();
}

/* Whoever finds no slots carved asks no further what lies there. */
TEST_WITH(what_is_no_slab_has_no_slots, "hardened=2")
{
    enum { COUNT = 3000, BYTES = 100 };
    static void *blocks[COUNT];
    for (int i = 0; i < COUNT; i++) {
        blocks[i] = block(BYTES);
    }
    for (int i = 0; i < COUNT; i++) {
        HmmFree(blocks[i]);
    }
    hmm_guard_flush("malloc", hmm_thread.thread);
    (void)hmm_alloc_trim(0);
    (void)block(3 * GRANULE_BYTES);
    (void)block(LARGE_BYTES);
    size_t free_count = 0;
    for (size_t index = 0; index < hmm_arena.frontier_count; index++) {
        const struct granule *granule = &hmm_arena.table[index];
        free_count += granule_kind(granule) == GRANULE_FREE;
        EXPECT(granule_kind(granule) == GRANULE_SLAB || slab_carved(granule) == 0);
    }
    EXPECT(free_count > 0);
}

/* How many calls after its free a block comes back. */
static unsigned calls_until_reuse(void)
{
    enum { BYTES = 100, CALLS_MAX = 100000 };
    void *ptr = block(BYTES);
    HmmFree(ptr);
    for (unsigned calls = 1; calls < CALLS_MAX; calls++) {
        void *other = block(BYTES);
        if (other == ptr) {
            HmmFree(other);
            return calls;
        }
        HmmFree(other);
    }
    return CALLS_MAX;
}

TEST_WITH(reuse_is_late_and_hard_to_guess, "hardened=2")
{
    enum { ROUNDS = 200 };
    unsigned calls[ROUNDS];
    int late_count = 0;
    int same_count = 0;
    for (int i = 0; i < ROUNDS; i++) {
        calls[i] = calls_until_reuse();
        late_count += calls[i] > 16;
        same_count += i > 0 && calls[i] == calls[i - 1];
    }
    /* One in sixteen comes back within that many calls. */
    EXPECT(late_count >= ROUNDS * 3 / 4);
    EXPECT(same_count <= ROUNDS / 10);
}

TEST_WITH(slots_of_a_page_come_in_any_order, "hardened=2")
{
    enum { COUNT = 30 };
    uintptr_t before = (uintptr_t)block(100);
    int up_count = 0;
    for (int i = 0; i < COUNT; i++) {
        uintptr_t ptr = (uintptr_t)block(100);
        up_count += ptr > before;
        before = ptr;
    }
    EXPECT(up_count > 3 && up_count < COUNT - 3);
}

/* --------------------------------------------------------------------------------------- fences */

/* There are so many fences, and then blocks do without. */
TEST_WITH(fences_run_out, "hardened=3")
{
    enum { COUNT = 9000, BYTES = 24 };
    static unsigned char *blocks[COUNT];
    int fenced_count = 0;
    for (int i = 0; i < COUNT; i++) {
        blocks[i] = block(BYTES);
        memset(blocks[i], 1, BYTES);
        fenced_count += granule_kind(granule_of(blocks[i])) == GRANULE_LARGE;
    }
    EXPECT(fenced_count > 4000 && fenced_count < COUNT);
    EXPECT_EQUAL(HmmUsableSize(blocks[COUNT - 1]), BYTES);
    for (int i = 0; i < COUNT; i++) {
        HmmFree(blocks[i]);
    }
    audit();
    hmm_fence_flush();
    audit();
    EXPECT(granule_kind(granule_of(block(BYTES))) == GRANULE_LARGE);
}

/* As a flag or a short at the beginning of an object would be set that was freed. */
TEST_WITH(links_lose_their_low_bytes_to_nobody, "hardened=1")
{
    struct slot *slot = block(100);
    struct slot *next = (struct slot *)align_down((uintptr_t)slot, GRANULE_BYTES);
    slot_link(slot, next);
    EXPECT(slot_next(slot) == next);
    const uintptr_t word = (uintptr_t)slot->next;
    for (uintptr_t damage = 1; damage <= UINT16_MAX; damage++) {
        slot->next = (struct slot *)(word ^ damage);
        EXPECT(!slot_is_near(slot, slot_next(slot)));
    }
}

static void commit_write_behind(void *ptr)
{
    ((volatile char *)ptr)[HmmUsableSize(ptr)] = 1;
    HmmFree(ptr);
}

/* Whole pages at multiples of more than a granule: no page of theirs has room for a seal. */
static void blocks_of_wide_alignments(void)
{
    static const size_t alignments[] = {64 << 10, 128 << 10, 2 << 20, 64 << 20};
    static const size_t sizes[] = {4096, 64 << 10, LARGE_BYTES, 512 << 10};
    for (size_t i = 0; i < 16; i++) {
        size_t alignment = alignments[i / 4];
        char *ptr = HmmAlignedAlloc(alignment, sizes[i % 4]);
        REQUIRE(ptr != NULL);
        EXPECT(is_aligned((uintptr_t)ptr, alignment));
        EXPECT_EQUAL(HmmUsableSize(ptr), sizes[i % 4]);
        memset(ptr, 1, sizes[i % 4]);
        struct end end = end_of(commit_write_behind, ptr);
        EXPECT(end.signal == SIGSEGV || strstr(end.line, "write past the end") != NULL);
        HmmFree(ptr);
        if (hmm_settings.guard.level >= GUARD_QUARANTINE && sizes[i % 4] >= LARGE_BYTES) {
            EXPECT(HmmAlignedAlloc(alignment, sizes[i % 4]) != ptr);
        }
        audit();
    }
    hmm_fence_flush();
    audit();
}

static void wide_alignments_are_guarded(void **state)
{
    (void)state;
    static const char *const options[] = {"hardened=1", "hardened=2", "hardened=3"};
    for (size_t i = 0; i < 3; i++) {
        in_a_process_with(options[i], blocks_of_wide_alignments);
    }
}

/* Whole pages, of which the last one has no room for what would be written behind them. */
TEST_WITH(writes_behind_whole_pages_are_seen, "hardened=1")
{
    static const size_t sizes[] = {256 << 10, 260 << 10, 512 << 10, 1 << 20};
    for (size_t i = 0; i < 4; i++) {
        struct end end = end_of(commit_write_behind, block(sizes[i]));
        EXPECT(strstr(end.line, "write past the end: ") != NULL);
        char *ptr = HmmRealloc(block(sizes[i] - 4096), sizes[i]);
        end = end_of(commit_write_behind, ptr);
        EXPECT(strstr(end.line, "write past the end: ") != NULL);
        HmmFree(ptr);
        audit();
    }
}

static void commit_read(void *ptr)
{
    (void)*(volatile char *)ptr;
}

TEST_WITH(blocks_of_no_bytes_have_any_alignment, "hardened=2")
{
    enum { ALIGNMENT_MAX = 8 << 20 };
    for (size_t alignment = 1; alignment <= ALIGNMENT_MAX; alignment *= 2) {
        void *first = HmmAlignedAlloc(alignment, 0);
        void *second = HmmAlignedAlloc(alignment, 0);
        EXPECT(first != NULL && second != NULL && first != second);
        EXPECT(is_aligned((uintptr_t)first, alignment) && is_aligned((uintptr_t)second, alignment));
        EXPECT_EQUAL(end_of(commit_read, first).signal, SIGSEGV);
        EXPECT_EQUAL(HmmUsableSize(first), 0);
        HmmFree(first);
        EXPECT(is_crime(commit_free, first, "free", first, "double free: "));
        HmmFree(second);
        audit();
    }
}

TEST_WITH(a_pointer_into_a_block_of_no_bytes, "hardened=2")
{
    char *ptr = block(0);
    EXPECT(is_crime(commit_free, ptr + 8, "free", ptr + 8, "invalid pointer, inside a block: "));
    EXPECT(is_crime(commit_free, ptr + 32, "free", ptr + 32, "invalid pointer, inside a block: "));
    HmmFree(ptr);
    EXPECT(is_crime(commit_free, ptr, "free", ptr, "double free: "));
}

/* A freed block keeps its pages while it waits, nobody can see them, and who gets them next
 * finds them zero. */
TEST_WITH(a_large_block_leaves_nothing_to_read, "hardened=2")
{
    unsigned char *first = block(LARGE_BYTES);
    memset(first, 1, LARGE_BYTES);
    size_t faults = minor_faults();
    HmmFree(first);
    hmm_fence_flush();
    audit();
    unsigned char *second = block(LARGE_BYTES);
    EXPECT(second == first);
    EXPECT(content_is_zero(second, LARGE_BYTES));
    EXPECT(UNIT_IS_SANITIZED || minor_faults() - faults < LARGE_BYTES / 4096 / 2);
    HmmFree(second);
    audit();
}

/* Blocks of many sizes until there are no more, and all of them freed. How much it was. */
static size_t fill_and_free(unsigned *random)
{
    enum { COUNT = 400, BYTES_RANGE = 1000000 };
    static unsigned char *blocks[COUNT];
    size_t sum_bytes = 0;
    int count = 0;
    while (count < COUNT) {
        *random = *random * 1103515245 + 12345;
        size_t bytes = LARGE_BYTES + (*random >> 8) % BYTES_RANGE;
        blocks[count] = HmmAlloc(bytes);
        if (blocks[count] == NULL) {
            break;
        }
        memset(blocks[count++], 1, bytes);
        sum_bytes += bytes;
    }
    for (int i = 0; i < count; i++) {
        HmmFree(blocks[i]);
    }
    return sum_bytes;
}

/* What is freed and waits leaves room for others, and has to find some when its wait is over. */
static void a_data_limit_leaves_room(void)
{
    enum { DATA_BYTES = 64 << 20, LEFT_BYTES = 16 << 20, ROUNDS = 12, PERCENT = 85 };
    const struct rlimit limit = {DATA_BYTES, DATA_BYTES};
    unsigned random = 1;
    size_t resident = resident_bytes();
    case_skip_where(UNIT_IS_SANITIZED, "a sanitizer is in the way");
    REQUIRE(setrlimit(RLIMIT_DATA, &limit) == 0);
    size_t first_bytes = fill_and_free(&random);
    EXPECT(first_bytes > DATA_BYTES / 2);
    for (int i = 1; i < ROUNDS; i++) {
        EXPECT(fill_and_free(&random) >= first_bytes / 100 * PERCENT);
        EXPECT(resident_bytes() < resident + LEFT_BYTES);
        audit();
    }
    int status = -1;
    pid_t child = fork();
    if (child == 0) {
        audit();
        EXPECT(fill_and_free(&random) >= first_bytes / 100 * PERCENT);
        audit();
        _exit(case_status());
    }
    EXPECT(waitpid(child, &status, 0) == child && status == 0);
}

TEST_WITH(a_data_limit_leaves_room_at_level_2, "hardened=2")
{
    a_data_limit_leaves_room();
}

TEST_WITH(a_data_limit_leaves_room_at_level_3, "hardened=3")
{
    a_data_limit_leaves_room();
}

/* Slabs come and go, and their fences stay: so these must not become more and more. */
TEST_WITH(fences_between_slabs_are_bounded, "hardened=2")
{
    enum { ROUNDS = 40, COUNT = 400, BYTES = 4000 };
    static void *blocks[COUNT];
    size_t taken_count = 0;
    for (int round = 0; round < ROUNDS; round++) {
        for (int i = 0; i < COUNT; i++) {
            blocks[i] = block(BYTES);
        }
        for (int i = 0; i < COUNT; i++) {
            HmmFree(blocks[i]);
        }
        hmm_alloc_trim(0);
        taken_count = round == 1 ? atomic_load(&hmm_arena.taken_count) : taken_count;
    }
    EXPECT(atomic_load(&hmm_arena.taken_count) <= taken_count + 2);
    audit();
}

/* What waits for its fences to be taken down is nobody's, and not free. */
TEST_WITH(a_child_keeps_what_waits, "hardened=2")
{
    enum { COUNT = 40 };
    for (size_t i = 0; i < COUNT; i++) {
        HmmFree(block(LARGE_BYTES + i * 4096));
    }
    int status = -1;
    pid_t child = fork();
    if (child == 0) {
        audit();
        for (size_t i = 0; i < COUNT; i++) {
            HmmFree(block(LARGE_BYTES + i * 4096));
        }
        hmm_fence_flush();
        audit();
        _exit(case_status());
    }
    EXPECT(waitpid(child, &status, 0) == child && status == 0);
}

/* -------------------------------------------------------------------------------- out of memory */

/* From now on the arena has no granule but those that it has memory for. */
static void arena_close(void)
{
    hmm_arena.granule_count = hmm_arena.committed_count;
}

/* What the arena has no room for lies in the block heap, aligned all the same. */
static void blocks_outside_the_arena(void)
{
    enum { COUNT = 200 };
    (void)block(10);
    arena_close();
    int outside_count = 0;
    for (size_t i = 0; i < COUNT; i++) {
        size_t alignment = (size_t)16 << i % 12;
        size_t bytes = i % 2 == 0 ? 50000 : 100;
        unsigned char *ptr = HmmAlignedAlloc(alignment, bytes);
        REQUIRE(ptr != NULL);
        EXPECT(is_aligned((uintptr_t)ptr, alignment));
        memset(ptr, 0x5a, bytes);
        outside_count += !arena_covers(ptr);
        ptr = HmmRealloc(ptr, 2 * bytes);
        REQUIRE(ptr != NULL && ptr[0] == 0x5a);
        HmmFree(ptr);
        ptr = HmmCalloc(1, bytes);
        REQUIRE(ptr != NULL);
        EXPECT(content_is_zero(ptr, bytes));
    }
    EXPECT(outside_count > COUNT / 4);
    audit();
}

TEST_WITH(blocks_outside_the_arena_at_level_1, "hardened=1")
{
    blocks_outside_the_arena();
}

TEST_WITH(blocks_outside_the_arena_at_level_2, "hardened=2")
{
    blocks_outside_the_arena();
}

/* Slots that nobody can carve for lack of a granule lie between medium blocks. */
TEST_WITH(small_blocks_find_room_among_medium_ones, "hardened=2,limit=64M")
{
    void *medium = block(20000);
    (void)medium;
    arena_close();
    int count = 0;
    void *ptr = HmmAlloc(100);
    while (ptr != NULL && count < 1000) {
        count++;
        ptr = HmmAlloc(100);
    }
    EXPECT_EQUAL(count, 1000);
    audit();
}

TEST_WITH(what_is_held_back_is_there_before_memory_runs_out, "hardened=2,limit=64M")
{
    enum { BYTES = 20000, COUNT = 2500 };
    static void *blocks[COUNT];
    int count = 0;
    while (count < COUNT && (blocks[count] = HmmAlloc(BYTES)) != NULL) {
        count++;
    }
    EXPECT(count > COUNT / 2 && count < COUNT * 2);
    for (int i = 0; i < 40; i++) {
        HmmFree(blocks[i]);
    }
    EXPECT(hmm_thread.thread->guarded->quarantine.bytes > 0);
    for (int i = 0; i < 40; i++) {
        blocks[i] = HmmAlloc(BYTES);
        EXPECT(blocks[i] != NULL);
    }
    audit();
}

static size_t fence_granule_count(void)
{
    size_t count = 0;
    for (size_t i = 0; i < hmm_arena.frontier_count; i++) {
        count += granule_kind(&hmm_arena.table[i]) == GRANULE_FENCE;
    }
    return count;
}

/* The fences between slabs are in nobody's way where the slabs have gone, and come
 * back with them. */
TEST_WITH(large_blocks_find_room_where_slabs_were, "hardened=2,limit=64M")
{
    enum { ROUNDS = 8, BYTES = 3000000, COUNT = 15, SLAB_FENCES_MIN = 30 };
    static void *blocks[COUNT];
    uint64_t random = 1;
    for (int round = 0; round < ROUNDS; round++) {
        void **last = run_out_of(5000, 1, &random);
        EXPECT(fence_granule_count() >= SLAB_FENCES_MIN);
        give_back(last);
        for (int i = 0; i < COUNT; i++) {
            blocks[i] = HmmAlloc(BYTES);
            EXPECT(blocks[i] != NULL);
        }
        audit();
        for (int i = 0; i < COUNT; i++) {
            HmmFree(blocks[i]);
        }
    }
    audit();
}

static void *run_out(void *random)
{
    give_back(run_out_of(16, 10, random));
    return NULL;
}

/* What a thread that has ended leaves behind becomes free only when memory runs out. */
TEST_WITH(a_large_block_finds_room_where_a_thread_has_been, "hardened=2,limit=64M")
{
    uint64_t random = 1;
    for (int round = 0; round < 12; round++) {
        pthread_t thread;
        REQUIRE(pthread_create(&thread, NULL, run_out, &random) == 0);
        pthread_join(thread, NULL);
        void *ptr = HmmAlloc(48 << 20);
        EXPECT(ptr != NULL);
        HmmFree(ptr);
    }
    audit();
}

/* Of blocks that come and go, and of which no two have the same size. What they keep once that is
 * learnt comes on top of no peak. */
TEST_WITH(freed_blocks_keep_the_pages_that_the_next_ones_need, "hardened=2")
{
    enum { OPERATIONS = 150, PLACES = 8, OVERHANG_BYTES = 16 << 20, LEFT_BYTES = 24 << 20 };
    static size_t bytes[PLACES];
    static unsigned char *blocks[PLACES];
    const size_t start_bytes = resident_bytes();
    const size_t unlearnt_bytes = hmm_purge_fenced_bound_bytes(0);
    size_t live_bytes = 0;
    size_t live_bytes_max = 0;
    size_t learnt_bytes = 0;
    uint64_t random = 1;
    for (int operation = 0; operation < OPERATIONS; operation++) {
        const size_t place = random_below(&random, PLACES);
        live_bytes -= bytes[place];
        HmmFree(blocks[place]);
        bytes[place] = (size_t)LARGE_BYTES << random_below(&random, 5);
        bytes[place] += random_below(&random, bytes[place]);
        blocks[place] = block(bytes[place]);
        memset(blocks[place], 1, bytes[place]);
        live_bytes += bytes[place];
        live_bytes_max = size_max(live_bytes_max, live_bytes);
        learnt_bytes = size_max(learnt_bytes, hmm_purge_fenced_bound_bytes(0));
        EXPECT(UNIT_IS_SANITIZED ||
               resident_bytes() < start_bytes + live_bytes_max + OVERHANG_BYTES);
    }
    EXPECT(learnt_bytes > unlearnt_bytes + live_bytes_max / 4);
    for (int place = 0; place < PLACES; place++) {
        HmmFree(blocks[place]);
    }
    EXPECT(UNIT_IS_SANITIZED || resident_bytes() < start_bytes + LEFT_BYTES);
    audit();
}

/* --------------------------------------------------------------------------------------- claims */

static void commit_realloc(void *ptr)
{
    (void)HmmRealloc(ptr, HmmUsableSize(ptr) - 1);
}

/* realloc in place is no less a call of the wrong family. A sanitizer brings operators of its own,
 * so nobody can tell there. */
TEST_WITH(realloc_of_what_new_made, "hardened=1")
{
    static const size_t sizes[] = {100, 20000, LARGE_BYTES};
    for (int i = 0; i < 3; i++) {
        void *ptr = hmm_alloc_new(16, sizes[i], ORIGIN_NEW);
        REQUIRE(ptr != NULL);
        EXPECT(UNIT_IS_SANITIZED || is_crime(commit_realloc, ptr, "realloc", ptr,
                                             "mismatched call: allocated by operator new, "));
        hmm_free_claimed(ptr, &(struct claim){.call = "operator delete", .origin = ORIGIN_NEW});
    }
}

/* ---------------------------------------------------------------------------- threads and forks */

/* Blocks that another thread frees, in both directions, while both allocate. */
enum { PASSED = 64 };
static _Atomic(void *) passed[PASSED];

static void *pass_blocks(void *salt)
{
    uint64_t random = (uintptr_t)salt * 77 + 1;
    for (int i = 0; i < 30000; i++) {
        size_t bytes = random_below(&random, 100);
        unsigned char *ptr = block(bytes);
        memset(ptr, 0xff, bytes);
        HmmFree(atomic_exchange_explicit(&passed[random_below(&random, PASSED)], ptr,
                                         memory_order_acq_rel));
    }
    return NULL;
}

static void threads_pass_blocks(void)
{
    pthread_t threads[4];
    for (uintptr_t i = 0; i < 4; i++) {
        REQUIRE(pthread_create(&threads[i], NULL, pass_blocks, (void *)i) == 0);
    }
    for (int i = 0; i < 4; i++) {
        pthread_join(threads[i], NULL);
    }
    for (int i = 0; i < PASSED; i++) {
        HmmFree(passed[i]);
    }
    audit();
}

TEST_WITH(threads_pass_blocks_at_level_1, "hardened=1")
{
    threads_pass_blocks();
}

TEST_WITH(threads_pass_blocks_at_level_2_with_sites, "hardened=2,sites=1")
{
    hmm_sites_prepare();
    threads_pass_blocks();
}

/* A thread that the child does not have held blocks back; the child has their memory. */
static pthread_barrier_t barrier;

static void *hold_back(void *unused)
{
    enum { COUNT = 200, BYTES = 1000 };
    void *blocks[COUNT];
    (void)unused;
    for (int i = 0; i < COUNT; i++) {
        blocks[i] = block(BYTES);
    }
    for (int i = 0; i < COUNT; i++) {
        HmmFree(blocks[i]);
    }
    pthread_barrier_wait(&barrier);
    pthread_barrier_wait(&barrier);
    return NULL;
}

static bool count_block(void *ptr, size_t bytes, uint32_t site, void *context)
{
    size_t *count = context;
    (void)ptr;
    (void)bytes;
    (void)site;
    *count += 1;
    return true;
}

TEST_WITH(a_child_has_what_vanished_threads_held_back, "hardened=2")
{
    enum { THREADS = 3, ROUNDS = 20 };
    pthread_t threads[THREADS];
    int status = -1;
    pthread_barrier_init(&barrier, NULL, THREADS + 1);
    for (int i = 0; i < THREADS; i++) {
        REQUIRE(pthread_create(&threads[i], NULL, hold_back, NULL) == 0);
    }
    pthread_barrier_wait(&barrier);
    pid_t child = fork();
    if (child == 0) {
        audit();
        hmm_guard_flush("malloc", hmm_thread.thread);
        hmm_thread_flush(hmm_thread.thread);
        (void)hmm_alloc_trim(0);
        HmmHeapStats stats;
        hmm_stats_get(&stats);
        EXPECT(stats.live_bytes < 100000);
        audit();
        _exit(case_status());
    }
    EXPECT(waitpid(child, &status, 0) == child && status == 0);
    pthread_barrier_wait(&barrier);
    for (int i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
    }
}

/* -------------------------------------------------------------------------------------- walking */

TEST_WITH(the_walk_sees_every_live_block, "hardened=2,sites=1")
{
    enum { COUNT = 300 };
    static void *blocks[COUNT];
    hmm_sites_prepare();
    size_t before_count = 0;
    size_t after_count = 0;
    hmm_guard_walk(count_block, &before_count);
    for (size_t i = 0; i < COUNT; i++) {
        blocks[i] = block(1 + i * 1100);
    }
    for (int i = 0; i < COUNT; i += 3) {
        HmmFree(blocks[i]);
    }
    hmm_guard_walk(count_block, &after_count);
    EXPECT_EQUAL(after_count - before_count, COUNT - COUNT / 3);
    audit();
}

/* ------------------------------------------------------------------------------------ the audit */

static bool is_broken(const char *invariant)
{
    const char *broken = hmm_guard_audit();
    return broken != NULL && strncmp(broken, invariant, strlen(invariant)) == 0;
}

TEST_WITH(the_audit_sees_what_is_wrong, "hardened=2")
{
    static const size_t sizes[] = {101, 20001};
    for (int i = 0; i < 2; i++) {
        char *ptr = block(sizes[i]);
        EXPECT(hmm_guard_audit() == NULL);
        ptr[sizes[i]] = 1;
        EXPECT(is_broken("G1: "));
        ptr[sizes[i]] = 0;
        HmmFree(ptr);
        EXPECT(hmm_guard_audit() == NULL);
        ptr[40] = 1;
        EXPECT(is_broken("G2: "));
        ptr[40] = 0;
        ptr[0] = 1;
        EXPECT(is_broken("G4: "));
        ptr[0] = 0;
    }
    char *first = (char *)granule_start(granule_of(block(100)));
    char *end = first + class_bytes(slab_class(granule_of(first)));
    end[-1] = 1;
    EXPECT(is_broken("G3: "));
    end[-1] = 0;
    EXPECT(hmm_guard_audit() == NULL);
}

/* ------------------------------------------------------------------------- large blocks resized */

static void commit_growth(void *ptr)
{
    (void)!HmmRealloc(ptr, LARGE_BYTES + 29500);
}

static void what_lies_behind_is_looked_at(unsigned char *ptr, size_t bytes)
{
    static const size_t behind[] = {0, 7, 100};
    const size_t page_bytes = 4096; /* the smallest: to its end it is looked at everywhere */
    for (size_t i = 0; i < sizeof behind / sizeof *behind; i++) {
        if (bytes % page_bytes + behind[i] < page_bytes) {
            put(ptr, (ptrdiff_t)(bytes + behind[i]));
            EXPECT(is_crime(commit_free, ptr, "free", ptr, "write past the end: "));
            ptr[bytes + behind[i]]--;
        }
    }
}

/* Grows in steps from one size to another and back; it may move so often. */
static void large_block_resized(size_t step_bytes, unsigned moves_max)
{
    const size_t least_bytes = 300001;
    const size_t most_bytes = 6000000;
    size_t bytes = least_bytes;
    unsigned moves = 0;
    unsigned char *ptr = block(bytes);
    memset(ptr, 1, bytes);
    while (bytes < most_bytes) {
        unsigned char *old = ptr;
        ptr = HmmRealloc(ptr, bytes + step_bytes);
        REQUIRE(ptr != NULL);
        moves += ptr != old;
        EXPECT(ptr[0] == 1 && ptr[bytes / 2] == 1 && ptr[bytes - 1] == 1);
        EXPECT(content_is_zero(ptr + bytes, step_bytes));
        memset(ptr + bytes, 1, step_bytes);
        bytes += step_bytes;
        EXPECT_EQUAL(HmmUsableSize(ptr), bytes);
    }
    EXPECT(memchr(ptr, 0, bytes) == NULL);
    EXPECT(moves <= moves_max);
    while (bytes > least_bytes + step_bytes) {
        bytes -= step_bytes;
        ptr = HmmRealloc(ptr, bytes);
        REQUIRE(ptr != NULL);
        EXPECT(ptr[0] == 1 && ptr[bytes - 1] == 1);
        EXPECT_EQUAL(HmmUsableSize(ptr), bytes);
    }
    EXPECT(memchr(ptr, 0, bytes) == NULL);
    unsigned char *grown = HmmRealloc(ptr, bytes + 2 * step_bytes);
    REQUIRE(grown != NULL);
    EXPECT(content_is_zero(grown + bytes, 2 * step_bytes));
    HmmFree(grown);
    audit();
}

static void large_blocks_resized(unsigned moves_max)
{
    large_block_resized(1000, moves_max);
    large_block_resized(4096, moves_max);
    large_block_resized(70000, 2 * moves_max);
}

TEST_WITH(large_blocks_are_resized_at_level_1, "hardened=1")
{
    large_blocks_resized(30);
}

TEST_WITH(large_blocks_are_resized_at_level_2, "hardened=2")
{
    large_blocks_resized(30);
}

TEST_WITH(large_blocks_are_resized_at_level_2_with_sites, "hardened=2,sites=1")
{
    hmm_sites_prepare();
    large_block_resized(70000, 60);
}

TEST_WITH(large_blocks_are_resized_at_level_3, "hardened=3")
{
    large_block_resized(300000, 20);
}

static void a_resized_block_is_looked_at(void)
{
    unsigned char *ptr = block(LARGE_BYTES);
    for (size_t bytes = LARGE_BYTES + 1000; bytes < LARGE_BYTES + 30000; bytes += 1000) {
        ptr = HmmRealloc(ptr, bytes);
        REQUIRE(ptr != NULL);
        what_lies_behind_is_looked_at(ptr, bytes);
    }
    const size_t bytes = HmmUsableSize(ptr);
    put(ptr, (ptrdiff_t)bytes);
    EXPECT(is_crime(commit_growth, ptr, "realloc", ptr, "write past the end: "));
    ptr[bytes] = 0;
    HmmFree(ptr);
    audit();
}

TEST_WITH(a_resized_block_is_looked_at_at_level_1, "hardened=1")
{
    a_resized_block_is_looked_at();
}

TEST_WITH(a_resized_block_is_looked_at_at_level_2, "hardened=2")
{
    a_resized_block_is_looked_at();
}

static void commit_shrink(void *ptr)
{
    (void)!HmmRealloc(ptr, LARGE_BYTES);
}

/* What shrinks is cleared up to its last page's end, so all of that is looked at. */
TEST_WITH(a_shrinking_block_is_looked_at_up_to_its_pages_end, "hardened=1")
{
    const size_t bytes = LARGE_BYTES + 20000;
    unsigned char *ptr = block(bytes);
    for (size_t at = bytes; at < align_up(bytes, hmm_os_page_bytes()); at += 100) {
        put(ptr, (ptrdiff_t)at);
        EXPECT(is_crime(commit_shrink, ptr, "realloc", ptr, "write past the end: "));
        ptr[at] = 0;
    }
    HmmFree(ptr);
    audit();
}

/* More often than blocks may have moved at a time. */
static void freed_blocks_leave_no_mapping(void)
{
    enum { ROUNDS = 250, BLOCKS = 4 };
    size_t mappings = 0;
    unsigned moved_count = 0;
    for (unsigned round = 0; round < ROUNDS; round++) {
        unsigned char *blocks[BLOCKS];
        for (int i = 0; i < BLOCKS; i++) {
            blocks[i] = block(4 * LARGE_BYTES);
        }
        memset(blocks[0], 1, 4 * LARGE_BYTES);
        blocks[0] = HmmRealloc(blocks[0], 9 * LARGE_BYTES);
        REQUIRE(blocks[0] != NULL);
        EXPECT(memchr(blocks[0], 0, 4 * LARGE_BYTES) == NULL);
        EXPECT(content_is_zero(blocks[0] + 4 * LARGE_BYTES, 5 * LARGE_BYTES));
        moved_count += granule_of(blocks[0])->has_moved;
        for (int i = 0; i < BLOCKS; i++) {
            HmmFree(blocks[i]);
        }
        mappings = round == 0 ? mapping_count() : mappings;
    }
    EXPECT(UNIT_IS_SANITIZED || mapping_count() <= mappings + 8);
    EXPECT(moved_count == 0 || moved_count == ROUNDS); /* some systems move nothing */
    audit();
}

TEST_WITH(freed_blocks_leave_no_mapping_at_level_1, "hardened=1")
{
    freed_blocks_leave_no_mapping();
}

/* As when the system refuses fences. */
TEST_WITH(freed_blocks_leave_no_mapping_at_level_2, "hardened=2")
{
    atomic_store(&hmm_fences.count_max, 0);
    freed_blocks_leave_no_mapping();
}

/* In the block heap nobody would know of room behind a block. */
TEST_WITH(a_block_that_grows_out_of_the_arena_gets_no_room, "hardened=2")
{
    const size_t bytes = (size_t)4 * LARGE_BYTES;
    const size_t grown_bytes = bytes + bytes / 16;
    unsigned char *inside = block(bytes);
    arena_close();
    unsigned char *next = block(bytes);
    while (arena_covers(next)) {
        inside = next;
        next = block(bytes);
    }
    unsigned char *grown = HmmRealloc(inside, grown_bytes);
    REQUIRE(grown != NULL);
    EXPECT(!arena_covers(grown));
    EXPECT_EQUAL(HmmUsableSize(grown), grown_bytes);
    HmmFree(grown);
    audit();
}

/* -------------------------------------------------------------------------------------- level 0 */

/* A slot that nobody has had yet: next to the last one that was handed out. */
TEST_WITH(a_slot_that_was_never_handed_out, NULL)
{
    char *ptr = block(48);
    for (int i = 0; i < 10; i++) {
        ptr = block(48);
    }
    char *next = ptr + 48;
    EXPECT(granule_of(next) == granule_of(ptr) && slab_is_slot(granule_of(next), next));
    EXPECT(end_of(commit_free, next).signal == SIGABRT);
    EXPECT(HmmAlloc(48) == next);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(usable_is_what_was_asked_for),
        cmocka_unit_test(a_handler_is_told_and_may_leave),
        cmocka_unit_test(a_block_beside_a_damaged_tag_is_as_it_was),
        cmocka_unit_test(realloc_beside_damage_leaks_nothing),
        cmocka_unit_test(abort_follows_a_handler_that_returns),
        cmocka_unit_test(reused_medium_blocks_tell_their_size),
        cmocka_unit_test(resized_medium_blocks_tell_their_size),
        cmocka_unit_test(each_byte_behind_a_slot_counts),
        cmocka_unit_test(each_byte_behind_a_short_slot_counts_where_it_waits),
        cmocka_unit_test(each_byte_behind_a_block_with_sites_counts),
        cmocka_unit_test(blocks_of_no_bytes_with_sites_come_and_go),
        cmocka_unit_test(edges_at_level_1),
        cmocka_unit_test(edges_at_level_2_with_sites),
        cmocka_unit_test(edges_at_level_3),
        cmocka_unit_test(no_bytes_at_any_alignment),
        cmocka_unit_test(what_a_shrinking_block_leaves_is_zero),
        cmocka_unit_test(large_blocks_are_zero_at_level_1),
        cmocka_unit_test(large_blocks_are_zero_at_level_2),
        cmocka_unit_test(medium_blocks_are_cleared_as_far_as_needed),
        cmocka_unit_test(fenced_blocks_are_zero_at_level_3),
        cmocka_unit_test(writes_after_free_are_seen_at_reuse),
        cmocka_unit_test(the_last_slot_freed_is_looked_at_in_whole),
        cmocka_unit_test(links_are_not_followed_at_a_threads_end),
        cmocka_unit_test(quarantine_is_bounded),
        cmocka_unit_test(short_slots_wait_in_places_of_their_own),
        cmocka_unit_test(what_is_no_slab_has_no_slots),
        cmocka_unit_test(reuse_is_late_and_hard_to_guess),
        cmocka_unit_test(slots_of_a_page_come_in_any_order),
        cmocka_unit_test(fences_run_out),
        cmocka_unit_test(links_lose_their_low_bytes_to_nobody),
        cmocka_unit_test(wide_alignments_are_guarded),
        cmocka_unit_test(writes_behind_whole_pages_are_seen),
        cmocka_unit_test(blocks_of_no_bytes_have_any_alignment),
        cmocka_unit_test(a_pointer_into_a_block_of_no_bytes),
        cmocka_unit_test(a_large_block_leaves_nothing_to_read),
        cmocka_unit_test(a_data_limit_leaves_room_at_level_2),
        cmocka_unit_test(a_data_limit_leaves_room_at_level_3),
        cmocka_unit_test(fences_between_slabs_are_bounded),
        cmocka_unit_test(a_child_keeps_what_waits),
        cmocka_unit_test(blocks_outside_the_arena_at_level_1),
        cmocka_unit_test(blocks_outside_the_arena_at_level_2),
        cmocka_unit_test(small_blocks_find_room_among_medium_ones),
        cmocka_unit_test(what_is_held_back_is_there_before_memory_runs_out),
        cmocka_unit_test(large_blocks_find_room_where_slabs_were),
        cmocka_unit_test(a_large_block_finds_room_where_a_thread_has_been),
        cmocka_unit_test(freed_blocks_keep_the_pages_that_the_next_ones_need),
        cmocka_unit_test(realloc_of_what_new_made),
        cmocka_unit_test(threads_pass_blocks_at_level_1),
        cmocka_unit_test(threads_pass_blocks_at_level_2_with_sites),
        cmocka_unit_test(a_child_has_what_vanished_threads_held_back),
        cmocka_unit_test(the_walk_sees_every_live_block),
        cmocka_unit_test(the_audit_sees_what_is_wrong),
        cmocka_unit_test(large_blocks_are_resized_at_level_1),
        cmocka_unit_test(large_blocks_are_resized_at_level_2),
        cmocka_unit_test(large_blocks_are_resized_at_level_2_with_sites),
        cmocka_unit_test(large_blocks_are_resized_at_level_3),
        cmocka_unit_test(a_resized_block_is_looked_at_at_level_1),
        cmocka_unit_test(a_resized_block_is_looked_at_at_level_2),
        cmocka_unit_test(a_shrinking_block_is_looked_at_up_to_its_pages_end),
        cmocka_unit_test(freed_blocks_leave_no_mapping_at_level_1),
        cmocka_unit_test(freed_blocks_leave_no_mapping_at_level_2),
        cmocka_unit_test(a_block_that_grows_out_of_the_arena_gets_no_room),
        cmocka_unit_test(a_slot_that_was_never_handed_out),
    };
    cmocka_set_test_filter(argc > 1 ? argv[1] : NULL);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
