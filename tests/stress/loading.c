/*
 * loading.c - the library itself is loaded at run time, beside the C library's malloc, and is asked
 * to go; and a program that runs on it loads others and lets them go.
 *
 * LIBRARY, PLUGIN and OWN_PLUGIN, which has a malloc of its own, are environment
 * variables: the paths.
 */
#include "workers.h"

#include <dlfcn.h>
#include <sys/wait.h>

enum { ROUNDS = 50, LIMIT_SECONDS = 15 };

typedef void *(*allocate_door)(size_t bytes);
typedef void *(*resize_door)(void *ptr, size_t bytes);
typedef void (*release_door)(void *ptr);

static uintptr_t name_find(void *library, const char *name)
{
    uintptr_t address = (uintptr_t)dlsym(library, name);
    REQUIRE(address != 0);
    return address;
}

static void *library_open(int flags)
{
    void *library = dlopen(getenv("LIBRARY"), RTLD_NOW | flags);
    if (library == NULL) {
        case_say("# %s\n", dlerror());
    }
    REQUIRE(library != NULL);
    alarm(LIMIT_SECONDS);
    return library;
}

/* Never unloaded, because handlers of fork and blocks would be left without their code. */
static void its_blocks_outlive_dlclose(void)
{
    char *block = NULL;
    for (int i = 0; i < ROUNDS; i++) {
        void *library = library_open(RTLD_LOCAL);
        resize_door resize = (resize_door)name_find(library, "HmmRealloc");
        block = resize(block, 1000 * (size_t)(i + 1));
        REQUIRE(block != NULL);
        EXPECT(i == 0 || block[1000 * i - 1] == (char)i);
        memset(block, i + 1, 1000 * (size_t)(i + 1));
        EXPECT_EQUAL(dlclose(library), 0);
        EXPECT(block[0] == (char)(i + 1));
        block = resize(block, 1000 * (size_t)(i + 1) + 1);
        REQUIRE(block != NULL);
    }
}

static void a_fork_after_dlclose(void)
{
    void *library = library_open(RTLD_LOCAL);
    allocate_door allocate = (allocate_door)name_find(library, "HmmAlloc");
    EXPECT(allocate(100) != NULL);
    EXPECT_EQUAL(dlclose(library), 0);
    workers_start();
    for (int i = 0; i < ROUNDS; i++) {
        pid_t child = fork();
        if (child == 0) {
            alarm(LIMIT_SECONDS);
            _exit(allocate(100) != NULL ? EXIT_SUCCESS : EXIT_FAILURE);
        }
        int status = -1;
        REQUIRE(child > 0 && waitpid(child, &status, 0) == child);
        EXPECT_EQUAL(status, 0);
    }
    workers_stop();
}

static void threads_create(pthread_t *threads, int count, void *(*start)(void *unused))
{
    for (int i = 0; i < count; i++) {
        REQUIRE(pthread_create(&threads[i], NULL, start, NULL) == 0);
    }
}

static void *thread_load(void *unused)
{
    (void)unused;
    void *library = library_open(RTLD_LOCAL);
    allocate_door allocate = (allocate_door)name_find(library, "HmmAlloc");
    release_door release = (release_door)name_find(library, "HmmFree");
    for (int i = 0; i < 1000; i++) {
        void *block = allocate(1 + (size_t)i * 17);
        REQUIRE(block != NULL);
        release(block);
    }
    dlclose(library);
    return NULL;
}

static void threads_load_it_together(void)
{
    pthread_t threads[8];
    threads_create(threads, 8, thread_load);
    for (int i = 0; i < 8; i++) {
        pthread_join(threads[i], NULL);
    }
}

/* Even with its names in the global scope: calls that are bound already stay where they are. */
static void it_is_loaded_for_all_to_see(void)
{
    char *before = malloc(100);
    REQUIRE(before != NULL);
    void *library = library_open(RTLD_GLOBAL);
    worker_round(1);
    before = realloc(before, 10000);
    REQUIRE(before != NULL);
    free(before);
    workers_visit(WORKERS);
    dlclose(library);
    worker_round(2);
}

/* Two mallocs in one process, side by side on the same break where region=sbrk. */
static void it_lives_beside_another_malloc(void)
{
    enum { BLOCKS = 200 };
    static unsigned char *ours[BLOCKS];
    static unsigned char *theirs[BLOCKS];
    void *library = library_open(RTLD_LOCAL);
    resize_door resize = (resize_door)name_find(library, "HmmRealloc");
    release_door release = (release_door)name_find(library, "HmmFree");
    for (size_t i = 0; i < 20000; i++) {
        size_t place = i * 7919 % BLOCKS;
        size_t bytes = 1 + i * 104729 % (i % 32 == 0 ? 90000 : 3000);
        EXPECT(ours[place] == NULL || *ours[place] == place);
        EXPECT(theirs[place] == NULL || *theirs[place] == (place ^ 0xff));
        if (i % 5 == 0) {
            release(ours[place]);
            free(theirs[place]);
            ours[place] = theirs[place] = NULL;
            continue;
        }
        ours[place] = resize(ours[place], bytes);
        theirs[place] = realloc(theirs[place], bytes);
        REQUIRE(ours[place] != NULL && theirs[place] != NULL);
        memset(ours[place], (int)place, bytes);
        memset(theirs[place], (int)place ^ 0xff, bytes);
    }
    for (size_t i = 0; i < BLOCKS; i++) {
        release(ours[i]);
        free(theirs[i]);
    }
}

/* Run with the library preloaded. */
static void plugins_come_and_go(void)
{
    char *words[ROUNDS];
    for (int i = 0; i < ROUNDS; i++) {
        void *plugin = dlopen(getenv("PLUGIN"), RTLD_NOW | RTLD_LOCAL);
        REQUIRE(plugin != NULL);
        char *(*word)(void) = (char *(*)(void))name_find(plugin, "plugin_word");
        words[i] = word();
        REQUIRE(words[i] != NULL);
        EXPECT_EQUAL(dlclose(plugin), 0);
        EXPECT(dlopen("/no/such/library.so", RTLD_NOW) == NULL && dlerror() != NULL);
    }
    for (int i = 0; i < ROUNDS; i++) {
        EXPECT_EQUAL(strcmp(words[i], "a word of the plug-in"), 0);
        free(words[i]);
    }
}

/* Threads use the plug-in's heap, and end after the plug-in. */
static void (*own_work)(void);
static pthread_barrier_t own_barrier;

static void *own_plugin_open(void)
{
    void *plugin = dlopen(getenv("OWN_PLUGIN"), RTLD_NOW | RTLD_LOCAL);
    REQUIRE(plugin != NULL);
    own_work = (void (*)(void))name_find(plugin, "plugin_work");
    return plugin;
}

static void *own_thread(void *unused)
{
    own_work();
    pthread_barrier_wait(&own_barrier);
    pthread_barrier_wait(&own_barrier);
    return unused;
}

static void threads_outlive_a_plugin_with_its_own_heap(void)
{
    pthread_barrier_init(&own_barrier, NULL, WORKERS + 1);
    for (int round = 0; round < ROUNDS / 5; round++) {
        pthread_t threads[WORKERS];
        void *plugin = own_plugin_open();
        own_work();
        threads_create(threads, WORKERS, own_thread);
        pthread_barrier_wait(&own_barrier);
        EXPECT_EQUAL(dlclose(plugin), 0);
        EXPECT(dlopen(getenv("OWN_PLUGIN"), RTLD_NOW | RTLD_NOLOAD) == NULL);
        pid_t child = fork();
        if (child == 0) {
            _exit(EXIT_SUCCESS);
        }
        int status = -1;
        REQUIRE(child > 0 && waitpid(child, &status, 0) == child);
        EXPECT_EQUAL(status, 0);
        pthread_barrier_wait(&own_barrier);
        for (int i = 0; i < WORKERS; i++) {
            pthread_join(threads[i], NULL);
        }
    }
}

/* Some end meanwhile, and others begin. */
static void *own_thread_comes_and_goes(void *unused)
{
    own_work();
    own_work();
    return unused;
}

static void *own_threads_start(void *unused)
{
    for (;;) {
        pthread_t threads[2];
        threads_create(threads, 2, own_thread_comes_and_goes);
        for (int i = 0; i < 2; i++) {
            pthread_join(threads[i], NULL);
        }
    }
    return unused;
}

static void the_process_ends_while_threads_use_a_plugins_heap(void)
{
    for (int round = 0; round < ROUNDS / 5; round++) {
        pid_t child = fork();
        if (child == 0) {
            pthread_t threads[WORKERS];
            alarm(LIMIT_SECONDS);
            (void)own_plugin_open();
            threads_create(threads, WORKERS, own_threads_start);
            own_work();
            exit(EXIT_SUCCESS);
        }
        int status = -1;
        REQUIRE(child > 0 && waitpid(child, &status, 0) == child);
        EXPECT_EQUAL(status, 0);
    }
}

CASES_MAIN(CASE(its_blocks_outlive_dlclose), CASE(a_fork_after_dlclose),
           CASE(threads_load_it_together), CASE(it_is_loaded_for_all_to_see),
           CASE(it_lives_beside_another_malloc), CASE(plugins_come_and_go),
           CASE(threads_outlive_a_plugin_with_its_own_heap),
           CASE(the_process_ends_while_threads_use_a_plugins_heap))
