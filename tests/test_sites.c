/*
 * test_sites.c - call stacks as numbers: the same stack is the same number, and none is lost.
 */
#include "sites.h"
#include "unit.h"

#include <pthread.h>

enum { THREADS = 4, ROUNDS = 2000, DEPTH_MAX = 40 };

static _Atomic int after_call;

static __attribute__((noinline)) uint32_t capture_here(void)
{
    uint32_t site = hmm_sites_capture();
    after_call++;
    return site;
}

/* Each depth is another stack; recursion is what the test is about. */
static __attribute__((noinline)) uint32_t capture_at(int depth)
{
    uint32_t site = depth == 0 ? capture_here() : capture_at(depth - 1);
    after_call++;
    return site;
}

static void nothing_is_captured_before_it_is_prepared(void **state)
{
    (void)state;
    assert_int_equal(hmm_sites_capture(), 0);
    uintptr_t frame;
    assert_int_equal(hmm_sites_frames(1, &frame, 1), 0);
    hmm_sites_prepare();
    hmm_sites_prepare();
    assert_int_not_equal(hmm_sites_capture(), 0);
}

static void a_stack_has_one_number(void **state)
{
    (void)state;
    uint32_t sites[2];
    for (volatile int turn = 0; turn < 2; turn++) { /* volatile: one call, not two copies of it */
        sites[turn] = capture_here();
    }
    assert_int_not_equal(sites[0], 0);
    assert_int_equal(sites[0], sites[1]);
    assert_int_not_equal(sites[0], capture_here());
}

static void the_caller_is_among_the_frames(void **state)
{
    (void)state;
    uintptr_t frames[SITE_FRAMES_MAX];
    size_t count = hmm_sites_frames(capture_at(3), frames, SITE_FRAMES_MAX);
    assert_in_range(count, 5, SITE_FRAMES_MAX);
    uintptr_t start = (uintptr_t)capture_at;
    size_t within = 0;
    for (size_t i = 0; i < count; i++) {
        within += frames[i] > start && frames[i] < start + 256;
    }
    assert_int_equal(within, 4);
    assert_int_equal(hmm_sites_frames(capture_at(3), frames, 2), 2);
}

static void deep_stacks_are_cut(void **state)
{
    (void)state;
    uintptr_t frames[SITE_FRAMES_MAX];
    uint32_t site = capture_at(DEPTH_MAX);
    assert_int_not_equal(site, 0);
    assert_int_equal(hmm_sites_frames(site, frames, SITE_FRAMES_MAX), SITE_FRAMES_MAX);
}

static void wild_numbers_lead_nowhere(void **state)
{
    (void)state;
    enum { MOST = 2, UNTOUCHED = 77 };
    uintptr_t frames[SITE_FRAMES_MAX];
    uint32_t site = capture_here();
    for (uint32_t wild = 0; wild < site; wild++) {
        for (size_t i = 0; i < SITE_FRAMES_MAX; i++) {
            frames[i] = UNTOUCHED;
        }
        assert_true(hmm_sites_frames(wild, frames, MOST) <= MOST);
        for (size_t i = MOST; i < SITE_FRAMES_MAX; i++) {
            assert_int_equal(frames[i], UNTOUCHED);
        }
    }
    assert_int_equal(hmm_sites_frames(0, frames, 1), 0);
    assert_int_equal(hmm_sites_frames(site + 1, frames, 1), 0);
    assert_int_equal(hmm_sites_frames(UINT32_MAX, frames, 1), 0);
}

static void errno_stays(void **state)
{
    (void)state;
    errno = 77;
    (void)capture_at(1);
    assert_int_equal(errno, 77);
}

struct worker {
    pthread_t thread;
    uint32_t sites[DEPTH_MAX];
    bool is_steady;
};

static void *work(void *context)
{
    struct worker *worker = context;
    worker->is_steady = true;
    for (int round = 0; round < ROUNDS; round++) {
        int depth = round % DEPTH_MAX;
        uint32_t site = capture_at(depth);
        worker->is_steady &= site != 0 && (round < DEPTH_MAX || worker->sites[depth] == site);
        worker->sites[depth] = site;
    }
    return NULL;
}

static void threads_agree(void **state)
{
    (void)state;
    static struct worker workers[THREADS];
    for (int i = 0; i < THREADS; i++) {
        assert_int_equal(pthread_create(&workers[i].thread, NULL, work, &workers[i]), 0);
    }
    for (int i = 0; i < THREADS; i++) {
        assert_int_equal(pthread_join(workers[i].thread, NULL), 0);
        assert_true(workers[i].is_steady);
        assert_memory_equal(workers[i].sites, workers[0].sites, sizeof workers[0].sites);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_is_captured_before_it_is_prepared),
        cmocka_unit_test(a_stack_has_one_number),
        cmocka_unit_test(the_caller_is_among_the_frames),
        cmocka_unit_test(deep_stacks_are_cut),
        cmocka_unit_test(wild_numbers_lead_nowhere),
        cmocka_unit_test(errno_stays),
        cmocka_unit_test(threads_agree),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
