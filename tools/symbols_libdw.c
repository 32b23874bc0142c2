/*
 * symbols_libdw.c - functions and lines by elfutils' libdwfl. See symbols.h.
 *
 * Each module is opened once, at an address that libdwfl chooses, as if it had been loaded there.
 * Debug information may lie in files of its own, as distributions package it.
 */
#include "symbols.h"

#include <dlfcn.h>
#include <elfutils/libdwfl.h>
#include <stdlib.h>
#include <string.h>

enum { MODULES_MAX = 256 };

/* Modules that were asked for. */
static struct known {
    char *path;
    Dwfl_Module *module; /* NULL: it cannot be read */
} known[MODULES_MAX];
static size_t known_count;

static Dwfl *session(void)
{
    static const Dwfl_Callbacks callbacks = {
        .find_elf = dwfl_build_id_find_elf,
        .find_debuginfo = dwfl_standard_find_debuginfo,
        .section_address = dwfl_offline_section_address,
    };
    static Dwfl *opened;
    if (opened == NULL) {
        opened = dwfl_begin(&callbacks);
    }
    return opened;
}

static Dwfl_Module *module_open(const char *path)
{
    for (size_t i = 0; i < known_count; i++) {
        if (strcmp(known[i].path, path) == 0) {
            return known[i].module;
        }
    }
    if (known_count == MODULES_MAX || session() == NULL) {
        return NULL;
    }
    dwfl_report_begin_add(session());
    Dwfl_Module *module = dwfl_report_offline(session(), path, path, -1);
    (void)dwfl_report_end(session(), NULL, NULL);
    known[known_count].path = strdup(path);
    known[known_count].module = module;
    known_count += known[known_count].path != NULL;
    return module;
}

/* C++ names as their programmers wrote them, where the C++ runtime is at hand. */
static const char *demangle(const char *name)
{
    static char *(*demangler)(const char *, char *, size_t *, int *);
    static char *readable;
    if (name == NULL || strncmp(name, "_Z", 2) != 0) {
        return name;
    }
    if (demangler == NULL) {
        void *runtime = dlopen("libstdc++.so.6", RTLD_LAZY);
        void *found = runtime != NULL ? dlsym(runtime, "__cxa_demangle") : NULL;
        if (found == NULL) {
            return name;
        }
        demangler = (char *(*)(const char *, char *, size_t *, int *))(uintptr_t)found;
    }
    free(readable);
    readable = demangler(name, NULL, NULL, NULL);
    return readable != NULL ? readable : name;
}

struct place symbols_find(const char *path, uintptr_t offset)
{
    struct place place = {NULL, NULL, 0};
    Dwfl_Module *module = module_open(path);
    GElf_Addr bias = 0;
    if (module == NULL || dwfl_module_getelf(module, &bias) == NULL) {
        return place;
    }
    place.function = demangle(dwfl_module_addrname(module, offset + bias));
    Dwfl_Line *line = dwfl_module_getsrc(module, offset + bias);
    if (line != NULL) {
        place.file = dwfl_lineinfo(line, NULL, &place.line, NULL, NULL, NULL);
    }
    return place;
}
