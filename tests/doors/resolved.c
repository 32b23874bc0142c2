/*
 * resolved.c - tells which names are not the library's, as the dynamic linker sees it.
 *
 * resolved LIBRARY NAME... prints those that do not come from LIBRARY. Besides the names given,
 * which are looked up, it checks its own references: they bear the C library's versions, and an old
 * one among them a version that is no longer the default.
 */
#include "names.h"
#include <dlfcn.h>
#include <limits.h>
#include <malloc.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifdef __GLIBC__
void old_cfree(void *ptr);
__asm__(".symver old_cfree, cfree@GLIBC_2.2.5");

int __libc_mallopt(int parameter, int value);
struct mallinfo __libc_mallinfo(void);
#endif

struct reference {
    const char *name;
    uintptr_t address;
};

#define REFERENCE(function)                                                                        \
    {                                                                                              \
        "a reference to " #function, (uintptr_t)function                                           \
    }

static bool is_in(uintptr_t address, const char *library)
{
    Dl_info info;
    char path[PATH_MAX];
    return address != 0 && dladdr((void *)address, &info) != 0 &&
           realpath(info.dli_fname, path) != NULL && strcmp(path, library) == 0;
}

static int check(const char *name, uintptr_t address, const char *library)
{
    if (!is_in(address, library)) {
        puts(name);
        return 1;
    }
    return 0;
}

int main(int argc, char **argv)
{
    const struct reference references[] = {
        REFERENCE(malloc),          REFERENCE(free),
        REFERENCE(calloc),          REFERENCE(realloc),
        REFERENCE(reallocarray),    REFERENCE(posix_memalign),
        REFERENCE(aligned_alloc),   REFERENCE(memalign),
        REFERENCE(valloc),          REFERENCE(malloc_usable_size),
#ifdef __GLIBC__
        REFERENCE(mallopt),         REFERENCE(pvalloc),
        REFERENCE(mallinfo),        REFERENCE(mallinfo2),
        REFERENCE(malloc_info),     REFERENCE(malloc_stats),
        REFERENCE(malloc_trim),     REFERENCE(old_cfree),
        REFERENCE(__libc_malloc),   REFERENCE(__libc_free),
        REFERENCE(__libc_calloc),   REFERENCE(__libc_realloc),
        REFERENCE(__libc_memalign), REFERENCE(__libc_valloc),
        REFERENCE(__libc_pvalloc),  REFERENCE(__libc_mallopt),
        REFERENCE(__libc_mallinfo),
#endif
    };
    char library[PATH_MAX];
    int missing = 0;
    if (argc < 2 || realpath(argv[1], library) == NULL) {
        puts("resolved LIBRARY [NAME...]");
        return EXIT_FAILURE;
    }
    for (size_t i = 0; i < sizeof references / sizeof references[0]; i++) {
        missing += check(references[i].name, references[i].address, library);
    }
    for (int i = 2; i < argc; i++) {
        missing += check(argv[i], (uintptr_t)dlsym(RTLD_DEFAULT, argv[i]), library);
    }
    return missing == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
