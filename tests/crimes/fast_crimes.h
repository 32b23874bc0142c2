/*
 * fast_crimes.h - what the crimes against the fast engine share: in which room a size lives, and
 * what the library can say of a block there.
 *
 * LEVEL of the environment says how hardened the library is: 0 to 3, or `secure`; `block1` and
 * `block2` are those levels of the block engine, where each block has a tag, whatever its size.
 * Besides the words of announce.h, crimes.t knows SLOT and CLASS, and holds them against the
 * pointer; and FAULT, which stands for a program that is ended by its own access.
 */
#ifndef FAST_CRIMES_H
#define FAST_CRIMES_H

#include "announce.h"

enum {
    SMALL_MAX = 8192 - 16, /* in every level */
    MEDIUM_MAX = 256 * 1024 - 16,
    GRANULE = 64 * 1024,
    PAGE = 4096,
    LEVEL_SECURE = 4,
};

static size_t size_bytes; /* from the command line */
static int level;
static bool is_block_engine;

/* A crime and where it is one. */
enum {
    ANY = 0,
    SLOTS = 1 << 0,
    MEDIUM = 1 << 1,
    LARGE = 1 << 2,
    SIZES = SLOTS | MEDIUM | LARGE,
    FAST_ONLY = 1 << 3, /* what the block engine says of it is in heap_guard_crimes.c */
};

struct fast_crime {
    const char *name;
    void (*commit)(void);
    unsigned rooms; /* ANY: it has no size */
    int level_min;
    int level_max;
};

#define CRIME(function, ...)                                                                       \
    {                                                                                              \
#function, function, __VA_ARGS__                                                           \
    }

static inline bool is_small(void)
{
    return size_bytes <= SMALL_MAX;
}

static inline bool is_large(void)
{
    return size_bytes > MEDIUM_MAX && !is_block_engine;
}

/* At level 3 each block is between fences, so all of them are as large ones. */
static inline bool is_slot(void)
{
    return is_small() && level != 3 && !is_block_engine;
}

static inline bool is_fenced(void)
{
    return level == 3 || (level >= 2 && is_large());
}

static inline void accuse(const char *call, const void *ptr, const char *what, const char *evidence)
{
    announce_line("hmm: %s(0x%lx): %s: %s%sthread %d\n", call, (unsigned long)ptr, what, evidence,
                  is_block_engine ? "heap HEAP, " : "", (int)gettid());
}

static inline void announce_fault(void)
{
    announce_line("FAULT\n");
}

/* Of a slot, or what lies in one. */
static inline const char *slot_at(const void *ptr)
{
    static _Thread_local char text[100];
    snprintf(text, sizeof text, "slot SLOT of class CLASS, slab 0x%lx, ",
             (unsigned long)ptr & ~(GRANULE - 1UL));
    return text;
}

/* Facts, and what is known of a block by its slot or tag. */
static inline const char *with_place(const char *facts, const void *ptr)
{
    static _Thread_local char text[200];
    bool has_tag = !is_slot() && !is_fenced() && !is_large();
    snprintf(text, sizeof text, "%s%s", facts,
             is_slot() ? slot_at(ptr)
             : has_tag ? some_block_at(ptr)
                       : "");
    return text;
}

/* Of a large block that is in use. */
static inline const char *run_at(const void *ptr)
{
    static _Thread_local char text[100];
    snprintf(text, sizeof text, "block of BYTES bytes at 0x%lx, ", (unsigned long)ptr);
    return text;
}

/* A block among others, none of whose neighbours is free. */
static inline char *block_make(void)
{
    char *before = (char *)malloc(size_bytes);
    char *ptr = (char *)malloc(size_bytes);
    char *after = (char *)malloc(size_bytes);
    REQUIRE(before != NULL && ptr != NULL && after != NULL);
    memset(ptr, 0x5a, size_bytes);
    return ptr;
}

static inline void crime_list(const struct fast_crime *crime, const size_t *sizes, size_t count)
{
    if (level < crime->level_min || level > crime->level_max ||
        (is_block_engine && (crime->rooms & FAST_ONLY) != 0)) {
        return;
    }
    if ((crime->rooms & SIZES) == ANY) {
        puts(crime->name);
        return;
    }
    for (size_t i = 0; i < count; i++) {
        unsigned room = sizes[i] <= SMALL_MAX ? SLOTS : sizes[i] <= MEDIUM_MAX ? MEDIUM : LARGE;
        if ((crime->rooms & room) != 0) {
            printf("%s %zu\n", crime->name, sizes[i]);
        }
    }
}

/* Lists the crimes of the level, or commits one. Returning means that it was not seen. */
static inline int crimes_main(int argc, char **argv, const struct fast_crime *crimes, size_t count)
{
    static const size_t sizes[] = {40, 4096, 20000, 300000};
    const char *name = getenv("LEVEL");
    REQUIRE(name != NULL);
    announce_start();
    is_block_engine = strncmp(name, "block", 5) == 0;
    level = strcmp(name, "secure") == 0 ? LEVEL_SECURE : name[is_block_engine ? 5 : 0] - '0';
    size_bytes = argc > 2 ? strtoul(argv[2], NULL, 10) : 0;
    for (size_t i = 0; i < count; i++) {
        if (argc < 2) {
            crime_list(&crimes[i], sizes, sizeof sizes / sizeof sizes[0]);
        } else if (strcmp(argv[1], crimes[i].name) == 0) {
            crimes[i].commit();
            return EXIT_SUCCESS;
        }
    }
    return argc < 2 ? EXIT_SUCCESS : EXIT_FAILURE;
}

#endif
