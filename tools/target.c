/*
 * target.c - finds out what the operands name, and hmm_root in it. See target.h.
 */
#include "target.h"
#include "command.h"

#include <elf.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

enum { SCAN_BYTES = 64 * 1024 };

void *must_allocate(size_t count, size_t bytes)
{
    void *memory = calloc(count != 0 ? count : 1, bytes);
    if (memory == NULL) {
        command_error("out of memory");
        exit(EXIT_TROUBLE);
    }
    return memory;
}

void *must_grow(void *memory, size_t count, size_t bytes)
{
    void *grown = reallocarray(memory, count, bytes);
    if (grown == NULL) {
        command_error("out of memory");
        exit(EXIT_TROUBLE);
    }
    return grown;
}

/* ------------------------------------------------------------------------------------- mappings */

/* Files may be called anything. */
static char *name_copy(const char *name)
{
    char *copied = must_allocate(strlen(name) + 1, 1);
    return text_clean(strcpy(copied, name));
}

struct mapping_view *mapping_add(struct mapping_list *list, uintptr_t start, uintptr_t end,
                                 const char *access, const char *name)
{
    if (list->count == list->room) {
        list->room = list->room != 0 ? 2 * list->room : SCAN_BYTES / sizeof *list->entries;
        list->entries = must_grow(list->entries, list->room, sizeof *list->entries);
    }
    struct mapping_view *mapping = &list->entries[list->count++];
    *mapping = (struct mapping_view){
        .start = start, .end = end, .name = name_copy(name), .held_bytes = end - start};
    snprintf(mapping->access, sizeof mapping->access, "%s", access);
    return mapping;
}

/* How far the module reaches whose first mapping starts here; 0: it cannot be read. */
static uintptr_t module_end(struct reader *reader, uintptr_t start)
{
    const size_t header_count_max = 64;
    Elf64_Ehdr header;
    uintptr_t first = UINTPTR_MAX;
    uintptr_t end = 0;
    if (!reader_copy(reader, start, &header, sizeof header) ||
        memcmp(header.e_ident, ELFMAG, SELFMAG) != 0 || header.e_phnum > header_count_max) {
        return 0;
    }
    for (size_t i = 0; i < header.e_phnum; i++) {
        Elf64_Phdr part;
        if (!reader_copy(reader, start + header.e_phoff + i * sizeof part, &part, sizeof part)) {
            return 0;
        }
        if (part.p_type == PT_LOAD) {
            first = size_min(first, align_down(part.p_vaddr, reader->page_bytes));
            end = size_max(end, align_up(part.p_vaddr + part.p_memsz, reader->page_bytes));
        }
    }
    return end > first ? start + (end - first) : 0;
}

void mappings_name_zeroed(struct reader *reader, struct mapping_list *list)
{
    size_t module = 0; /* the first mapping of the module at hand */
    for (size_t i = 1; i < list->count; i++) {
        struct mapping_view *mapping = &list->entries[i];
        const struct mapping_view *last = mapping - 1;
        if (mapping->name[0] == '/') {
            module = strcmp(mapping->name, list->entries[module].name) == 0 ? module : i;
        } else if (mapping->name[0] == '\0' && last->name[0] == '/' &&
                   last->end == mapping->start && mapping->access[1] == 'w' &&
                   mapping->end <= module_end(reader, list->entries[module].start)) {
            free((char *)mapping->name);
            mapping->name = name_copy(last->name);
        }
    }
}

void mapping_list_free(struct mapping_list *list)
{
    for (size_t i = 0; i < list->count; i++) {
        free((char *)list->entries[i].name);
    }
    free(list->entries);
    *list = (struct mapping_list){0};
}

/* --------------------------------------------------------------------------------------- memory */

bool reader_copy(struct reader *reader, uintptr_t address, void *to, size_t bytes)
{
    return bytes == 0 ||
           (bytes <= UINTPTR_MAX - address && reader->ops->copy(reader, address, to, bytes));
}

static const struct cache_line *cache_line(struct reader *reader, uintptr_t address)
{
    struct cache_line *line = &reader->cache[address / CACHE_LINE_BYTES % CACHE_LINE_COUNT];
    if (line->address != address) {
        line->address = 0;
        if (!reader_copy(reader, address, line->bytes, CACHE_LINE_BYTES)) {
            return NULL;
        }
        line->address = address;
    }
    return line;
}

bool target_copy_cached(struct reader *reader, uintptr_t address, void *to, size_t bytes)
{
    while (bytes > 0) {
        uintptr_t start = align_down(address, CACHE_LINE_BYTES);
        size_t offset = address - start;
        size_t piece_bytes = size_min(bytes, CACHE_LINE_BYTES - offset);
        const struct cache_line *line = start != 0 ? cache_line(reader, start) : NULL;
        if (line == NULL) {
            return false;
        }
        memcpy(to, line->bytes + offset, piece_bytes);
        to = (char *)to + piece_bytes;
        address += piece_bytes;
        bytes -= piece_bytes;
    }
    return true;
}

void target_forget(struct reader *reader)
{
    for (size_t i = 0; i < CACHE_LINE_COUNT; i++) {
        reader->cache[i].address = 0;
    }
}

/* ------------------------------------------------------------------------------------- the root */

/* What was found, best first. */
enum root_quality { ROOT_NONE, ROOT_FOREIGN, ROOT_IDLE, ROOT_IN_USE };

struct root_search {
    enum root_quality quality;
    struct hmm_root root;
};

static enum root_quality root_quality(struct reader *reader, const struct hmm_root *root)
{
    if (root->layout_version != ROOT_LAYOUT_VERSION || root->root_bytes != sizeof *root ||
        root->fingerprint != ROOT_FINGERPRINT) {
        return ROOT_FOREIGN;
    }
    struct process process;
    int engine;
    bool is_read = reader_copy(reader, (uintptr_t)root->process, &process, sizeof process) &&
                   reader_copy(reader, (uintptr_t)process.engine, &engine, sizeof engine);
    return is_read && engine != ENGINE_NONE ? ROOT_IN_USE : ROOT_IDLE;
}

/* Looks at every place in [start, end) where a root may begin. */
static void root_scan(struct reader *reader, uintptr_t start, uintptr_t end,
                      struct root_search *search)
{
    static unsigned char bytes[SCAN_BYTES];
    while (start < end && search->quality < ROOT_IN_USE) {
        size_t count = size_min(end - start, SCAN_BYTES);
        if (!reader_copy(reader, start, bytes, count)) {
            return;
        }
        for (size_t at = 0; at + ROOT_MAGIC_BYTES <= count; at += ROOT_ALIGN_BYTES) {
            struct hmm_root root;
            if (memcmp(bytes + at, ROOT_MAGIC, ROOT_MAGIC_BYTES) != 0 ||
                !reader_copy(reader, start + at, &root, sizeof root) ||
                (uintptr_t)root.self != start + at) {
                continue;
            }
            enum root_quality quality = root_quality(reader, &root);
            if (quality > search->quality) {
                *search = (struct root_search){quality, root};
            }
        }
        start += count;
    }
}

static bool is_same_module(const struct mapping_view *a, const struct mapping_view *b)
{
    return a->end == b->start && strcmp(a->name, b->name) == 0;
}

/* A module's data: what is writable, and what was until the linker had done its work. */
static bool is_data(const struct mapping_list *list, size_t index)
{
    const struct mapping_view *mapping = &list->entries[index];
    if (mapping->access[0] != 'r' || mapping->name[0] != '/') {
        return false;
    }
    if (mapping->access[1] == 'w') {
        return true;
    }
    return mapping->access[2] != 'x' && index + 1 < list->count &&
           is_same_module(mapping, mapping + 1) && mapping[1].access[1] == 'w';
}

/* Of a core that is whole: whether the library was there, and its data was left out. */
static bool is_withheld(const struct reader *reader, const struct mapping_list *list)
{
    for (size_t i = 0; reader_kind(reader) == READER_CORE && i < list->count; i++) {
        if (is_data(list, i) && is_library_path(list->entries[i].name) &&
            list->entries[i].held_bytes == 0) {
            return true;
        }
    }
    return false;
}

static void complain_no_root(struct reader *reader, const struct mapping_list *list)
{
    if (reader->ops->resident_bytes(reader) == 0) {
        command_error("%s has ended", reader->name);
    } else if (reader->is_cut) {
        command_error("%s: what is left of it does not reach to the data of HMM", reader->name);
    } else if (is_withheld(reader, list)) {
        command_error("%s does not hold the process's private memory (coredump_filter)",
                      reader->name);
    } else {
        command_error("%s does not run on HMM", reader->name);
    }
}

/* The libraries of ours first, so that other modules are seldom looked at. */
static bool root_find(struct reader *reader)
{
    struct mapping_list list = {0};
    struct root_search search = {.quality = ROOT_NONE};
    if (!reader->ops->list(reader, MAPPINGS_PLAIN, &list)) {
        return false;
    }
    for (int is_library = 1; is_library >= 0; is_library--) {
        for (size_t i = 0; i < list.count && search.quality < ROOT_IN_USE; i++) {
            if (is_data(&list, i) && is_library_path(list.entries[i].name) == (is_library != 0)) {
                root_scan(reader, list.entries[i].start, list.entries[i].end, &search);
            }
        }
    }
    if (search.quality == ROOT_NONE) {
        complain_no_root(reader, &list);
    }
    mapping_list_free(&list);
    if (search.quality == ROOT_NONE) {
        return false;
    }
    if (search.quality == ROOT_FOREIGN) {
        command_error("%s runs on HMM %.*s (layout %u), which this hmm " HMM_VERSION
                      " (layout %d) was not built with and cannot read",
                      reader->name, ROOT_VERSION_BYTES, search.root.version,
                      search.root.layout_version, ROOT_LAYOUT_VERSION);
        return false;
    }
    reader->root = search.root;
    return true;
}

/* ------------------------------------------------------------------------------- open and close */

void reader_set_name(struct reader *reader, const char *name)
{
    snprintf(reader->name, sizeof reader->name, "%s", name);
    (void)text_clean(reader->name);
}

static bool is_number(const char *text)
{
    return text[0] != '\0' && strspn(text, "0123456789") == strlen(text);
}

/* Nothing, or more than one: what `$(pidof NAME)` says in quotes where it does not find one. */
static bool is_no_operand(const char *text)
{
    return strspn(text, "0123456789 ") == strlen(text) && !is_number(text);
}

static bool target_open(struct reader *reader, char *const *operands, bool is_program)
{
    const bool is_core = !is_program && !is_number(operands[0]);
    if (is_core) {
        return target_open_core(reader, operands[0]);
    }
    if (!command_has_proc()) {
        return false;
    }
    if (!is_program) {
        long process_id = strtol(operands[0], NULL, 10);
        if (process_id > INT_MAX) {
            command_error("there is no process %s", operands[0]);
            return false;
        }
        return target_open_process(reader, (pid_t)process_id);
    }
    return target_open_program(reader, operands);
}

/* NULL: *wait_status is how a program that was started ended, else the status of a mistake. */
static struct reader *reader_make(char *const *operands, bool is_program, int *wait_status)
{
    struct reader *reader = must_allocate(1, sizeof *reader);
    reader->memory_map_file = -1;
    reader->wait_status = EXIT_TROUBLE << CHAR_BIT;
    reader->cache = must_allocate(CACHE_LINE_COUNT, sizeof *reader->cache);
    if (target_open(reader, operands, is_program) && root_find(reader)) {
        return reader;
    }
    *wait_status = reader_close(reader);
    return NULL;
}

struct reader *reader_open(char *const *operands, bool is_program)
{
    int wait_status;
    if (operands[0] == NULL || (!is_program && operands[1] != NULL)) {
        command_error("wants one process id, one core file, or -- and a program");
        return NULL;
    }
    if (!is_program && is_no_operand(operands[0])) {
        command_error("wants one process id, one core file, or -- and a program, not '%s'",
                      operands[0]);
        return NULL;
    }
    return reader_make(operands, is_program, &wait_status);
}

struct reader *reader_run(char *const *program, int *wait_status)
{
    return reader_make(program, true, wait_status);
}

void reader_watch(struct reader *reader)
{
    reader->is_watching = true;
}

int reader_close(struct reader *reader)
{
    int status = reader->ops != NULL ? reader->ops->close(reader) : reader->wait_status;
    free(reader->cache);
    free(reader->bins_seen);
    free(reader);
    return status;
}

bool reader_pages(struct reader *reader, uintptr_t start, size_t page_count, bool *is_resident)
{
    enum { BATCH_PAGES = 4096 };
    uint8_t states[BATCH_PAGES];
    for (size_t done = 0; done < page_count; done += BATCH_PAGES) {
        size_t count = size_min(page_count - done, BATCH_PAGES);
        if (!reader->ops->pages(reader, start + done * reader->page_bytes, count, states)) {
            return false;
        }
        for (size_t i = 0; i < count; i++) {
            is_resident[done + i] = states[i] != PAGE_ABSENT;
        }
    }
    return true;
}

enum reader_kind reader_kind(const struct reader *reader)
{
    return reader->kind;
}

bool reader_is_cut(const struct reader *reader)
{
    return reader->is_cut;
}

pid_t reader_process_id(const struct reader *reader)
{
    return reader->process_id;
}

const char *reader_name(const struct reader *reader)
{
    return reader->name;
}
