/*
 * target_core.c - a core file, as kernels and debuggers write it: ELF, 64 bits, of this machine.
 *
 * Segments hold memory; a note names the files that were mapped. A core does not say which pages
 * were resident. Those that are not all zero were, so that is what counts here; of file mappings a
 * core usually holds nothing, and then nothing of them counts.
 */
#include "command.h"
#include "machine.h"
#include "target.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/procfs.h>
#include <sys/stat.h>
#include <unistd.h>

struct core_segment {
    uintptr_t start;
    size_t bytes;
    size_t offset_bytes; /* in the core */
    size_t held_bytes;   /* of it in the core, from its start */
    unsigned flags;
};

struct core_file {
    uintptr_t start;
    uintptr_t end;
    const char *name;
};

/* A part of the core; NULL: it ends before. */
static const void *core_part(const struct reader *reader, size_t offset, size_t bytes)
{
    return offset <= reader->core_bytes && bytes <= reader->core_bytes - offset
               ? reader->core + offset
               : NULL;
}

/* ------------------------------------------------------------------------------------ the notes */

/* NT_FILE: count, page size, count x {start, end, page offset}, then as many names. */
static void note_files(struct reader *reader, const unsigned char *note, size_t bytes)
{
    const size_t word = sizeof(uint64_t);
    uint64_t count;
    if (bytes < 2 * word) {
        return;
    }
    memcpy(&count, note, word);
    if (count > bytes / (3 * word)) {
        return;
    }
    size_t names_at = (2 + 3 * (size_t)count) * word;
    if (names_at >= bytes) {
        return;
    }
    reader->files = must_allocate(count, sizeof *reader->files);
    reader->file_names = must_allocate(bytes - names_at + 1, 1);
    memcpy(reader->file_names, note + names_at, bytes - names_at);
    const char *name = reader->file_names;
    const char *end = name + (bytes - names_at);
    for (size_t i = 0; i < count && name < end; i++) {
        uint64_t range[2];
        memcpy(range, note + (2 + 3 * i) * word, sizeof range);
        reader->files[reader->file_count++] =
            (struct core_file){(uintptr_t)range[0], (uintptr_t)range[1], name};
        name += strlen(name) + 1;
    }
}

static void note_auxiliary(struct reader *reader, const unsigned char *note, size_t bytes)
{
    Elf64_auxv_t entry;
    for (; bytes >= sizeof entry; note += sizeof entry, bytes -= sizeof entry) {
        memcpy(&entry, note, sizeof entry);
        if (entry.a_type == AT_PAGESZ) {
            reader->page_bytes = entry.a_un.a_val;
        }
    }
}

static void note_read(struct reader *reader, unsigned type, const unsigned char *note, size_t bytes)
{
    struct elf_prpsinfo info;
    if (type == NT_FILE && reader->files == NULL) {
        note_files(reader, note, bytes);
    } else if (type == NT_AUXV) {
        note_auxiliary(reader, note, bytes);
    } else if (type == NT_PRPSINFO && bytes >= sizeof info) {
        memcpy(&info, note, sizeof info);
        reader->process_id = info.pr_pid;
    }
}

static void notes_read(struct reader *reader, size_t offset, size_t bytes)
{
    const size_t align_bytes = 4;
    const unsigned char *notes = core_part(reader, offset, bytes);
    while (notes != NULL && bytes >= sizeof(Elf64_Nhdr)) {
        Elf64_Nhdr header;
        memcpy(&header, notes, sizeof header);
        size_t name_bytes = align_up(header.n_namesz, align_bytes);
        size_t description_bytes = align_up(header.n_descsz, align_bytes);
        size_t whole_bytes = sizeof header + name_bytes + description_bytes;
        if (whole_bytes > bytes) {
            return;
        }
        note_read(reader, header.n_type, notes + sizeof header + name_bytes, header.n_descsz);
        notes += whole_bytes;
        bytes -= whole_bytes;
    }
}

/* -------------------------------------------------------------------------------- what it holds */

static int segment_compare(const void *a, const void *b)
{
    const struct core_segment *left = a;
    const struct core_segment *right = b;
    return (left->start > right->start) - (left->start < right->start);
}

/* In the order of addresses. One that says that it reaches into the next is damaged,
 * and ends there. */
static void segments_order(struct reader *reader)
{
    qsort(reader->segments, reader->segment_count, sizeof *reader->segments, segment_compare);
    for (size_t i = 0; i + 1 < reader->segment_count; i++) {
        struct core_segment *segment = &reader->segments[i];
        segment->bytes = size_min(segment->bytes, segment[1].start - segment->start);
        segment->held_bytes = size_min(segment->held_bytes, segment->bytes);
    }
}

static const struct core_segment *segment_at(const struct reader *reader, uintptr_t address)
{
    size_t low = 0;
    size_t high = reader->segment_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        const struct core_segment *segment = &reader->segments[middle];
        if (address < segment->start) {
            high = middle;
        } else if (address - segment->start >= segment->bytes) {
            low = middle + 1;
        } else {
            return segment;
        }
    }
    return NULL;
}

/* The memory at the address and how much of it is adjacent; NULL: the core has it not. */
static const unsigned char *core_memory(const struct reader *reader, uintptr_t address,
                                        size_t *bytes)
{
    const struct core_segment *segment = segment_at(reader, address);
    if (segment == NULL || address - segment->start >= segment->held_bytes) {
        return NULL;
    }
    size_t offset = address - segment->start;
    *bytes = segment->held_bytes - offset;
    return reader->core + segment->offset_bytes + offset;
}

static bool core_copy(struct reader *reader, uintptr_t address, void *to, size_t bytes)
{
    while (bytes > 0) {
        size_t held_bytes;
        const unsigned char *from = core_memory(reader, address, &held_bytes);
        if (from == NULL) {
            return false;
        }
        size_t piece_bytes = size_min(bytes, held_bytes);
        memcpy(to, from, piece_bytes);
        to = (char *)to + piece_bytes;
        address += piece_bytes;
        bytes -= piece_bytes;
    }
    return true;
}

static bool core_copy_pieces(struct reader *reader, const struct memory_piece *pieces, size_t count)
{
    bool is_there = true;
    for (size_t i = 0; i < count; i++) {
        is_there &= core_copy(reader, pieces[i].address, pieces[i].to, pieces[i].bytes);
    }
    return is_there;
}

static bool is_zero(const unsigned char *bytes, size_t count)
{
    return bytes[0] == 0 && memcmp(bytes, bytes + 1, count - 1) == 0;
}

static bool core_pages(struct reader *reader, uintptr_t start, size_t page_count, uint8_t *states)
{
    for (size_t i = 0; i < page_count; i++) {
        size_t held_bytes = 0;
        const unsigned char *page =
            core_memory(reader, start + i * reader->page_bytes, &held_bytes);
        bool is_there = page != NULL && !is_zero(page, size_min(held_bytes, reader->page_bytes));
        states[i] = (uint8_t)(is_there ? PAGE_OWN : PAGE_ABSENT);
    }
    return true;
}

static size_t segment_resident_bytes(struct reader *reader, const struct core_segment *segment)
{
    size_t bytes = 0;
    for (size_t at = 0; at < segment->held_bytes; at += reader->page_bytes) {
        uint8_t state;
        (void)core_pages(reader, segment->start + at, 1, &state);
        bytes += state == PAGE_ABSENT ? 0 : reader->page_bytes;
    }
    return bytes;
}

static const char *file_name_at(const struct reader *reader, uintptr_t address)
{
    for (size_t i = 0; i < reader->file_count; i++) {
        if (address >= reader->files[i].start && address < reader->files[i].end) {
            return reader->files[i].name;
        }
    }
    return "";
}

static bool core_list(struct reader *reader, enum mapping_detail detail, struct mapping_list *list)
{
    if (detail == MAPPINGS_MODULES) {
        for (size_t i = 0; i < reader->file_count; i++) {
            const struct core_file *file = &reader->files[i];
            (void)mapping_add(list, file->start, file->end, "----", file->name);
        }
        return true;
    }
    for (size_t i = 0; i < reader->segment_count; i++) {
        const struct core_segment *segment = &reader->segments[i];
        char access[5] = {(segment->flags & PF_R) != 0 ? 'r' : '-',
                          (segment->flags & PF_W) != 0 ? 'w' : '-',
                          (segment->flags & PF_X) != 0 ? 'x' : '-', 'p', '\0'};
        const char *name = file_name_at(reader, segment->start);
        struct mapping_view *mapping =
            mapping_add(list, segment->start, segment->start + segment->bytes, access, name);
        mapping->held_bytes = segment->held_bytes;
        if (detail == MAPPINGS_WITH_SIZES) {
            mapping->resident_bytes = segment_resident_bytes(reader, segment);
        }
    }
    if (detail == MAPPINGS_WITH_SIZES) {
        mappings_name_zeroed(reader, list);
    }
    return true;
}

static size_t core_resident_bytes(struct reader *reader)
{
    (void)reader;
    return SIZE_MAX;
}

static int core_close(struct reader *reader)
{
    if (reader->core != NULL) {
        munmap((void *)reader->core, reader->core_bytes);
    }
    free(reader->segments);
    free(reader->files);
    free(reader->file_names);
    return 0;
}

static const struct target_ops core_ops = {
    core_copy, core_copy_pieces, core_list, core_pages, core_resident_bytes, core_close, NULL};

/* -------------------------------------------------------------------------------------- opening */

static bool headers_read(struct reader *reader, const Elf64_Ehdr *header)
{
    size_t count = header->e_phnum;
    if (count == PN_XNUM) {
        /* Too many for the field: the first section header has the number. */
        Elf64_Shdr section = {0};
        const void *place = core_part(reader, header->e_shoff, sizeof section);
        if (place != NULL) {
            memcpy(&section, place, sizeof section);
        }
        count = section.sh_info;
    }
    const unsigned char *headers =
        count <= reader->core_bytes / sizeof(Elf64_Phdr)
            ? core_part(reader, header->e_phoff, count * sizeof(Elf64_Phdr))
            : NULL;
    if (headers == NULL || count == 0) {
        return false;
    }
    reader->segments = must_allocate(count, sizeof *reader->segments);
    for (size_t i = 0; i < count; i++) {
        Elf64_Phdr part; /* a damaged core has them at any offset */
        memcpy(&part, headers + i * sizeof part, sizeof part);
        size_t held_bytes = part.p_offset < reader->core_bytes
                                ? size_min(part.p_filesz, reader->core_bytes - part.p_offset)
                                : 0;
        reader->is_cut |= held_bytes < part.p_filesz;
        if (part.p_type == PT_NOTE) {
            notes_read(reader, part.p_offset, held_bytes);
        } else if (part.p_type == PT_LOAD && part.p_memsz != 0 &&
                   part.p_memsz <= UINTPTR_MAX - part.p_vaddr) {
            reader->segments[reader->segment_count++] = (struct core_segment){
                .start = part.p_vaddr,
                .bytes = part.p_memsz,
                .offset_bytes = part.p_offset,
                .held_bytes = size_min(held_bytes, part.p_memsz),
                .flags = part.p_flags,
            };
        }
    }
    segments_order(reader);
    return true;
}

/* No machine has smaller or larger ones, and a granule is a whole number of these. */
static bool page_is_sane(size_t page_bytes)
{
    const size_t page_bytes_min = 4 << 10;
    return is_power_of_two(page_bytes) && page_bytes >= page_bytes_min &&
           page_bytes <= GRANULE_BYTES;
}

/* false: a line has said why not. */
static bool core_map(struct reader *reader, const char *path)
{
    struct stat about;
    /* A pipe's other end is not waited for. */
    int file = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (file < 0 || fstat(file, &about) != 0) {
        command_error("%s: %s", path, strerror(errno));
        return false;
    }
    bool is_file = S_ISREG(about.st_mode) && about.st_size > 0;
    void *memory =
        is_file ? mmap(NULL, (size_t)about.st_size, PROT_READ, MAP_PRIVATE, file, 0) : MAP_FAILED;
    int code = errno;
    close(file);
    if (!is_file) {
        command_error("%s is not a core file", path);
        return false;
    }
    if (memory == MAP_FAILED) {
        command_error("%s cannot be mapped: %s", path, strerror(code));
        return false;
    }
    reader->core = memory;
    reader->core_bytes = (size_t)about.st_size;
    return true;
}

/* Whatever is said of it is said of what is left. */
static void core_name_cut(struct reader *reader, const char *path)
{
    char name[READER_NAME_MAX];
    const char *mark = " (cut short)";
    snprintf(name, sizeof name, "%.*s%s", (int)(sizeof name - 1 - strlen(mark)), path, mark);
    reader_set_name(reader, name);
}

bool target_open_core(struct reader *reader, const char *path)
{
    reader->kind = READER_CORE;
    reader->page_bytes = (size_t)sysconf(_SC_PAGESIZE);
    reader_set_name(reader, path);
    if (!core_map(reader, path)) {
        return false;
    }
    reader->ops = &core_ops;
    const Elf64_Ehdr *header = core_part(reader, 0, sizeof *header);
    if (header == NULL || memcmp(header->e_ident, ELFMAG, SELFMAG) != 0 ||
        header->e_type != ET_CORE) {
        command_error("%s is not a core file", path);
        return false;
    }
    if (header->e_ident[EI_CLASS] != ELFCLASS64 || !is_own_machine(header->e_machine)) {
        command_error("%s is a core of another kind of machine", path);
        return false;
    }
    if (!headers_read(reader, header)) {
        command_error("%s is a core file that is cut short", path);
        return false;
    }
    if (!page_is_sane(reader->page_bytes)) {
        command_error("%s is a damaged core file: pages of %zu bytes", path, reader->page_bytes);
        return false;
    }
    if (reader->is_cut) {
        core_name_cut(reader, path);
    }
    return true;
}
