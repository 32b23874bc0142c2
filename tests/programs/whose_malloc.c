/*
 * Says on one line which object provides the malloc family in this process, and where the memory
 * lies that malloc hands out: in the program break, in that object's own static array, or
 * elsewhere.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <inttypes.h>
#include <malloc.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const FAMILY[] = {"malloc",   "free",          "calloc",
                                     "realloc",  "aligned_alloc", "posix_memalign",
                                     "memalign", "valloc",        "malloc_usable_size"};

static const char *object_of(const void *address)
{
    Dl_info info;
    return address != NULL && dladdr(address, &info) != 0 ? info.dli_fname : "nowhere";
}

static bool is_in_break(const void *pointer)
{
    FILE *maps = fopen("/proc/self/maps", "r");
    char line[512];
    bool found = false;
    while (maps != NULL && !found && fgets(line, sizeof line, maps) != NULL) {
        uintptr_t start, end;
        found = strstr(line, "[heap]") != NULL &&
                sscanf(line, "%" SCNxPTR "-%" SCNxPTR, &start, &end) == 2 &&
                (uintptr_t)pointer >= start && (uintptr_t)pointer < end;
    }
    if (maps != NULL) {
        fclose(maps);
    }
    return found;
}

int main(void)
{
    const char *object = object_of(dlsym(RTLD_DEFAULT, FAMILY[0]));
    for (size_t i = 1; i < sizeof FAMILY / sizeof FAMILY[0]; i++) {
        const char *other = object_of(dlsym(RTLD_DEFAULT, FAMILY[i]));
        if (strcmp(object, other) != 0) {
            printf("%s is from %s but %s from %s\n", FAMILY[0], object, FAMILY[i], other);
            return 1;
        }
    }
    void *pointer = malloc(1000);
    const char *ground = is_in_break(pointer)                      ? "the break"
                         : strcmp(object_of(pointer), object) == 0 ? "a static array"
                                                                   : "a mapping";
    const char *slash = strrchr(object, '/');
    printf("%s, memory in %s\n", slash != NULL ? slash + 1 : object, ground);
    free(pointer);
    return pointer == NULL;
}
