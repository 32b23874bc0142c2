/*
 * doctor_program.c - what becomes of a program's malloc. See doctor.h.
 *
 * The file's ELF headers tell whether a loader is involved at all. If so, the loader is asked to
 * bind all symbols, with the library preloaded, and to tell what it did (LD_DEBUG=bindings); as for
 * ldd, it then ends without running anything of the program.
 */
#include "base.h"
#include "command.h"
#include "doctor.h"
#include "launch.h"
#include "machine.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <limits.h>
#include <link.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

enum { LINE_BYTES_MAX = 4096, SCRIPT_DEPTH_MAX = 4, NAME_LIST_BYTES = 512 };

/* The calls that a program cannot do without. */
static const char *const family[] = {
    "malloc",        "free",  "calloc", "realloc", "reallocarray", "memalign", "posix_memalign",
    "aligned_alloc", "_Znwm", "_Znam",  "_ZdlPv",  "_ZdaPv",       "_ZdlPvm",  "_ZdaPvm",
};
enum { FAMILY_COUNT = sizeof family / sizeof family[0] };

/* Parts of file names. */
static const char *const allocators[] = {
    "jemalloc", "tcmalloc", "mimalloc", "snmalloc", "rpmalloc", "tbbmalloc",
    "hoard",    "scudo",    "libasan",  "libtsan",  "liblsan",
};

/* Those among them that end the program when they find another malloc before theirs. */
static const char *const sanitizers[] = {"libasan", "libtsan"};

/* What glibc's loader is called, by machine. Others do not know that they should only tell, and
 * would run the program. */
static const char *const loaders[] = {"ld-linux*.so.*", "ld64.so.*", "ld.so.1"};

struct elf_file {
    const unsigned char *bytes;
    size_t byte_count;
    const ElfW(Ehdr) * header;
    const char *loader; /* its path; NULL: there is none, or it has no end */
};

/* ------------------------------------------------------------------------------------- the file */

static bool elf_holds(const struct elf_file *file, size_t offset, size_t bytes)
{
    return offset <= file->byte_count && bytes <= file->byte_count - offset;
}

/* false: it cannot be read. */
static bool file_open(const char *path, struct elf_file *file)
{
    *file = (struct elf_file){0};
    struct stat status;
    int descriptor = open(path, O_RDONLY | O_CLOEXEC);
    if (descriptor < 0 || fstat(descriptor, &status) != 0 || status.st_size == 0) {
        if (descriptor >= 0) {
            close(descriptor);
        }
        return false;
    }
    void *bytes = mmap(NULL, (size_t)status.st_size, PROT_READ, MAP_PRIVATE, descriptor, 0);
    close(descriptor);
    if (bytes == MAP_FAILED) {
        return false;
    }
    file->bytes = bytes;
    file->byte_count = (size_t)status.st_size;
    return true;
}

static void file_close(struct elf_file *file)
{
    (void)munmap((void *)(uintptr_t)file->bytes, file->byte_count);
}

/* What a program is, as far as its first bytes tell. */
enum file_kind { FILE_SCRIPT, FILE_DYNAMIC, FILE_STATIC, FILE_FOREIGN, FILE_OTHER };

static const char *loader_path(const struct elf_file *file, const ElfW(Phdr) * part)
{
    bool is_held = part->p_filesz != 0 && elf_holds(file, part->p_offset, part->p_filesz);
    const char *path = (const char *)file->bytes + part->p_offset;
    return is_held && path[part->p_filesz - 1] == '\0' ? path : NULL;
}

static enum file_kind elf_kind(struct elf_file *file)
{
    const ElfW(Ehdr) *header = (const void *)file->bytes;
    const unsigned char own_class = sizeof(void *) == 8 ? ELFCLASS64 : ELFCLASS32;
    if (!elf_holds(file, 0, sizeof *header) || header->e_ident[EI_CLASS] != own_class ||
        !is_own_machine(header->e_machine)) {
        return FILE_FOREIGN;
    }
    file->header = header;
    for (size_t i = 0; i < header->e_phnum; i++) {
        size_t offset = header->e_phoff + i * sizeof(ElfW(Phdr));
        if (!elf_holds(file, offset, sizeof(ElfW(Phdr)))) {
            return FILE_OTHER;
        }
        const ElfW(Phdr) *part = (const void *)(file->bytes + offset);
        if (part->p_type == PT_INTERP) {
            file->loader = loader_path(file, part);
            return FILE_DYNAMIC;
        }
    }
    return FILE_STATIC;
}

static enum file_kind file_kind(struct elf_file *file)
{
    if (elf_holds(file, 0, 2) && memcmp(file->bytes, "#!", 2) == 0) {
        return FILE_SCRIPT;
    }
    bool is_elf = elf_holds(file, 0, SELFMAG) && memcmp(file->bytes, ELFMAG, SELFMAG) == 0;
    return is_elf ? elf_kind(file) : FILE_OTHER;
}

/* Whether the sections of symbols define the name. */
static bool elf_defines(const struct elf_file *file, const char *name)
{
    const ElfW(Ehdr) *header = file->header;
    if (!elf_holds(file, header->e_shoff, header->e_shnum * sizeof(ElfW(Shdr)))) {
        return false;
    }
    const ElfW(Shdr) *sections = (const void *)(file->bytes + header->e_shoff);
    for (size_t i = 0; i < header->e_shnum; i++) {
        const ElfW(Shdr) *table = &sections[i];
        bool is_table = table->sh_type == SHT_SYMTAB || table->sh_type == SHT_DYNSYM;
        if (!is_table || table->sh_link >= header->e_shnum ||
            !elf_holds(file, table->sh_offset, table->sh_size)) {
            continue;
        }
        const ElfW(Shdr) *strings = &sections[table->sh_link];
        const ElfW(Sym) *symbols = (const void *)(file->bytes + table->sh_offset);
        if (!elf_holds(file, strings->sh_offset, strings->sh_size)) {
            continue;
        }
        for (size_t k = 0; k < table->sh_size / sizeof symbols[0]; k++) {
            if (symbols[k].st_shndx != SHN_UNDEF && symbols[k].st_name < strings->sh_size &&
                strncmp((const char *)file->bytes + strings->sh_offset + symbols[k].st_name, name,
                        strings->sh_size - symbols[k].st_name) == 0) {
                return true;
            }
        }
    }
    return false;
}

/* --------------------------------------------------------------------------------- the bindings */

struct binding {
    size_t ours_count;
    size_t others_count;
    char other[PATH_MAX]; /* the module that a call went to instead */
};

struct trace {
    const char *path;
    const struct elf_file *file;
    struct binding bindings[FAMILY_COUNT];
    char allocators[NAME_LIST_BYTES]; /* libraries known to be such */
    size_t line_count;
};

static void note_allocator(struct trace *trace, const char *module)
{
    for (size_t i = 0; i < sizeof allocators / sizeof allocators[0]; i++) {
        const char *name = base_name(module);
        size_t length = strlen(trace->allocators);
        if (strstr(name, allocators[i]) != NULL && strstr(trace->allocators, name) == NULL) {
            snprintf(trace->allocators + length, sizeof trace->allocators - length, "%s%s",
                     length != 0 ? " " : "", name);
        }
    }
}

/* A program that is linked to fixed addresses and takes that of a function gives a stub of its
 * own for it, to everybody. The stub goes where the program's calls go, and how those are bound
 * is noted, too. */
static bool is_stub(const struct trace *trace, const char *to, const char *symbol)
{
    return strcmp(to, trace->path) == 0 && !elf_defines(trace->file, symbol);
}

/* A path may have spaces. */
static void name_end(char *name)
{
    char *end = strstr(name, " [");
    if (end != NULL) {
        *end = '\0';
    }
}

/* "  PID: binding file FROM [0] to TO [0]: normal symbol `NAME' [VERSION]" */
static void note_binding(struct trace *trace, char *line)
{
    char *from = strstr(line, "binding file ");
    char *to = from != NULL ? strstr(from, "] to ") : NULL;
    char *symbol = to != NULL ? strstr(to, "symbol `") : NULL;
    if (symbol == NULL) {
        return;
    }
    trace->line_count++;
    from += strlen("binding file ");
    name_end(from);
    to += strlen("] to ");
    name_end(to);
    symbol += strlen("symbol `");
    symbol[strcspn(symbol, "'")] = '\0';
    note_allocator(trace, from);
    note_allocator(trace, to);
    for (size_t i = 0; i < FAMILY_COUNT; i++) {
        /* The loader binds its own calls itself, and so does a library that defines them. */
        if (strcmp(family[i], symbol) != 0 || strcmp(from, to) == 0 || is_stub(trace, to, symbol)) {
            continue;
        }
        struct binding *binding = &trace->bindings[i];
        if (is_library_path(to)) {
            binding->ours_count++;
        } else {
            binding->others_count++;
            snprintf(binding->other, sizeof binding->other, "%s", to);
        }
    }
}

static bool has_known_loader(const struct elf_file *file)
{
    for (size_t i = 0; file->loader != NULL && i < sizeof loaders / sizeof loaders[0]; i++) {
        if (fnmatch(loaders[i], base_name(file->loader), 0) == 0) {
            return true;
        }
    }
    return false;
}

/* The loader's words come on standard error, all in the child that it would become. */
static bool trace_bindings(struct trace *trace)
{
    int ends[2];
    if (pipe(ends) != 0) {
        return false;
    }
    children_expect();
    pid_t child = fork();
    if (child == 0) {
        int nothing = open("/dev/null", O_RDWR);
        dup2(nothing, STDIN_FILENO);
        dup2(nothing, STDOUT_FILENO);
        dup2(ends[1], STDERR_FILENO);
        close(ends[0]);
        setenv("LD_TRACE_LOADED_OBJECTS", "1", 1);
        setenv("LD_WARN", "1", 1);
        setenv("LD_BIND_NOW", "1", 1);
        setenv("LD_DEBUG", "bindings", 1);
        unsetenv("LD_DEBUG_OUTPUT");
        execl(trace->path, trace->path, (char *)NULL);
        _exit(EXIT_NOT_FOUND);
    }
    close(ends[1]);
    FILE *stream = fdopen(ends[0], "r");
    char line[LINE_BYTES_MAX];
    while (child > 0 && stream != NULL && fgets(line, sizeof line, stream) != NULL) {
        note_binding(trace, line);
    }
    if (stream != NULL) {
        fclose(stream);
    } else {
        close(ends[0]);
    }
    int status = -1;
    while (child > 0 && waitpid(child, &status, 0) < 0 && errno == EINTR) {
    }
    return status == 0;
}

static void list_add(char list[NAME_LIST_BYTES], const char *name)
{
    size_t length = strlen(list);
    snprintf(list + length, NAME_LIST_BYTES - length, "%s%s", length != 0 ? " " : "", name);
}

static bool has_sanitizer(const struct trace *trace)
{
    for (size_t i = 0; i < sizeof sanitizers / sizeof sanitizers[0]; i++) {
        if (strstr(trace->allocators, sanitizers[i]) != NULL) {
            return true;
        }
    }
    return false;
}

static enum program_verdict judge_bindings(const struct trace *trace)
{
    char ours[NAME_LIST_BYTES] = "";
    size_t ours_count = 0;
    size_t others_count = 0;
    for (size_t i = 0; i < FAMILY_COUNT; i++) {
        const struct binding *binding = &trace->bindings[i];
        if (binding->others_count != 0) {
            finding("goes elsewhere", "%s: to %s", family[i], binding->other);
            others_count++;
        } else if (binding->ours_count != 0) {
            list_add(ours, family[i]);
            ours_count++;
        }
    }
    finding("goes to HMM", "%s", ours_count != 0 ? ours : "nothing");
    if (has_sanitizer(trace)) {
        advise("a sanitizer needs the malloc that it brings: build the program without it");
        return PROGRAM_DOES_NOT_RUN;
    }
    if (others_count == 0) {
        return ours_count != 0 ? PROGRAM_RUNS : PROGRAM_DOES_NOT_RUN;
    }
    advise("a module that defines malloc itself comes before a preloaded library: build it without "
           "its allocator, or link it with libhmm.a");
    return ours_count != 0 ? PROGRAM_MIXED : PROGRAM_DOES_NOT_RUN;
}

/* ---------------------------------------------------------------------------------- the program */

static bool has_privileges(const char *path)
{
    struct stat status;
    char capabilities[1];
    bool is_set_id = stat(path, &status) == 0 && (status.st_mode & (S_ISUID | S_ISGID)) != 0;
    bool has_capabilities = getxattr(path, "security.capability", capabilities, 0) > 0;
    finding("set-uid", "%s", is_set_id ? "yes" : has_capabilities ? "file capabilities" : "no");
    return is_set_id || has_capabilities;
}

static enum program_verdict examine_dynamic(const char *path, const struct elf_file *file)
{
    struct trace trace = {.path = path, .file = file};
    finding("linked", "dynamically");
    bool is_ours = elf_defines(file, "hmm_root");
    if (has_privileges(path)) {
        advise("the loader preloads nothing into programs with privileges: link with -lhmm, or put "
               "the library into /etc/ld.so.preload");
        return is_ours ? PROGRAM_IS_OURS : PROGRAM_DOES_NOT_RUN;
    }
    if (!has_known_loader(file)) {
        finding("bindings", "unknown: the program has another loader than glibc's");
        return is_ours ? PROGRAM_IS_OURS : PROGRAM_DOES_NOT_RUN;
    }
    if (!trace_bindings(&trace) || trace.line_count == 0) {
        finding("bindings", "the loader does not tell");
        return PROGRAM_DOES_NOT_RUN;
    }
    finding("allocators", "%s",
            is_ours                       ? "HMM, linked in"
            : elf_defines(file, "malloc") ? "the program defines malloc"
            : trace.allocators[0] != '\0' ? trace.allocators
                                          : "none but the system's");
    return is_ours ? PROGRAM_IS_OURS : judge_bindings(&trace);
}

static enum program_verdict examine_static(const char *path, const struct elf_file *file)
{
    finding("linked", "statically");
    (void)has_privileges(path);
    if (elf_defines(file, "hmm_root")) {
        finding("allocators", "HMM, linked in");
        return PROGRAM_IS_OURS;
    }
    finding("allocators", "whatever was linked in");
    advise("nothing can be preloaded into a static program: link it with libhmm.a");
    return PROGRAM_DOES_NOT_RUN;
}

/* The interpreter that the first line of a script names; its argument env is looked through. */
static bool script_interpreter(const struct elf_file *file, char name[LAUNCH_PATH_BYTES])
{
    char line[LAUNCH_PATH_BYTES];
    size_t length = size_min(file->byte_count - 2, sizeof line - 1);
    memcpy(line, file->bytes + 2, length);
    line[length] = '\0';
    line[strcspn(line, "\n")] = '\0';
    char *rest = NULL;
    char *word = strtok_r(line, " \t", &rest);
    if (word != NULL && strcmp(base_name(word), "env") == 0) {
        do {
            word = strtok_r(NULL, " \t", &rest);
        } while (word != NULL && (word[0] == '-' || strchr(word, '=') != NULL));
    }
    if (word != NULL) {
        snprintf(name, LAUNCH_PATH_BYTES, "%s", word);
    }
    return word != NULL;
}

/* What a file is; a script leaves the name of what runs it in `next`. */
static enum program_verdict examine_file(const char *path, char next[LAUNCH_PATH_BYTES])
{
    struct elf_file file;
    enum program_verdict verdict = PROGRAM_DOES_NOT_RUN;
    if (!file_open(path, &file)) {
        finding("file", "cannot be read");
        return verdict;
    }
    switch (file_kind(&file)) {
    case FILE_SCRIPT:
        if (script_interpreter(&file, next)) {
            finding("script", "of %s", next);
        }
        break;
    case FILE_DYNAMIC:
        verdict = examine_dynamic(path, &file);
        break;
    case FILE_STATIC:
        verdict = examine_static(path, &file);
        break;
    case FILE_FOREIGN:
        finding("linked", "for another kind of machine");
        advise("the library is for programs of %zu bits, of this machine",
               sizeof(void *) * CHAR_BIT);
        break;
    default:
        finding("file", "not a program that the kernel runs");
    }
    file_close(&file);
    return verdict;
}

enum program_verdict program_examine(const char *name)
{
    char path[LAUNCH_PATH_BYTES];
    char next[LAUNCH_PATH_BYTES];
    snprintf(next, sizeof next, "%s", name);
    enum program_verdict verdict = PROGRAM_NOT_FOUND;
    if (!library_preload()) {
        return PROGRAM_DOES_NOT_RUN;
    }
    for (int depth = 0; depth < SCRIPT_DEPTH_MAX && next[0] != '\0'; depth++) {
        if (!program_find(next, path)) {
            finding("file", "%s is not there", next);
            return PROGRAM_NOT_FOUND;
        }
        finding("file", "%s", path);
        next[0] = '\0';
        verdict = examine_file(path, next);
    }
    return verdict;
}
