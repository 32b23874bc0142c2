/*
 * corners.c - where programs find themselves: no mappings left, no keys left, no /proc, no memory
 * for a last word, calls before anything is ready and after everything has ended.
 *
 * PLUGIN is an environment variable: the path of a library to load. Each case is a process
 * of its own.
 */
#include "workers.h"

#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <malloc.h>
#include <signal.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <ucontext.h>

enum {
    KIBIBYTE = 1 << 10,
    MEBIBYTE = 1 << 20,
    LIMIT_SECONDS = 25,
    MAPPINGS_MAX = 1 << 20, /* more than that many are not filled up in a test's time */
    SPARE_MAPPINGS = 300,
    KEYS_MAX = 4096,
    STORM = 60,
};

static const char keys_are_gone_before_us_name[] = "keys_are_gone_before_us";

/* Blocks of all rooms. Returns whether all were to be had; those that were are whole. */
static bool use_heap(void)
{
    bool is_whole = true;
    for (size_t bytes = 10; bytes < 5 * MEBIBYTE; bytes = bytes * 3 + 1) {
        errno = EDOM;
        unsigned char *block = malloc(bytes);
        EXPECT_EQUAL(errno, block != NULL ? EDOM : ENOMEM);
        if (block == NULL) {
            is_whole = false;
            continue;
        }
        memset(block, 7, bytes);
        errno = EDOM;
        unsigned char *resized = realloc(block, 2 * bytes);
        EXPECT_EQUAL(errno, resized != NULL ? EDOM : ENOMEM);
        is_whole &= resized != NULL;
        block = resized != NULL ? resized : block;
        EXPECT(block[0] == 7 && block[bytes - 1] == 7);
        errno = EDOM;
        free(block);
        EXPECT_EQUAL(errno, EDOM);
    }
    return is_whole;
}

/* ----------------------------------------------------------------------------- no mappings left */

struct filler {
    unsigned char *start;
    size_t pages;
    size_t page_bytes;
};

static struct filler filler;

static size_t mappings_max(void)
{
    char text[32] = "";
    FILE *file = fopen("/proc/sys/vm/max_map_count", "r");
    if (file != NULL) {
        (void)!fgets(text, sizeof text, file);
        fclose(file);
    }
    return strtoul(text, NULL, 10);
}

/* Every second page of a range becomes readable, and so a mapping of its own, until the kernel has
 * had enough; then some are left for others. */
static void mappings_fill(size_t spare)
{
    size_t most = mappings_max();
    case_skip_where(most == 0 || most > MAPPINGS_MAX, "a process may have too many mappings");
    filler.page_bytes = (size_t)sysconf(_SC_PAGESIZE);
    filler.pages = 2 * most;
    filler.start = mmap(NULL, filler.pages * filler.page_bytes, PROT_NONE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    REQUIRE(filler.start != MAP_FAILED);
    size_t page = 1;
    while (page < filler.pages &&
           mprotect(filler.start + page * filler.page_bytes, filler.page_bytes, PROT_READ) == 0) {
        page += 2;
    }
    REQUIRE(page < filler.pages && errno == ENOMEM);
    for (size_t i = 0; i < spare / 2; i++) {
        page -= 2;
        REQUIRE(mprotect(filler.start + page * filler.page_bytes, filler.page_bytes, PROT_NONE) ==
                0);
    }
}

static void mappings_release(void)
{
    REQUIRE(munmap(filler.start, filler.pages * filler.page_bytes) == 0);
}

static void no_mapping_is_left_from_the_start(void)
{
    mappings_fill(0);
    (void)use_heap();
    mappings_release();
    EXPECT(use_heap());
}

/* What was there can be used and freed, and nothing is forgotten. */
static void no_mapping_is_left_later(void)
{
    enum { HELD = 200 };
    static unsigned char *held[HELD];
    for (size_t i = 0; i < HELD; i++) {
        held[i] = malloc(i * i * 40 + 1);
        REQUIRE(held[i] != NULL);
        memset(held[i], (int)i, i * i * 40 + 1);
    }
    mappings_fill(0);
    for (size_t i = 0; i < HELD; i++) {
        EXPECT(held[i][0] == i && held[i][i * i * 40] == i);
        if (i % 2 == 0) {
            errno = EDOM;
            free(held[i]);
            EXPECT_EQUAL(errno, EDOM);
            held[i] = NULL;
        }
        if (i % 20 == 0) {
            (void)use_heap();
        }
    }
    mappings_release();
    EXPECT(use_heap());
    for (size_t i = 1; i < HELD; i += 2) {
        EXPECT(held[i][0] == i && held[i][i * i * 40] == i);
        free(held[i]);
    }
}

/* So few are enough for any heap. */
static void few_mappings_are_enough(void)
{
    enum { HELD = 2000 };
    static unsigned char *held[HELD];
    mappings_fill(SPARE_MAPPINGS);
    for (size_t round = 0; round < 3; round++) {
        for (size_t i = round; i < HELD; i += round + 1) {
            size_t bytes = 1 + i * 7919 % (i % 8 == 0 ? 4 * MEBIBYTE : 30 * KIBIBYTE);
            unsigned char *resized = realloc(held[i], bytes);
            REQUIRE(resized != NULL);
            held[i] = resized;
            held[i][0] = held[i][bytes - 1] = 1;
        }
    }
    for (size_t i = 0; i < HELD; i++) {
        free(held[i]);
    }
    EXPECT(use_heap());
}

/* --------------------------------------------------------------------------------- no keys left */

static pthread_key_t keys[KEYS_MAX];
static int key_count;

static void keys_take_all(void (*destroy)(void *value))
{
    while (key_count < KEYS_MAX && pthread_key_create(&keys[key_count], destroy) == 0) {
        key_count++;
    }
}

/* Called with what main is called with, before any constructor, the library's as well. */
static void keys_take_before_us(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], keys_are_gone_before_us_name) == 0) {
        keys_take_all(NULL);
    }
}

__attribute__((section(".preinit_array"),
               used)) static void (*const preinit)(int argc, char **argv) = keys_take_before_us;

static size_t used_by_storms(int threads)
{
    for (int i = 0; i < threads; i++) {
        workers_visit(WORKERS);
    }
    return mallinfo2().uordblks;
}

/* Nobody tells us of a thread's end then, and still nothing is left behind. */
static void keys_are_gone_before_us(void)
{
    alarm(LIMIT_SECONDS);
    EXPECT(key_count >= PTHREAD_KEYS_MAX / 2);
    EXPECT(use_heap());
    size_t before = used_by_storms(1);
    EXPECT(used_by_storms(STORM) <= before + 40 * KIBIBYTE);
}

static atomic_int destroyed_count;

/* Frees, and allocates again, after the library's own destructor as well as before it. */
static void key_destroy(void *value)
{
    free(value);
    free(malloc(700));
    atomic_fetch_add(&destroyed_count, 1);
}

static void *thread_set_all_keys(void *unused)
{
    for (int i = 0; i < key_count; i++) {
        void *value = malloc(20 + (size_t)i);
        REQUIRE(value != NULL && pthread_setspecific(keys[i], value) == 0);
    }
    return unused;
}

static void keys_are_gone_after_us(void)
{
    alarm(LIMIT_SECONDS);
    EXPECT(use_heap());
    keys_take_all(key_destroy);
    EXPECT(key_count >= PTHREAD_KEYS_MAX / 2);
    for (int i = 0; i < STORM; i++) {
        pthread_t thread;
        REQUIRE(pthread_create(&thread, NULL, thread_set_all_keys, NULL) == 0);
        REQUIRE(pthread_join(thread, NULL) == 0);
    }
    EXPECT_EQUAL(destroyed_count, STORM * key_count);
    EXPECT(use_heap());
}

/* ------------------------------------------------------------------------------ nothing to read */

/* An empty folder is all there is: no /proc, no /sys, no /dev. */
static void the_root_is_empty(void)
{
    char folder[] = "/tmp/empty-root.XXXXXX";
    REQUIRE(mkdtemp(folder) != NULL);
    pid_t child = fork();
    if (child == 0) {
        REQUIRE(chroot(folder) == 0 && chdir("/") == 0);
        EXPECT(access("/proc", F_OK) != 0);
        EXPECT(use_heap());
        workers_visit(WORKERS);
        EXPECT(use_heap());
        _exit(case_status());
    }
    int status = -1;
    EXPECT(child > 0 && waitpid(child, &status, 0) == child);
    EXPECT_EQUAL(status, 0);
    rmdir(folder);
}

/* The lowest number that is free says that nothing was left open. */
static void no_descriptor_is_kept(void)
{
    int before = dup(STDERR_FILENO);
    close(before);
    EXPECT(use_heap());
    workers_visit(WORKERS);
    int after = dup(STDERR_FILENO);
    EXPECT_EQUAL(after, before);
    for (int descriptor = 0; descriptor < 64; descriptor++) {
        close(descriptor);
    }
    if (!use_heap()) {
        _exit(EXIT_FAILURE);
    }
    workers_visit(WORKERS);
}

/* -------------------------------------------------------------------- before and after all else */

static void *from_resolver;

static int answer_plainly(void)
{
    return 42;
}

/* The dynamic linker calls it to find out which function is meant, while it is still at work. */
__attribute__((used)) static int (*answer_resolve(void))(void)
{
    char *block = malloc(3000);
    from_resolver = calloc(100, 10);
    if (block != NULL && from_resolver != NULL) {
        memset(block, 1, 3000);
        block = realloc(block, 100 * KIBIBYTE);
    }
    free(block);
    return answer_plainly;
}

int answer(void) __attribute__((ifunc("answer_resolve")));

static void a_resolver_allocates(void)
{
    EXPECT_EQUAL(answer(), 42);
    REQUIRE(from_resolver != NULL);
    for (size_t i = 0; i < 1000; i++) {
        EXPECT(((char *)from_resolver)[i] == 0);
    }
    free(from_resolver);
    EXPECT(use_heap());
}

/* The program ends while others are busy: destructors run beside them, and the last
 * one after all. */
static void threads_outlive_main(void)
{
    alarm(LIMIT_SECONDS);
    workers_start();
    exit(use_heap() ? EXIT_SUCCESS : EXIT_FAILURE);
}

static void *thread_load(void *path)
{
    for (int i = 0; i < STORM; i++) {
        void *plugin = dlopen(path, RTLD_NOW | RTLD_LOCAL);
        REQUIRE(plugin != NULL);
        char *(*word)(void) = (char *(*)(void))(uintptr_t)dlsym(plugin, "plugin_word");
        REQUIRE(word != NULL);
        char *copy = word();
        EXPECT(copy != NULL && strcmp(copy, "a word of the plug-in") == 0);
        EXPECT_EQUAL(dlclose(plugin), 0);
        free(copy);
    }
    return NULL;
}

static void threads_load_plugins(void)
{
    pthread_t threads[WORKERS];
    alarm(LIMIT_SECONDS);
    workers_start();
    for (int i = 0; i < WORKERS; i++) {
        REQUIRE(pthread_create(&threads[i], NULL, thread_load, getenv("PLUGIN")) == 0);
    }
    for (int i = 0; i < WORKERS; i++) {
        pthread_join(threads[i], NULL);
    }
    workers_stop();
}

/* ----------------------------------------------------------------------------------- last words */

static void commit_crime(void)
{
    char *volatile block = malloc(24);
    free(block != NULL ? (char *)&block : NULL);
}

/* The crime ends in one line and SIGABRT. */
static void expect_last_words(void (*commit)(void))
{
    static const char wanted[] = "): not a heap pointer: ";
    int ends[2];
    int status = 0;
    char line[1000] = "";
    REQUIRE(pipe(ends) == 0);
    pid_t child = fork();
    if (child == 0) {
        alarm(LIMIT_SECONDS);
        REQUIRE(dup2(ends[1], STDERR_FILENO) >= 0);
        commit();
        _exit(EXIT_FAILURE);
    }
    close(ends[1]);
    size_t length = 0;
    ssize_t bytes = read(ends[0], line, sizeof line - 1);
    while (bytes > 0 && length < sizeof line - 1) {
        length += (size_t)bytes;
        bytes = read(ends[0], line + length, sizeof line - 1 - length);
    }
    close(ends[0]);
    EXPECT(waitpid(child, &status, 0) == child && WIFSIGNALED(status) &&
           WTERMSIG(status) == SIGABRT);
    EXPECT(strncmp(line, "hmm: free(0x", 12) == 0 && strstr(line, wanted) != NULL &&
           strchr(line, '\n') == line + length - 1);
}

static void memory_calls_refuse(void)
{
    static const int refused[] = {SYS_mmap, SYS_mprotect, SYS_brk, SYS_mremap, SYS_madvise};
    struct sock_filter filter[2 * sizeof refused / sizeof refused[0] + 2];
    size_t length = 0;
    filter[length++] =
        (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
    for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++) {
        filter[length++] =
            (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)refused[i], 0, 1);
        filter[length++] =
            (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOMEM);
    }
    filter[length++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    const struct sock_fprog program = {(unsigned short)length, filter};
    REQUIRE(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
    REQUIRE(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0);
}

static void exhaust_and_commit(void)
{
    void **last = NULL;
    free(malloc(1));
    memory_calls_refuse();
    for (size_t bytes = MEBIBYTE; bytes >= sizeof last; bytes /= 2) {
        for (void **block = malloc(bytes); block != NULL; block = malloc(bytes)) {
            *block = last;
            last = block;
        }
    }
    free(&last);
}

static void last_words_without_memory(void)
{
    expect_last_words(exhaust_and_commit);
}

static void fork_and_commit(void)
{
    int status = 0;
    workers_start();
    pid_t child = fork();
    if (child == 0) {
        commit_crime();
        _exit(EXIT_FAILURE);
    }
    if (waitpid(child, &status, 0) == child && WIFSIGNALED(status)) {
        signal(WTERMSIG(status), SIG_DFL);
        raise(WTERMSIG(status));
    }
}

static void last_words_of_a_forked_child(void)
{
    expect_last_words(fork_and_commit);
}

/* So little is what a signal handler or a coroutine may have. */
static void commit_on_a_little_stack(void)
{
    static _Alignas(64) char stack[8 * KIBIBYTE];
    static ucontext_t here;
    static ucontext_t there;
    free(malloc(1));
    REQUIRE(getcontext(&there) == 0);
    there.uc_stack.ss_sp = stack;
    there.uc_stack.ss_size = sizeof stack;
    there.uc_link = &here;
    makecontext(&there, commit_crime, 0);
    (void)swapcontext(&here, &there);
}

static void last_words_on_a_little_stack(void)
{
    expect_last_words(commit_on_a_little_stack);
}

CASES_MAIN(CASE(no_mapping_is_left_from_the_start), CASE(no_mapping_is_left_later),
           CASE(few_mappings_are_enough), CASE(keys_are_gone_before_us),
           CASE(keys_are_gone_after_us), CASE(the_root_is_empty), CASE(no_descriptor_is_kept),
           CASE(a_resolver_allocates), CASE(threads_outlive_main), CASE(threads_load_plugins),
           CASE(last_words_without_memory), CASE(last_words_of_a_forked_child),
           CASE(last_words_on_a_little_stack))
