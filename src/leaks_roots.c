/*
 * leaks_roots.c - which memory of the process is a root. See leaks_roots.h.
 *
 * The kernel lists what is mapped. What may have been written to is shown, but for the heap, the
 * library's own tables, and what the search itself has on the stack.
 */
#include "leaks_roots.h"
#include "arena.h"
#include "os.h"
#include "shard.h"
#include "sites.h"
#include "thread.h"

#include <link.h>

enum {
    LINE_BYTES_MAX = 400,
    OWN_RANGE_COUNT = 6,
    /* What a search and the walk before it leave below the frame that they begin in. */
    OWN_FRAMES_BYTES = 8192,
};

/* ------------------------------------------------------------------------------------- mappings */

/* A mapping: "START-END PERMISSIONS OFFSET DEVICE INODE NAME", the numbers in hexadecimal but
 * for the inode. */
struct mapping {
    struct range range;
    bool is_readable;
    bool is_writable;
    bool is_anonymous;
    bool is_stack; /* the first thread's */
};

static const char *number_parse(const char *text, uintptr_t *number)
{
    *number = 0;
    while (*text != '\0' && *text != '-' && *text != ' ') {
        unsigned digit = (unsigned char)*text++;
        *number = *number << 4 | (digit <= '9' ? digit - '0' : digit - 'a' + 10);
    }
    return text + (*text != '\0');
}

static const char *word_skip(const char *text)
{
    while (*text != '\0' && *text != ' ') {
        text++;
    }
    return text + (*text != '\0');
}

static struct mapping mapping_parse(const char *line)
{
    struct mapping mapping = {.is_anonymous = false};
    const char *rest = number_parse(line, &mapping.range.start);
    rest = number_parse(rest, &mapping.range.end);
    mapping.is_readable = rest[0] == 'r';
    mapping.is_writable = rest[0] != '\0' && rest[1] == 'w';
    rest = word_skip(word_skip(word_skip(rest)));
    mapping.is_anonymous = rest[0] == '0' && (rest[1] == ' ' || rest[1] == '\0');
    mapping.is_stack = strstr(rest, "[stack]") != NULL;
    return mapping;
}

/* ---------------------------------------------------------------------------------------- roots */

static bool is_inside(struct range range, uintptr_t address)
{
    return range.start <= address && address < range.end;
}

/* Below the calling thread's stack lies what was. That a mapping is nothing but a stack is known of
 * the first thread's, and of those that libc makes, which hold the thread's variables above it.
 * Elsewhere a stack may have the program's own memory around it. */
static uintptr_t stack_bottom(const struct mapping *mapping, uintptr_t stack)
{
    bool is_threads = hmm_os_thread_id() != hmm_os_process_id() &&
                      is_inside(mapping->range, (uintptr_t)&hmm_thread);
    return mapping->is_stack || is_threads
               ? mapping->range.start
               : stack - size_min(OWN_FRAMES_BYTES, stack - mapping->range.start);
}

/* Whether a module was mapped there to be written to. */
static int segment_look(struct dl_phdr_info *module, size_t bytes, void *context)
{
    (void)bytes;
    const struct range *range = context;
    bool is_there = false;
    for (size_t i = 0; i < module->dlpi_phnum && !is_there; i++) {
        const ElfW(Phdr) *part = &module->dlpi_phdr[i];
        uintptr_t start = module->dlpi_addr + part->p_vaddr;
        is_there = part->p_type == PT_LOAD && (part->p_flags & PF_W) != 0 && start < range->end &&
                   range->start < start + part->p_memsz;
    }
    return is_there;
}

/* What can be read and may have been written to. What is read-only now was perhaps filled before;
 * but of files only in modules, for others may be as large as disks. */
static bool is_root(struct mapping *mapping)
{
    return mapping->is_readable && (mapping->is_writable || mapping->is_anonymous ||
                                    dl_iterate_phdr(segment_look, &mapping->range) != 0);
}

/* Shows a root in pieces: around what is the library's own. */
static void root_show(const struct root_walk *walk, struct range root)
{
    struct range own[OWN_RANGE_COUNT] = {
        {hmm_arena.base, hmm_arena.base + hmm_arena.bytes},
        {hmm_arena.metadata_start, (uintptr_t)(hmm_arena.table + hmm_arena.granule_count)},
        /* These point to granules and to free blocks. */
        {(uintptr_t)&hmm_arena, (uintptr_t)(&hmm_arena + 1)},
        {(uintptr_t)hmm_medium_shards, (uintptr_t)(hmm_medium_shards + SHARD_COUNT_MAX)},
        walk->own,
        {0, 0},
    };
    hmm_sites_memory(&own[OWN_RANGE_COUNT - 1].start, &own[OWN_RANGE_COUNT - 1].end);
    while (root.start < root.end) {
        struct range part = root;
        uintptr_t next = root.end;
        for (size_t i = 0; i < OWN_RANGE_COUNT; i++) {
            if (own[i].start < part.end && part.start < own[i].end) {
                next = own[i].start <= part.start ? own[i].end : own[i].start;
                part.end = own[i].start <= part.start ? part.start : own[i].start;
            }
        }
        walk->visit(part, walk->context);
        root.start = next;
    }
}

static void line_show(const struct root_walk *walk, const char *line)
{
    struct mapping mapping = mapping_parse(line);
    if (!is_root(&mapping)) {
        return;
    }
    struct range root = mapping.range;
    if (is_inside(root, walk->stack)) {
        root_show(walk, (struct range){root.start, stack_bottom(&mapping, walk->stack)});
        root.start = walk->stack;
    }
    root_show(walk, root);
}

/* Lines are cut at LINE_BYTES_MAX: a path at their end may be longer. */
bool hmm_leaks_walk_roots(const struct root_walk *walk)
{
    struct os_file maps;
    char line[LINE_BYTES_MAX];
    size_t length = 0;
    char byte;
    if (!hmm_os_file_open_surely(&maps, "/proc/self/maps")) {
        return false;
    }
    while (hmm_os_file_next(&maps, &byte)) {
        if (byte == '\n') {
            line[length] = '\0';
            line_show(walk, line);
            length = 0;
        } else if (length < sizeof line - 1) {
            line[length++] = byte;
        }
    }
    hmm_os_file_close(&maps);
    return true;
}
