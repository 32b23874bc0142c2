/*
 * test_threads.c - threads and forks on the fast engine, by the names of hmm.h. See test_fast.c.
 *
 * test_threads [PATTERN], SEED of the environment.
 */
#include "fast.h"

#include <sched.h>
#include <stdatomic.h>

/* -------------------------------------------------------------------------------------- threads */

enum { THREADS = 8, SHARED = 300, SHARED_SIZES = 4 };

static _Atomic(struct parcel *) shared[SHARED];

static void shared_swap(size_t place, struct parcel *parcel)
{
    /* acquire and release: the content goes over with the address */
    parcel_drop(atomic_exchange_explicit(&shared[place % SHARED], parcel, memory_order_acq_rel));
}

static void shared_clear(void)
{
    for (size_t i = 0; i < SHARED; i++) {
        shared_swap(i, NULL);
    }
}

static void *swap_run(void *number)
{
    uint64_t random = seed + (uintptr_t)number * 0x9e3779b97f4a7c15u + 1;
    for (int step = 0; step < 20000 && case_failure_count == 0; step++) {
        shared_swap(random_next(&random) >> 20,
                    parcel_new(random_bytes(&random) / (step % 2 == 0 ? 1 : 8), (uint32_t)step));
    }
    return NULL;
}

TEST(threads_free_each_others_blocks)
{
    threads_run(THREADS, swap_run);
    shared_clear();
    (void)hmm_alloc_trim(0);
    audit();
    EXPECT(taken_count() <= 2 * CLASS_COUNT);
}

static void *leave_run(void *number)
{
    uint64_t random = seed + (uintptr_t)number * 977;
    for (size_t i = 0; i < SHARED; i++) {
        shared_swap(i, parcel_new(random_bytes(&random), (uint32_t)i));
    }
    return NULL;
}

/* Blocks outlive the threads that made them, again and again. */
TEST(threads_leave_blocks_behind)
{
    for (int round = 0; round < 10; round++) {
        threads_run(THREADS, leave_run);
        audit();
        for (size_t i = 0; i < SHARED; i += 2) {
            shared_swap(i, NULL);
        }
        audit();
    }
    shared_clear();
    (void)hmm_alloc_trim(0);
    audit();
    EXPECT(taken_count() <= 2 * CLASS_COUNT);
}

/* What a visitor does: blocks of its own, some that it leaves, and some that others left. */
static void *visit_run(void *number)
{
    uint64_t random = seed + (uintptr_t)number;
    struct parcel *own[50];
    for (size_t i = 0; i < 50; i++) {
        own[i] = parcel_new(random_below(&random, 3000), (uint32_t)i);
    }
    for (size_t i = 0; i < 50; i++) {
        if (i % 5 == 0) {
            shared_swap(random_below(&random, SHARED), own[i]);
        } else {
            parcel_drop(own[i]);
        }
    }
    return NULL;
}

TEST(brief_threads_cost_nothing_in_the_end)
{
    size_t frontier_before = 0;
    size_t resident_before = 0;
    for (int round = 0; round < 300; round++) {
        threads_run(1 + round % 3, visit_run);
        if (round == 100) {
            frontier_before = hmm_arena.frontier_count;
            resident_before = resident_bytes();
        }
        if (round % 20 == 0) {
            audit();
        }
    }
    EXPECT(hmm_arena.frontier_count <= frontier_before + CLASS_COUNT);
    EXPECT(UNIT_IS_SANITIZED || resident_bytes() <= resident_before + 2 * MEBIBYTE);
    shared_clear();
    audit();
}

enum { RING = 1024, RING_BLOCKS = 300000 };
static _Atomic(struct parcel *) ring[RING];

static struct parcel *ring_take(int place)
{
    struct parcel *parcel = NULL;
    while (parcel == NULL) {
        parcel = atomic_exchange_explicit(&ring[place % RING], NULL, memory_order_acquire);
        if (parcel == NULL) {
            sched_yield();
        }
    }
    return parcel;
}

static void ring_put(int place, struct parcel *parcel)
{
    struct parcel *empty = NULL;
    while (!atomic_compare_exchange_weak_explicit(&ring[place % RING], &empty, parcel,
                                                  memory_order_release, memory_order_relaxed)) {
        empty = NULL;
        sched_yield();
    }
}

/* A thread that only frees. */
static void *consume_run(void *unused)
{
    (void)unused;
    for (int i = 0; i < RING_BLOCKS; i++) {
        parcel_drop(ring_take(i));
    }
    return NULL;
}

TEST(a_consumer_keeps_nothing)
{
    pthread_t consumer;
    uint64_t random = seed;
    size_t frontier_before = 0;
    REQUIRE(pthread_create(&consumer, NULL, consume_run, NULL) == 0);
    for (int i = 0; i < RING_BLOCKS; i++) {
        ring_put(i, parcel_new(random_below(&random, 400), (uint32_t)i));
        if (i == RING_BLOCKS / 5) {
            frontier_before = hmm_arena.frontier_count;
        }
    }
    pthread_join(consumer, NULL);
    /* What is live is a ring of 1024 blocks, and each class keeps some slabs for itself. */
    EXPECT(hmm_arena.frontier_count <= frontier_before + 2 * GRANULE_BYTES * 32 / GRANULE_BYTES);
    EXPECT(taken_count() << GRANULE_SHIFT <= 16 * MEBIBYTE);
    audit();
    (void)hmm_alloc_trim(0);
    audit();
}

static void *drop_opening(void *blocks)
{
    void **block = blocks;
    for (int i = 1; i < PUSHED_SLOTS_MAX; i++) {
        free_fast(*block++);
    }
    EXPECT(hmm_thread.thread == NULL);
    for (int i = 0; i < PUSHED_SLOTS_MAX; i++) {
        errno = 1234;
        free_fast(*block++);
        EXPECT(errno == 1234);
        EXPECT(thread_is_open(hmm_thread.thread));
        EXPECT(hmm_thread.thread->batched_slots == (uint32_t)i + 1);
        EXPECT(hmm_thread.thread->classes[class_of(40)].current == NULL);
    }
    return NULL;
}

TEST(who_frees_much_gets_batches)
{
    void *blocks[2 * PUSHED_SLOTS_MAX];
    pthread_t freer;
    if (!libc_shows_who_is_gone()) {
        return;
    }
    threads_run(1, visit_run); /* whose slabs lie dormant, for somebody who allocates */
    for (int i = 0; i < 2 * PUSHED_SLOTS_MAX; i++) {
        blocks[i] = alloc_fast(40);
        REQUIRE(blocks[i] != NULL);
    }
    REQUIRE(pthread_create(&freer, NULL, drop_opening, blocks) == 0);
    pthread_join(freer, NULL);
    shared_clear();
    audit();
}

/* One makes a million bytes of blocks, another frees them after the maker has gone. */
static struct parcel *heir[40000];

static void *make_heir(void *unused)
{
    (void)unused;
    for (int i = 0; i < 40000; i++) {
        heir[i] = parcel_new((size_t)(i % 300), (uint32_t)i);
    }
    return NULL;
}

static void *drop_heir(void *unused)
{
    (void)unused;
    for (int i = 0; i < 40000; i++) {
        parcel_drop(heir[(size_t)i * 7919 % 40000]);
    }
    return NULL;
}

TEST(what_the_dead_left_is_given_back)
{
    size_t frontier_before = 0;
    for (int round = 0; round < 8; round++) {
        threads_run(1, make_heir);
        audit();
        threads_run(1, drop_heir);
        audit();
        frontier_before = round == 1 ? hmm_arena.frontier_count : frontier_before;
    }
    EXPECT(hmm_arena.frontier_count <= frontier_before + 8);
    (void)hmm_alloc_trim(0);
    audit();
    EXPECT(taken_count() <= CLASS_COUNT);
}

/* A process that becomes threaded with thousands of slabs of its own. */
TEST(the_first_thread_shares_what_it_had)
{
    make_heir(NULL);
    size_t taken_before = taken_count();
    threads_run(1, drop_heir);
    for (int round = 0; round < 5; round++) {
        make_heir(NULL);
        EXPECT(taken_count() <= taken_before + CLASS_COUNT);
        threads_run(2, visit_run);
        drop_heir(NULL);
        audit();
    }
    shared_clear();
    (void)hmm_alloc_trim(0);
    audit();
    EXPECT(taken_count() <= 2 * CLASS_COUNT);
}

/* ------------------------------------------------------------------- sizes that a thread has left */

enum { LEFT_BYTES = 700, LEFT_COUNT = 2000, OTHER_BYTES = 100, OTHER_COUNT = 200000 };

static void *left[LEFT_COUNT];

static size_t left_slab_count(void)
{
    HmmStats stats;
    HmmGetStats(&stats);
    return stats.classes[class_of(LEFT_BYTES)].slab_count;
}

/* As many as the first thread has free. */
static void *take_left(void *count)
{
    const size_t before = left_slab_count();
    for (uintptr_t i = 0; i < (uintptr_t)count; i++) {
        EXPECT(HmmAlloc(LEFT_BYTES) != NULL);
    }
    EXPECT_EQUAL(left_slab_count(), before);
    return NULL;
}

static void *nothing(void *unused)
{
    return unused;
}

/* Every second block goes, and so the thread has a slab at hand, full ones and partial ones. It
 * goes on with another size, and others find them all. */
TEST(what_a_thread_uses_no_more_is_for_others)
{
    threads_run(1, nothing);
    for (size_t i = 0; i < LEFT_COUNT; i++) {
        left[i] = HmmAlloc(LEFT_BYTES);
        EXPECT(left[i] != NULL);
    }
    for (size_t i = 0; i < LEFT_COUNT; i += 2) {
        HmmFree(left[i]);
    }
    void *last = NULL;
    for (size_t i = 0; i < OTHER_COUNT; i++) {
        void *ptr = HmmAlloc(OTHER_BYTES);
        EXPECT(ptr != NULL);
        if (i % 1000 != 0) { /* some stay, so that the bin is filled again and again */
            HmmFree(last);
            last = ptr;
        }
    }
    audit();
    pthread_t thread;
    REQUIRE(pthread_create(&thread, NULL, take_left, (void *)(uintptr_t)(LEFT_COUNT / 2)) == 0);
    pthread_join(thread, NULL);
    audit();
}

/* ------------------------------------------------------------------- calls after a thread's end */

static pthread_key_t late_key;
static atomic_int late_calls;

struct late {
    struct parcel *early; /* made before the thread's end */
    int round;
};

/* Keys are destroyed in the order of their making, so the library has ended the thread already. */
static void late_destroy(void *value)
{
    struct late *late = value;
    static const size_t bytes[] = {1, 100, 5000, 8192, 20000, 2 * MEBIBYTE};
    EXPECT(UNIT_IS_SANITIZED || hmm_thread.thread == &hmm_thread_closed);
    for (int i = 0; i < 6; i++) {
        unsigned char *ptr = HmmAlloc(bytes[i]);
        REQUIRE(ptr != NULL);
        content_write(ptr, bytes[i], 5);
        ptr = HmmRealloc(ptr, bytes[i] * 2);
        EXPECT(ptr != NULL && content_is(ptr, bytes[i], 5));
        HmmFree(ptr);
        ptr = HmmCalloc(1, bytes[i]);
        EXPECT(ptr != NULL && content_is_zero(ptr, bytes[i]));
        HmmFree(ptr);
        shared_swap((size_t)(atomic_fetch_add(&late_calls, 1) * 7), parcel_new(bytes[i], 9));
    }
    parcel_drop(late->early);
    late->early = parcel_new(3000, 1);
    if (late->round++ < 2) {
        (void)pthread_setspecific(late_key, late);
    } else {
        parcel_drop(late->early);
        HmmFree(late);
    }
}

static void *late_run(void *number)
{
    struct late *late = HmmAlloc(sizeof *late);
    *late = (struct late){parcel_new(1000, 4), 0};
    (void)pthread_setspecific(late_key, late);
    return visit_run(number);
}

TEST(destructors_of_keys_may_allocate)
{
    enum { ROUNDS = UNIT_IS_SANITIZED ? 5 : 20 };
    REQUIRE(pthread_key_create(&late_key, late_destroy) == 0);
    for (int round = 0; round < ROUNDS; round++) {
        threads_run(4, late_run);
        audit();
    }
    EXPECT_EQUAL(late_calls, ROUNDS * 4 * 3 * 6);
    shared_clear();
    (void)hmm_alloc_trim(0);
    audit();
    EXPECT(taken_count() <= 2 * CLASS_COUNT);
}

/* ------------------------------------------------------ the same thread pointer, another thread */

static uintptr_t last_pointer;
static int reused_count;

static void *reuse_run(void *number)
{
    reused_count += last_pointer == thread_pointer();
    last_pointer = thread_pointer();
    for (size_t i = 0; i < SHARED; i++) {
        shared_swap(i * 7, parcel_new(i * 10, (uint32_t)i));
    }
    return number;
}

TEST(a_thread_pointer_is_used_again)
{
    for (int round = 0; round < 40; round++) {
        threads_run(1, reuse_run);
        if (round % 3 == 0) {
            threads_run(6, leave_run);
        }
        audit();
    }
    EXPECT(UNIT_IS_SANITIZED || reused_count > 0);
    shared_clear();
    (void)hmm_alloc_trim(0);
    audit();
}

/* ------------------------------------------------------------------ bins that their thread left */

enum { KEPT_BYTES = 64 };

static struct slot *kept_slots; /* what the thread that ended had at hand */
static uint64_t kept_refills;

static void *fill_bin(void *unused)
{
    EXPECT(HmmAlloc(KEPT_BYTES) != NULL);
    kept_slots = hmm_thread.bins[class_of(KEPT_BYTES)];
    kept_refills = hmm_thread.thread->refill_count;
    EXPECT(kept_slots != NULL);
    return unused;
}

static void *find_bin(void *unused)
{
    EXPECT(HmmAlloc(KEPT_BYTES) == (void *)kept_slots);
    EXPECT(hmm_thread.thread->refill_count == kept_refills);
    return unused;
}

static HmmClassStats kept_stats(void)
{
    HmmStats stats;
    HmmGetStats(&stats);
    return stats.classes[class_of(KEPT_BYTES)];
}

TEST(the_next_thread_finds_the_bins)
{
    threads_run(1, fill_bin);
    audit();
    HmmClassStats stats = kept_stats();
    EXPECT(stats.live_count == 1 && stats.cached_count > 0 && stats.free_count == 0);
    threads_run(1, find_bin);
    audit();
    EXPECT(kept_stats().live_count == 2);
}

TEST(who_needs_slots_takes_the_bins_of_the_dead)
{
    threads_run(1, fill_bin);
    size_t cached_count = kept_stats().cached_count;
    size_t taken_before = taken_count();
    for (size_t i = 0; i < cached_count; i++) {
        EXPECT(HmmAlloc(KEPT_BYTES) != NULL);
    }
    audit();
    EXPECT(taken_count() == taken_before);
}

TEST(a_child_has_the_bins_of_the_dead)
{
    threads_run(1, fill_bin);
    int status = -1;
    pid_t child = fork();
    if (child == 0) {
        audit();
        EXPECT(kept_stats().live_count == 1);
        _exit(case_status());
    }
    EXPECT(waitpid(child, &status, 0) == child && status == 0);
}

TEST(bins_of_the_dead_go_back)
{
    threads_run(1, fill_bin);
    (void)hmm_alloc_trim(0);
    audit();
    EXPECT(kept_stats().cached_count == 0);
}

/* ---------------------------------------------------------------------------------------- forks */

enum { FORKS = UNIT_IS_SANITIZED ? 20 : 200, INHERITED = 200, BUSY = 2 };

static atomic_bool must_stop;
static atomic_int going_count;
static struct parcel *inherited[INHERITED];

static void *busy_run(void *number)
{
    uint64_t random = seed + (uintptr_t)number * 31 + 7;
    struct parcel *own[64] = {NULL};
    bool is_counted = false;
    while (!atomic_load(&must_stop)) {
        for (int i = 0; i < 64; i++) {
            size_t bytes = random_bytes(&random);
            parcel_drop(own[i]);
            own[i] = parcel_new(bytes < 100000 ? bytes : bytes / 64, (uint32_t)i);
            if (i % 4 == 0) {
                shared_swap(random_below(&random, SHARED), own[i]);
                own[i] = NULL;
            }
        }
        if (!is_counted) {
            atomic_fetch_add(&going_count, 1);
            is_counted = true;
        }
    }
    for (int i = 0; i < 64; i++) {
        parcel_drop(own[i]);
    }
    return NULL;
}

/* Threads that come and go meanwhile. */
static void *churn_run(void *unused)
{
    atomic_fetch_add(&going_count, 1);
    while (!atomic_load(&must_stop)) {
        threads_run(3, visit_run);
    }
    return unused;
}

static void *make_inherited(void *unused)
{
    (void)unused;
    for (size_t i = 1; i < INHERITED; i += 2) {
        inherited[i] = parcel_new(i * 50, (uint32_t)i);
    }
    return NULL;
}

/* A child allocates at once, finds all invariants, frees what it has from its parent, be it made by
 * threads that are not there, and has threads and children of its own. */
static _Noreturn void forked_run(int round)
{
    uint64_t random = seed + (uint64_t)round;
    struct held held[100] = {0};
    alarm(CHILD_SECONDS / 2);
    for (int i = 0; i < 300; i++) {
        held_step(&held[random_below(&random, 100)], &random);
    }
    audit();
    for (int i = 0; i < INHERITED; i++) {
        parcel_drop(inherited[i]);
    }
    audit();
    shared_clear();
    audit();
    /* A sanitizer has no threads in a child of a process that has them. */
    if (round % 10 == 0 && !UNIT_IS_SANITIZED) {
        threads_run(2, visit_run);
        audit();
    }
    if (round % 20 == 0) {
        int status = -1;
        pid_t child = fork();
        if (child == 0) {
            (void)visit_run(NULL);
            audit();
            _exit(case_status());
        }
        EXPECT(waitpid(child, &status, 0) == child && status == 0);
    }
    (void)hmm_alloc_trim(0);
    audit();
    if (round % 3 == 0) {
        exit(case_status());
    }
    _exit(case_status());
}

TEST(forks_among_busy_threads)
{
    pthread_t threads[BUSY];
    for (intptr_t i = 0; i < BUSY; i++) {
        REQUIRE(pthread_create(&threads[i], NULL, i == 0 ? churn_run : busy_run, (void *)i) == 0);
    }
    while (atomic_load(&going_count) < BUSY) {
        sched_yield();
    }
    for (int round = 0; round < FORKS && case_failure_count == 0; round++) {
        int status = -1;
        for (size_t i = 0; i < INHERITED; i += 2) {
            inherited[i] = parcel_new(i * 50, (uint32_t)i);
        }
        threads_run(1, make_inherited);
        pid_t child = fork();
        if (child == 0) {
            forked_run(round);
        }
        EXPECT(child > 0 && waitpid(child, &status, 0) == child);
        EXPECT_EQUAL(status, 0);
        for (int i = 0; i < INHERITED; i++) {
            parcel_drop(inherited[i]);
        }
    }
    atomic_store(&must_stop, true);
    for (int i = 0; i < BUSY; i++) {
        pthread_join(threads[i], NULL);
    }
    shared_clear();
    (void)hmm_alloc_trim(0);
    audit();
}

enum { HOARDED = 40000, HOARDED_BYTES = 96, HOARD_SHARE = 100 };

/* Threads that hold slabs full of free slots, and wait. */
static void *hoard_run(void *unused)
{
    void **slots = malloc(HOARDED * sizeof *slots);
    for (int i = 0; i < HOARDED; i++) {
        slots[i] = HmmAlloc(HOARDED_BYTES);
    }
    for (int i = 0; i < HOARDED; i++) {
        if (i % HOARD_SHARE != 0) {
            HmmFree(slots[i]);
        }
    }
    free(slots);
    atomic_fetch_add(&going_count, 1);
    while (!atomic_load(&must_stop)) {
        sched_yield();
    }
    return unused;
}

TEST(a_child_has_what_vanished_threads_held)
{
    enum { HOARDERS = 3 };
    pthread_t threads[HOARDERS];
    int status = -1;
    for (int i = 0; i < HOARDERS; i++) {
        REQUIRE(pthread_create(&threads[i], NULL, hoard_run, NULL) == 0);
    }
    while (atomic_load(&going_count) < HOARDERS) {
        sched_yield();
    }
    pid_t child = fork();
    if (child == 0) {
        alarm(CHILD_SECONDS);
        audit();
        size_t frontier_before = hmm_arena.frontier_count;
        size_t taken_before = taken_count();
        size_t slot_count = taken_before * class_capacity(class_of(HOARDED_BYTES)) / 100 * 95 -
                            HOARDERS * HOARDED / HOARD_SHARE;
        EXPECT(slot_count > HOARDED);
        for (size_t i = 0; i < slot_count; i++) {
            REQUIRE(HmmAlloc(HOARDED_BYTES) != NULL);
        }
        EXPECT(hmm_arena.frontier_count <= frontier_before + 1);
        EXPECT(taken_count() <= taken_before + 3);
        audit();
        _exit(case_status());
    }
    EXPECT(waitpid(child, &status, 0) == child && status == 0);
    atomic_store(&must_stop, true);
    for (int i = 0; i < HOARDERS; i++) {
        pthread_join(threads[i], NULL);
    }
    audit();
}

/* A thread that vanishes while it carves a new slab, of which nothing is carved yet for
 * all to see. */
static struct granule *half_carved;

static void *carve_half(void *unused)
{
    enum { WRITTEN_BYTES = 30000 };
    EXPECT(HmmAlloc(HOARDED_BYTES) != NULL);
    struct thread *thread = hmm_thread.thread;
    atomic_store(&thread->is_busy, true);
    half_carved = hmm_slab_create(class_of(HOARDED_BYTES), thread->self);
    REQUIRE(half_carved != NULL);
    memset((void *)granule_start(half_carved), 1, WRITTEN_BYTES);
    atomic_fetch_add(&going_count, 1);
    while (!atomic_load(&must_stop)) {
        sched_yield();
    }
    half_carved->is_zero = false;
    hmm_slab_release(half_carved);
    atomic_store(&thread->is_busy, false);
    return unused;
}

TEST(a_child_distrusts_what_was_being_carved)
{
    pthread_t thread;
    int status = -1;
    REQUIRE(pthread_create(&thread, NULL, carve_half, NULL) == 0);
    while (atomic_load(&going_count) < 1) {
        sched_yield();
    }
    pid_t child = fork();
    if (child == 0) {
        audit();
        EXPECT(granule_kind(half_carved) == GRANULE_FREE && granule_is_touched(half_carved));
        _exit(case_status());
    }
    EXPECT(waitpid(child, &status, 0) == child && status == 0);
    atomic_store(&must_stop, true);
    pthread_join(thread, NULL);
    audit();
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(threads_free_each_others_blocks),
        cmocka_unit_test(threads_leave_blocks_behind),
        cmocka_unit_test(brief_threads_cost_nothing_in_the_end),
        cmocka_unit_test(a_consumer_keeps_nothing),
        cmocka_unit_test(who_frees_much_gets_batches),
        cmocka_unit_test(what_the_dead_left_is_given_back),
        cmocka_unit_test(the_first_thread_shares_what_it_had),
        cmocka_unit_test(what_a_thread_uses_no_more_is_for_others),
        cmocka_unit_test(destructors_of_keys_may_allocate),
        cmocka_unit_test(a_thread_pointer_is_used_again),
        cmocka_unit_test(the_next_thread_finds_the_bins),
        cmocka_unit_test(who_needs_slots_takes_the_bins_of_the_dead),
        cmocka_unit_test(a_child_has_the_bins_of_the_dead),
        cmocka_unit_test(bins_of_the_dead_go_back),
        cmocka_unit_test(forks_among_busy_threads),
        cmocka_unit_test(a_child_has_what_vanished_threads_held),
        cmocka_unit_test(a_child_distrusts_what_was_being_carved),
    };
    seed = seed_draw();
    cmocka_set_test_filter(argc > 1 ? argv[1] : NULL);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
