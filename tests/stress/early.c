/*
 * early.c - calls before main, before any constructor, after main, and after every destructor.
 *
 * Prints a word for each station that it came by, so that one that was left out is seen.
 */
#include "cases.h"

#include <pthread.h>

static void *from_before; /* allocated as early as can be, freed as late as can be */

static void use_heap(const char *station)
{
    for (size_t bytes = 1; bytes < 3000000; bytes = bytes * 5 + 1) {
        char *block = malloc(bytes);
        REQUIRE(block != NULL);
        memset(block, 1, bytes);
        block = realloc(block, 2 * bytes);
        REQUIRE(block != NULL && block[bytes - 1] == 1);
        free(block);
        free(calloc(3, bytes));
    }
    size_t length = strlen(station);
    REQUIRE(write(STDOUT_FILENO, station, length) == (ssize_t)length);
}

static void station_preinit(void)
{
    from_before = calloc(10, 10);
    REQUIRE(from_before != NULL);
    use_heap("preinit ");
}

/* The dynamic linker, or the start-up code, calls it before any constructor. */
__attribute__((section(".preinit_array"),
               used)) static void (*const preinit)(void) = station_preinit;

__attribute__((constructor(101))) static void station_first_constructor(void)
{
    use_heap("first-constructor ");
}

__attribute__((constructor)) static void station_constructor(void)
{
    use_heap("constructor ");
}

__attribute__((destructor)) static void station_destructor(void)
{
    use_heap("destructor ");
}

__attribute__((destructor(101))) static void station_last_destructor(void)
{
    use_heap("last-destructor");
    free(from_before);
}

static void station_atexit(void)
{
    use_heap("atexit ");
}

static void station_on_exit(int status, void *block)
{
    (void)status;
    use_heap("on_exit ");
    free(block);
}

int main(void)
{
    REQUIRE(atexit(station_atexit) == 0);
    REQUIRE(on_exit(station_on_exit, malloc(100)) == 0);
    use_heap("main ");
    return EXIT_SUCCESS;
}
