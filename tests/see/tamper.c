/* Damages a core in one place, in a way that the heap itself never would.
 *
 *     tamper CORE page BYTES       what the core says of pages
 *     tamper CORE run GRANULES     the current slab of a bin becomes a large run
 *     tamper CORE memory BYTES     how much memory the segment of the first slab had
 *     tamper CORE threads          the list of threads is a ring
 *     tamper CORE heaps            the list of created heaps is a ring
 *     tamper CORE hidden           the first slab counts as inaccessible
 *     tamper CORE hidden_count     one granule more does than there are
 *     tamper CORE zone             only the last zone of a shard has dirty pages, at its end
 */
#include "root.h"

#include <elf.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static unsigned char *core;
static size_t core_bytes;

static Elf64_Phdr *parts(size_t *count)
{
    Elf64_Ehdr *header = (Elf64_Ehdr *)core;
    *count = header->e_phnum;
    return (Elf64_Phdr *)(core + header->e_phoff);
}

static Elf64_Phdr *part_of(const void *pointer)
{
    const uintptr_t address = (uintptr_t)pointer;
    size_t count;
    Elf64_Phdr *part = parts(&count);
    for (size_t i = 0; i < count; i++) {
        if (part[i].p_type == PT_LOAD && address - part[i].p_vaddr < part[i].p_filesz) {
            return &part[i];
        }
    }
    return NULL;
}

/* What lies in the process at the pointer; NULL: the core has it not. */
static void *here(const void *pointer)
{
    const Elf64_Phdr *part = part_of(pointer);
    return part != NULL ? core + part->p_offset + ((uintptr_t)pointer - part->p_vaddr) : NULL;
}

/* Pages of files may hold another copy, whose pointers lead nowhere. gdb lays memory
 * at any offset. */
static const struct hmm_root *root_find(void)
{
    const unsigned char *at = core;
    const unsigned char *end = core + core_bytes - sizeof(struct hmm_root);
    while (at < end &&
           (at = memmem(at, (size_t)(end - at), ROOT_MAGIC, ROOT_MAGIC_BYTES)) != NULL) {
        const struct hmm_root *root = (const struct hmm_root *)at;
        if (here(root->self) == root) {
            return root;
        }
        at++;
    }
    return NULL;
}

static int page_write(uint64_t page_bytes)
{
    size_t count;
    const Elf64_Phdr *part = parts(&count);
    for (size_t i = 0; i < count; i++) {
        const size_t bytes = part[i].p_type == PT_NOTE ? part[i].p_filesz : 0;
        for (size_t at = 0; at + sizeof(Elf64_auxv_t) <= bytes; at += sizeof(uint32_t)) {
            Elf64_auxv_t entry;
            unsigned char *place = core + part[i].p_offset + at;
            memcpy(&entry, place, sizeof entry);
            if (entry.a_type == AT_PAGESZ && entry.a_un.a_val == (uint64_t)sysconf(_SC_PAGESIZE)) {
                entry.a_un.a_val = page_bytes;
                memcpy(place, &entry, sizeof entry);
                return 0;
            }
        }
    }
    return 1;
}

static int run_write(const struct thread *thread, size_t granule_count)
{
    struct slot **bins = here(thread->bins);
    for (size_t i = 0; bins != NULL && i < CLASS_COUNT; i++) {
        struct granule *slab = here(thread->classes[i].current);
        if (bins[i] != NULL && slab != NULL) {
            slab->kind = GRANULE_LARGE;
            slab->size_class = i == 0;
            slab->run.granule_count = granule_count;
            return 0;
        }
    }
    return 1;
}

/* The first large block becomes a heap that follows itself. */
static int heaps_write(const struct hmm_root *root, const struct arena *arena,
                       const struct granule *table)
{
    HmmHeap **created = here(root->created);
    for (size_t i = 0; created != NULL && i < arena->frontier_count; i++) {
        if (table[i].kind == GRANULE_LARGE) {
            HmmHeap *heap = (HmmHeap *)table[i].run.start;
            memset(here(heap), 0, sizeof *heap);
            ((HmmHeap *)here(heap))->magic = HANDLE_MAGIC;
            ((HmmHeap *)here(heap))->registry_next = heap;
            ((HmmHeap *)here(heap))->registry_link = (HmmHeap **)root->created;
            *created = heap;
            return 0;
        }
    }
    return 1;
}

static int hidden_write(const struct arena *arena, const struct granule *table)
{
    struct set_words *sets = here(arena->sets);
    for (size_t i = 0; sets != NULL && i < arena->frontier_count; i++) {
        if (table[i].kind == GRANULE_SLAB) {
            sets[i / WORD_BITS].hidden |= (uint64_t)1 << i % WORD_BITS;
            return 0;
        }
    }
    return 1;
}

/* The shard's counter is kept right. */
static int zone_write(const struct hmm_root *root)
{
    struct shard *shards = here(root->shards);
    for (size_t i = 0; shards != NULL && i < SHARD_COUNT_MAX; i++) {
        struct granule *first = shards[i].zones != NULL ? here(shards[i].zones) : NULL;
        struct granule *last = first;
        while (last != NULL && last->zone.next != NULL) {
            last = here(last->zone.next);
        }
        if (last != first && last != NULL && !zone_is_dirty(&shards[i], first)) {
            shards[i].dirty_bytes -= span_bytes(zone_dirty_pages(&shards[i], &last->zone));
            last->zone.touched = last->zone.end;
            shards[i].dirty_bytes += span_bytes(zone_dirty_pages(&shards[i], &last->zone));
            return !zone_is_dirty(&shards[i], last);
        }
    }
    return 1;
}

static int tamper(const char *what, size_t value)
{
    const struct hmm_root *root = root_find();
    struct arena *arena = root != NULL ? here(root->arena) : NULL;
    const struct thread_lists *lists = root != NULL ? here(root->threads) : NULL;
    const struct granule *table = arena != NULL ? here(arena->table) : NULL;
    struct thread *thread = lists != NULL ? here(lists->live) : NULL;
    if (table == NULL || thread == NULL) {
        return 1;
    }
    if (strcmp(what, "page") == 0) {
        return page_write(value);
    }
    if (strcmp(what, "run") == 0) {
        return run_write(thread, value);
    }
    if (strcmp(what, "memory") == 0) {
        part_of((void *)arena->base)->p_memsz = value;
        return 0;
    }
    if (strcmp(what, "threads") == 0) {
        thread->next = lists->live;
        return 0;
    }
    if (strcmp(what, "hidden") == 0) {
        return hidden_write(arena, table);
    }
    if (strcmp(what, "hidden_count") == 0) {
        arena->hidden_count++;
        return 0;
    }
    if (strcmp(what, "zone") == 0) {
        return zone_write(root);
    }
    return strcmp(what, "heaps") == 0 ? heaps_write(root, arena, table) : 1;
}

int main(int argc, char **argv)
{
    struct stat about;
    int file = argc > 2 ? open(argv[1], O_RDWR) : -1;
    if (file < 0 || fstat(file, &about) != 0) {
        return 2;
    }
    core_bytes = (size_t)about.st_size;
    core = mmap(NULL, core_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    return core == MAP_FAILED ? 2 : tamper(argv[2], argc > 3 ? strtoul(argv[3], NULL, 0) : 0);
}
