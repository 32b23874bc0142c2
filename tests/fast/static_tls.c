/*
 * static_tls.c - loads LIBRARY late, in a program with much static TLS, after another library that
 * takes of what is left (USER_LIBRARY).
 */
#include "cases.h"

#include <dlfcn.h>
#include <pthread.h>

static __thread char own_tls[100000];

static void *(*library_malloc)(size_t);
static void (*library_free)(void *);

static void *thread_run(void *unused)
{
    for (size_t bytes = 1; bytes < 5000000; bytes += bytes / 2 + 1) {
        char *block = library_malloc(bytes);
        REQUIRE(block != NULL);
        memset(block, 1, bytes);
        own_tls[bytes % sizeof own_tls] = block[0];
        library_free(block);
    }
    return unused;
}

int main(void)
{
    pthread_t thread;
    void *user = dlopen(getenv("USER_LIBRARY"), RTLD_NOW);
    void *library = dlopen(getenv("LIBRARY"), RTLD_NOW);
    if (!EXPECT(user != NULL && library != NULL)) {
        case_say("# %s\n", dlerror());
        return EXIT_FAILURE;
    }
    library_malloc = (void *(*)(size_t))dlsym(library, "malloc");
    library_free = (void (*)(void *))dlsym(library, "free");
    thread_run(NULL);
    for (int i = 0; i < 10; i++) {
        REQUIRE(pthread_create(&thread, NULL, thread_run, NULL) == 0);
        pthread_join(thread, NULL);
    }
    return case_status();
}
