/*
 * sites_print.c - call stacks as lines that addr2line understands. See sites.h.
 */
#include "sites.h"
#include "os.h"
#include "text.h"

#include <dlfcn.h>
#include <limits.h>
#include <link.h>
#include <stdatomic.h>
#include <sys/auxv.h>
#include <unistd.h>

/* The linker's. */
extern HMM_HIDDEN const ElfW(Ehdr) __ehdr_start;
extern HMM_HIDDEN const char etext[];

/* The file that the program is in, whatever it calls itself: a program that was found by PATH goes
 * by a name that is no path. Asked for once: it is too long for the stack of a signal handler. */
static const char *program_path(const char *otherwise)
{
    enum { PATH_UNKNOWN, PATH_ASKED, PATH_KNOWN };
    static _Atomic int standing; /* release by who asks pairs with acquire by everybody else */
    static char path[PATH_MAX];
    int expected = PATH_UNKNOWN;
    if (atomic_compare_exchange_strong_explicit(&standing, &expected, PATH_ASKED,
                                                memory_order_acquire, memory_order_acquire)) {
        hmm_os_program_path(path, sizeof path);
        atomic_store_explicit(&standing, PATH_KNOWN, memory_order_release);
        expected = PATH_KNOWN;
    }
    return expected == PATH_KNOWN && path[0] != '\0' ? path : otherwise;
}

static bool is_program(const ElfW(Ehdr) * header)
{
    return (uintptr_t)header + header->e_phoff == getauxval(AT_PHDR);
}

static uintptr_t module_offset(const ElfW(Ehdr) * header)
{
    return header->e_type == ET_DYN ? (uintptr_t)header : 0;
}

struct place {
    const char *module; /* NULL: none that is known */
    uintptr_t offset;
};

/* The module, and where in it by its own addresses; a program that is not position-independent has
 * them in the process, too. The loader knows nothing of a static program. */
static struct place place_find(uintptr_t frame)
{
    Dl_info module;
    const char *program = (const char *)getauxval(AT_EXECFN);
    if (dladdr((const void *)frame, &module) != 0) {
        return (struct place){is_program(module.dli_fbase) ? program_path(module.dli_fname)
                                                           : module.dli_fname,
                              frame - module_offset(module.dli_fbase)};
    }
    if (frame >= (uintptr_t)&__ehdr_start && frame < (uintptr_t)etext) {
        return (struct place){program_path(program), frame - module_offset(&__ehdr_start)};
    }
    return (struct place){NULL, 0};
}

/* A module's name may be longer than a line has room for. */
static void name_write(int file, struct text *line, const char *name)
{
    const size_t length = strlen(name);
    /* For what stands behind it. */
    const size_t spare_bytes = 32;
    if (length + spare_bytes < sizeof line->bytes - line->length) {
        hmm_text_add(line, name);
        return;
    }
    (void)hmm_os_write_all(file, line->bytes, line->length);
    (void)hmm_os_write_all(file, name, length);
    hmm_text_clear(line);
}

void hmm_sites_write_frame(int file, size_t index, uintptr_t frame)
{
    const struct place place = place_find(frame);
    struct text line;
    hmm_text_clear(&line);
    hmm_text_add(&line, "    #");
    hmm_text_add_decimal(&line, index);
    hmm_text_add(&line, " ");
    hmm_text_add_address(&line, frame);
    if (place.module != NULL) {
        hmm_text_add(&line, " (");
        name_write(file, &line, place.module);
        hmm_text_add(&line, "+");
        hmm_text_add_address(&line, place.offset);
        hmm_text_add(&line, ")");
    }
    hmm_text_add(&line, "\n");
    (void)hmm_os_write_all(file, line.bytes, line.length);
}

void hmm_sites_print(const uintptr_t *frames, size_t frame_count)
{
    for (size_t i = 0; i < frame_count; i++) {
        hmm_sites_write_frame(STDERR_FILENO, i, frames[i]);
    }
}
