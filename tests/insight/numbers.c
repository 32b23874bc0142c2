/*
 * numbers.c - what HmmGetStats and its relatives say, against what the program knows of itself.
 */
#include "cases.h"

#include <errno.h>
#include <fcntl.h>
#include <hmm.h>
#include <malloc.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

enum { BLOCKS = 500, SMALL_BYTES = 48, MEDIUM_BYTES = 20000, LARGE_BYTES = 1 << 20 };

static void *blocks[BLOCKS];

static void take(int count, size_t bytes)
{
    for (int i = 0; i < count; i++) {
        blocks[i] = malloc(bytes);
        REQUIRE(blocks[i] != NULL);
        memset(blocks[i], 1, bytes);
    }
}

static void give(int count)
{
    for (int i = 0; i < count; i++) {
        free(blocks[i]);
    }
}

static HmmStats stats_now(void)
{
    HmmStats stats;
    HmmGetStats(&stats);
    return stats;
}

static const HmmClassStats *class_for(const HmmStats *stats, size_t bytes)
{
    for (size_t i = 0; i < stats->class_count; i++) {
        if (stats->classes[i].slot_bytes >= bytes) {
            return &stats->classes[i];
        }
    }
    return NULL;
}

/* What holds at any time. */
static void expect_sums(const HmmStats *stats)
{
    size_t small_bytes = 0;
    size_t cached_bytes = 0;
    for (size_t i = 0; i < stats->class_count; i++) {
        const HmmClassStats *class = &stats->classes[i];
        size_t slot_count = class->live_count + class->cached_count + class->free_count;
        small_bytes += class->live_count * class->slot_bytes;
        cached_bytes += class->cached_count * class->slot_bytes;
        EXPECT(slot_count * class->slot_bytes <= class->slab_count * 65536);
    }
    EXPECT_EQUAL(small_bytes, stats->small_bytes);
    EXPECT(cached_bytes <= stats->cached_bytes); /* medium blocks in quarantine */
    EXPECT_EQUAL(stats->live_bytes, stats->small_bytes + stats->medium_bytes + stats->large_bytes +
                                        stats->other_bytes);
    EXPECT(stats->live_bytes + stats->cached_bytes + stats->free_bytes <= stats->held_bytes);
    EXPECT(stats->held_bytes <= stats->mapped_bytes);
    EXPECT(stats->peak_bytes != 0);
    EXPECT(stats->held_bytes <= stats->reserved_bytes && stats->reserved_bytes < SIZE_MAX / 2);
    EXPECT(stats->resident_bytes > 4096);
}

static void small_blocks_are_counted_by_class(void)
{
    free(malloc(SMALL_BYTES));
    HmmStats before = stats_now();
    take(BLOCKS, SMALL_BYTES);
    HmmStats during = stats_now();
    give(BLOCKS);
    HmmStats after = stats_now();
    expect_sums(&before);
    expect_sums(&during);
    expect_sums(&after);
    EXPECT_EQUAL(during.live_count - before.live_count, BLOCKS);
    EXPECT_EQUAL(during.live_bytes - before.live_bytes, BLOCKS * SMALL_BYTES);
    EXPECT_EQUAL(class_for(&during, SMALL_BYTES)->live_count -
                     class_for(&before, SMALL_BYTES)->live_count,
                 BLOCKS);
    EXPECT_EQUAL(after.live_bytes, before.live_bytes);
    EXPECT_EQUAL(after.live_count, before.live_count);
}

static void larger_blocks_are_counted_by_kind(void)
{
    free(malloc(MEDIUM_BYTES));
    HmmStats before = stats_now();
    take(10, MEDIUM_BYTES);
    HmmStats medium = stats_now();
    EXPECT(medium.medium_bytes - before.medium_bytes >= 10 * MEDIUM_BYTES);
    EXPECT(medium.medium_bytes - before.medium_bytes <
           10 * (MEDIUM_BYTES + MEDIUM_BYTES / 16 + 64)); /* they are rounded */
    EXPECT_EQUAL(medium.small_bytes, before.small_bytes);
    give(10);
    take(3, LARGE_BYTES);
    HmmStats large = stats_now();
    EXPECT_EQUAL(large.large_bytes - before.large_bytes, 3 * LARGE_BYTES);
    EXPECT_EQUAL(large.live_count - before.live_count, 3);
    expect_sums(&large);
    give(3);
}

/* What a signal handler prints. */
static size_t peeked(const char *label)
{
    static char text[1 << 16];
    FILE *file = tmpfile();
    int standard_error = dup(STDERR_FILENO);
    REQUIRE(file != NULL && dup2(fileno(file), STDERR_FILENO) >= 0);
    raise(SIGUSR1);
    REQUIRE(dup2(standard_error, STDERR_FILENO) >= 0 && close(standard_error) == 0);
    ssize_t length = pread(fileno(file), text, sizeof text - 1, 0);
    REQUIRE(length > 0 && fclose(file) == 0);
    const char *line = strstr(text, label);
    REQUIRE(line != NULL);
    return strtoul(line + strlen(label), NULL, 10);
}

/* Another thread's bins: it has freed all, and waits. */
static pthread_barrier_t barrier;

static void *free_and_wait(void *argument)
{
    void *mine[1000];
    for (int i = 0; i < 1000; i++) {
        mine[i] = malloc(100);
    }
    for (int i = 0; i < 1000; i++) {
        free(mine[i]);
    }
    (void)malloc(100); /* what was freed becomes the bin; this one is lost, as the test wants it */
    pthread_barrier_wait(&barrier);
    pthread_barrier_wait(&barrier);
    return argument;
}

static void threads_bins_are_not_live(void)
{
    pthread_t thread;
    free(malloc(100));
    (void)peeked("live blocks");
    HmmStats before = stats_now();
    size_t peeked_before = peeked("live blocks");
    pthread_barrier_init(&barrier, NULL, 2);
    REQUIRE(pthread_create(&thread, NULL, free_and_wait, NULL) == 0);
    pthread_barrier_wait(&barrier);
    HmmStats during = stats_now();
    size_t peeked_during = peeked("live blocks");
    pthread_barrier_wait(&barrier);
    pthread_join(thread, NULL);
    EXPECT_EQUAL(class_for(&during, 100)->live_count, class_for(&before, 100)->live_count + 1);
    EXPECT(class_for(&during, 100)->cached_count > class_for(&before, 100)->cached_count);
    EXPECT_EQUAL(peeked_during - peeked_before, during.live_count - before.live_count);
    expect_sums(&during);
}

static void mallinfo_agrees(void)
{
    take(BLOCKS, 1000);
    HmmStats stats = stats_now();
    struct mallinfo2 info = mallinfo2();
    give(BLOCKS);
    EXPECT(info.uordblks >= stats.live_bytes);
    EXPECT_EQUAL(info.arena, info.uordblks + info.fordblks);
    EXPECT(info.fordblks >= stats.cached_bytes);
    EXPECT_EQUAL(info.keepcost, stats.dirty_bytes);
}

/* Hardened, too: what the program has freed is not live, wherever it waits. */
static void what_was_freed_is_not_live(void)
{
    static const size_t sizes[] = {24, 100, 1000, 8000, MEDIUM_BYTES, 100000, LARGE_BYTES};
    enum { COUNT = 20 };
    (void)peeked("live blocks");
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        free(malloc(sizes[i]));
        HmmStats before = stats_now();
        size_t peeked_before = peeked("live blocks");
        take(COUNT, sizes[i]);
        give(COUNT);
        EXPECT_EQUAL(peeked("live blocks"), peeked_before);
        HmmStats after = stats_now();
        EXPECT_EQUAL(after.live_count, before.live_count);
        EXPECT_EQUAL(after.live_bytes, before.live_bytes);
        expect_sums(&after);
    }
}

/* Hardened, too, where they have a place of their own. */
static void blocks_of_0_bytes_are_counted(void)
{
    free(malloc(0));
    (void)peeked("live blocks");
    HmmStats before = stats_now();
    size_t peeked_before = peeked("live blocks");
    take(BLOCKS, 0);
    HmmStats during = stats_now();
    EXPECT_EQUAL(during.live_count - before.live_count, BLOCKS);
    EXPECT_EQUAL(peeked("live blocks") - peeked_before, BLOCKS);
    give(BLOCKS);
    HmmStats after = stats_now();
    EXPECT_EQUAL(after.live_count, before.live_count);
    expect_sums(&during);
}

static void odd_formats_are_refused(void)
{
    errno = 0;
    EXPECT(!HmmPrintStats(STDOUT_FILENO, (HmmStatsFormat)7));
    EXPECT_EQUAL(errno, EINVAL);
    errno = 0;
    EXPECT(!HmmPrintStats(-1, HMM_STATS_JSON));
    EXPECT_EQUAL(errno, EBADF);
}

/* What is said to people has the live bytes in it; errno stays, whatever the printing met. */
static void people_are_told_the_same(void)
{
    enum { TEXT_BYTES = 1 << 16 };
    static char text[TEXT_BYTES];
    int ends[2];
    EXPECT(pipe(ends) == 0 && fcntl(ends[1], F_SETPIPE_SZ, TEXT_BYTES) >= TEXT_BYTES);
    errno = EDOM;
    EXPECT(HmmPrintStats(ends[1], HMM_STATS_TEXT));
    EXPECT_EQUAL(errno, EDOM);
    close(ends[1]);
    ssize_t length = read(ends[0], text, sizeof text - 1);
    EXPECT(length > 0 && text[length - 1] == '\n');
    EXPECT(strstr(text, "live") != NULL && strchr(text, '{') == NULL);
    close(ends[0]);
}

static void ignore_signal(int number)
{
    (void)number;
}

static size_t read_bytes;

/* Into a pipe that nobody reads before the alarm has interrupted the writing. */
static void *read_late(void *file)
{
    char byte;
    struct timespec pause = {0, 300000000};
    nanosleep(&pause, NULL);
    for (read_bytes = 0; read(*(int *)file, &byte, 1) == 1;) {
        read_bytes++;
    }
    return file;
}

/* How many bytes it writes, by all that is read of the pipe. */
static size_t interrupt_while(void (*write_into)(int file))
{
    enum { PIPE_BYTES = 4096, FULL_BYTES = PIPE_BYTES - 1 };
    static char filling[FULL_BYTES];
    int ends[2];
    pthread_t reader;
    sigset_t alarms;
    struct sigaction action = {.sa_handler = ignore_signal}; /* without SA_RESTART */
    struct itimerval soon = {.it_value = {0, 100000}};
    EXPECT(pipe(ends) == 0 && fcntl(ends[1], F_SETPIPE_SZ, PIPE_BYTES) == PIPE_BYTES);
    EXPECT(write(ends[1], filling, sizeof filling) == (ssize_t)sizeof filling);
    sigemptyset(&alarms);
    sigaddset(&alarms, SIGALRM);
    EXPECT(sigaction(SIGALRM, &action, NULL) == 0);
    pthread_sigmask(SIG_BLOCK, &alarms, NULL);
    EXPECT(pthread_create(&reader, NULL, read_late, &ends[0]) == 0);
    pthread_sigmask(SIG_UNBLOCK, &alarms, NULL);
    EXPECT(setitimer(ITIMER_REAL, &soon, NULL) == 0);
    write_into(ends[1]);
    close(ends[1]);
    pthread_join(reader, NULL);
    close(ends[0]);
    return read_bytes - sizeof filling;
}

static void print_into(int file)
{
    errno = EDOM;
    EXPECT(HmmPrintStats(file, HMM_STATS_JSON));
    EXPECT_EQUAL(errno, EDOM);
}

static jmp_buf after_crime;

static void leave(const char *message, const void *ptr, void *context)
{
    (void)ptr;
    *(size_t *)context = strlen(message);
    longjmp(after_crime, 1);
}

static volatile size_t line_bytes; /* of the crime */

static void commit_into(int file)
{
    const int errors = dup(STDERR_FILENO);
    EXPECT(dup2(file, STDERR_FILENO) == STDERR_FILENO);
    (void)HmmSetFatalHandler(leave, (size_t *)(uintptr_t)&line_bytes);
    if (setjmp(after_crime) == 0) {
        free((void *)(uintptr_t)&line_bytes);
    }
    (void)HmmSetFatalHandler(NULL, NULL);
    EXPECT(dup2(errors, STDERR_FILENO) == STDERR_FILENO);
    close(errors);
}

static void an_interrupted_write_goes_on(void)
{
    EXPECT(interrupt_while(print_into) > 0);
    size_t written_bytes = interrupt_while(commit_into);
    EXPECT(line_bytes > 0);
    EXPECT_EQUAL(written_bytes, line_bytes);
}

/* Signals come at any moment of the allocator's. HMM_OPTIONS names the signal. */
static void *storm(void *argument)
{
    for (int i = 0; i < 300; i++) {
        raise(SIGUSR1);
        void *block = malloc((size_t)i * 100);
        free(block);
    }
    return argument;
}

static volatile bool is_over;

static void *kill_often(void *argument)
{
    pthread_t target = *(pthread_t *)argument;
    while (!is_over) {
        pthread_kill(target, SIGUSR1);
        usleep(200);
    }
    return NULL;
}

static void signals_print_at_any_moment(void)
{
    pthread_t self = pthread_self();
    pthread_t threads[3];
    int nothing = open("/dev/null", O_WRONLY);
    REQUIRE(nothing >= 0 && dup2(nothing, STDERR_FILENO) >= 0);
    REQUIRE(pthread_create(&threads[0], NULL, kill_often, &self) == 0);
    REQUIRE(pthread_create(&threads[1], NULL, storm, NULL) == 0);
    REQUIRE(pthread_create(&threads[2], NULL, storm, NULL) == 0);
    for (int round = 0; round < 300; round++) {
        take(BLOCKS / 5, (size_t)(round % 40) * 500 + 1);
        give(BLOCKS / 5);
    }
    is_over = true;
    for (int i = 0; i < 3; i++) {
        pthread_join(threads[i], NULL);
    }
}

CASES_MAIN(CASE(small_blocks_are_counted_by_class), CASE(larger_blocks_are_counted_by_kind),
           CASE(threads_bins_are_not_live), CASE(mallinfo_agrees), CASE(what_was_freed_is_not_live),
           CASE(blocks_of_0_bytes_are_counted), CASE(odd_formats_are_refused),
           CASE(people_are_told_the_same), CASE(an_interrupted_write_goes_on),
           CASE(signals_print_at_any_moment))
