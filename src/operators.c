/*
 * operators.c - looks for operator new in the symbols of all modules. See operators.h.
 *
 * The loader is not asked by name, because it would tell of one definition only, and of none that a
 * plug-in keeps to itself. The tables are those by which it looks names up: a hash leads to a
 * bucket, that to a chain of symbols.
 *
 * A module that the C++ runtime is linked into may show none of its operators. But operator new
 * throws bad_alloc, and how that class is called the compiler writes down with the runtime only:
 * everybody else refers to it there.
 */
#include "operators.h"

#include <ctype.h>
#include <link.h>
#include <stdatomic.h>
#include <string.h>

enum { HASH_START = 5381, HASH_FACTOR = 33 };

static const char *const operator_name = sizeof(size_t) == sizeof(uint64_t) ? "_Znwm" : "_Znwj";

/* What another library of ours has, whose operators give way to ours, too. */
static const char library_name[] = "HmmSetFatalHandler";

/* File names of C++ runtimes begin so. Their operators give way to ours. */
static const char *const runtimes[] = {"libstdc++.so", "libc++.so", "libc++abi.so"};

/* As typeid(std::bad_alloc).name() has it, and the end of it. */
static const char runtime_mark[] = "St9bad_alloc";

/* Relaxed: who does not know it yet looks again. */
static _Atomic bool is_known_to_be_mixed;

/* What a module's names are looked up in; NULL: it has no such table. */
struct symbols {
    const ElfW(Sym) * symbols;
    const char *names;
    const uint32_t *hashes;
};

/* The head of a table of hashes; `filter_words`, of the size of addresses, follow it, then
 * buckets and chains. */
struct hash_table {
    uint32_t bucket_count;
    uint32_t first_symbol;
    uint32_t filter_words;
    uint32_t filter_shift;
};

/* Most addresses in there were made absolute by the loader; where it cannot write they
 * are offsets still. */
static const void *table_at(const struct dl_phdr_info *module, ElfW(Addr) address)
{
    return (const void *)(address < module->dlpi_addr ? module->dlpi_addr + address : address);
}

static struct symbols symbols_of(const struct dl_phdr_info *module)
{
    struct symbols found = {0};
    const ElfW(Dyn) *entry = NULL;
    for (size_t i = 0; i < module->dlpi_phnum && entry == NULL; i++) {
        if (module->dlpi_phdr[i].p_type == PT_DYNAMIC) {
            entry = (const void *)(module->dlpi_addr + module->dlpi_phdr[i].p_vaddr);
        }
    }
    for (; entry != NULL && entry->d_tag != DT_NULL; entry++) {
        if (entry->d_tag == DT_SYMTAB) {
            found.symbols = table_at(module, entry->d_un.d_ptr);
        } else if (entry->d_tag == DT_STRTAB) {
            found.names = table_at(module, entry->d_un.d_ptr);
        } else if (entry->d_tag == DT_GNU_HASH) {
            found.hashes = table_at(module, entry->d_un.d_ptr);
        }
    }
    return found;
}

static uint32_t name_hash(const char *name)
{
    uint32_t hash = HASH_START;
    for (; *name != '\0'; name++) {
        hash = hash * HASH_FACTOR + (unsigned char)*name;
    }
    return hash;
}

/* The lowest bit of a symbol's hash in the chain says that it is the last one. */
static bool has_symbol(const struct symbols *in, const char *name)
{
    if (in->symbols == NULL || in->names == NULL || in->hashes == NULL) {
        return false;
    }
    const struct hash_table *table = (const void *)in->hashes;
    const uint32_t *buckets = (const uint32_t *)(const void *)(table + 1) +
                              table->filter_words * (sizeof(ElfW(Addr)) / sizeof(uint32_t));
    const uint32_t *chains = buckets + table->bucket_count;
    uint32_t hash = name_hash(name);
    uint32_t symbol = table->bucket_count != 0 ? buckets[hash % table->bucket_count] : 0;
    bool is_last = symbol < table->first_symbol;
    for (; !is_last; symbol++) {
        const ElfW(Sym) *found = &in->symbols[symbol];
        uint32_t link = chains[symbol - table->first_symbol];
        if ((link | 1) == (hash | 1) && found->st_shndx != SHN_UNDEF &&
            strcmp(in->names + found->st_name, name) == 0) {
            return true;
        }
        is_last = (link & 1) != 0;
    }
    return false;
}

static bool is_runtime(const char *path)
{
    const char *slash = strrchr(path, '/');
    const char *file = slash != NULL ? slash + 1 : path;
    for (size_t i = 0; i < sizeof runtimes / sizeof runtimes[0]; i++) {
        if (strncmp(file, runtimes[i], strlen(runtimes[i])) == 0) {
            return true;
        }
    }
    return false;
}

static bool module_covers(const struct dl_phdr_info *module, const void *address)
{
    uintptr_t at = (uintptr_t)address - module->dlpi_addr;
    for (size_t i = 0; i < module->dlpi_phnum; i++) {
        const ElfW(Phdr) *part = &module->dlpi_phdr[i];
        if (part->p_type == PT_LOAD && at - part->p_vaddr < part->p_memsz) {
            return true;
        }
    }
    return false;
}

/* Names of symbols may end like the mark; it begins behind something else. */
static bool has_mark(const char *start, size_t bytes)
{
    const char *end = start + bytes;
    const char *found = memmem(start, bytes, runtime_mark, sizeof runtime_mark);
    while (found != NULL && found > start && isalnum((unsigned char)found[-1])) {
        found = memmem(found + 1, (size_t)(end - found - 1), runtime_mark, sizeof runtime_mark);
    }
    return found != NULL;
}

/* Linkers put constants into memory that can only be read, or beside the code. */
static bool has_own_runtime(const struct dl_phdr_info *module)
{
    for (size_t i = 0; i < module->dlpi_phnum; i++) {
        const ElfW(Phdr) *part = &module->dlpi_phdr[i];
        if (part->p_type == PT_LOAD && (part->p_flags & (PF_R | PF_W)) == PF_R &&
            has_mark((const char *)(module->dlpi_addr + part->p_vaddr), part->p_filesz)) {
            return true;
        }
    }
    return false;
}

static int module_look(struct dl_phdr_info *module, size_t bytes, void *context)
{
    (void)bytes;
    (void)context;
    if (module_covers(module, runtimes) || is_runtime(module->dlpi_name)) {
        return false;
    }
    struct symbols symbols = symbols_of(module);
    return !has_symbol(&symbols, library_name) &&
           (has_symbol(&symbols, operator_name) || has_own_runtime(module));
}

/* The program that the archive is linked into is our own module, and a static one shows no
 * symbols at all. */
static bool is_new_replaced(void)
{
    return hmm_new_is_replaced != NULL && hmm_new_is_replaced();
}

HMM_COLD bool hmm_operators_are_mixed(void)
{
    if (!atomic_load_explicit(&is_known_to_be_mixed, memory_order_relaxed)) {
        bool is_mixed = is_new_replaced() || dl_iterate_phdr(module_look, NULL) != 0;
        atomic_store_explicit(&is_known_to_be_mixed, is_mixed, memory_order_relaxed);
    }
    return atomic_load_explicit(&is_known_to_be_mixed, memory_order_relaxed);
}

struct question {
    const void *address;
    const char *name;
    bool is_defined;
};

/* Of a module without such a table nothing is known. */
static int module_ask(struct dl_phdr_info *module, size_t bytes, void *context)
{
    struct question *question = context;
    (void)bytes;
    if (!module_covers(module, question->address)) {
        return false;
    }
    struct symbols symbols = symbols_of(module);
    question->is_defined = symbols.hashes == NULL || has_symbol(&symbols, question->name);
    return true;
}

HMM_COLD bool hmm_module_defines(const void *address, const char *name)
{
    struct question question = {.address = address, .name = name};
    (void)dl_iterate_phdr(module_ask, &question);
    return question.is_defined;
}
