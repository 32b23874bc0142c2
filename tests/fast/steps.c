/*
 * steps.c - looks at every instruction that a single-threaded program executes in the
 * library, one by one: how many the fast paths of malloc and free take, and that none of them
 * all is an atomic read-modify-write.
 *
 * The traced child marks what is to be looked at with two breakpoints. For x86-64, whose
 * instructions say by a prefix that they lock the bus.
 */
#include "cases.h"

#include <dlfcn.h>
#include <link.h>
#include <stdint.h>
#include <sys/ptrace.h>
#include <sys/user.h>
#include <sys/wait.h>

enum { MALLOC_STEPS_MAX = 15, FREE_STEPS_MAX = 26, BREAKPOINT = 0xcc };

/* Where the code lies on which malloc runs, and that of this program. */
static uintptr_t code_start;
static uintptr_t code_end;
static uintptr_t program_start;
static uintptr_t program_end;

static void mark(void);

static int code_find(struct dl_phdr_info *info, size_t bytes, void *unused)
{
    (void)bytes;
    (void)unused;
    uintptr_t entry = (uintptr_t)dlsym(RTLD_DEFAULT, "malloc");
    for (int i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *segment = &info->dlpi_phdr[i];
        uintptr_t start = info->dlpi_addr + segment->p_vaddr;
        uintptr_t end = start + segment->p_memsz;
        if (segment->p_type == PT_LOAD && entry >= start && entry < end) {
            code_start = start;
            code_end = end;
        } else if (segment->p_type == PT_LOAD && (uintptr_t)mark >= start &&
                   (uintptr_t)mark < end) {
            program_start = start;
            program_end = end;
        }
    }
    return 0;
}

static void mark(void)
{
    __asm__ volatile("int3" ::: "memory");
}

/* --------------------------------------------------------------------------------- the observer */

struct seen {
    unsigned long steps;   /* in the library */
    unsigned long atomics; /* of those */
};

/* Whether the instruction reads, changes and writes memory as one: a lock prefix, or an xchg. */
static bool is_atomic(const unsigned char *code)
{
    int i = 0;
    while (code[i] == 0x66 || code[i] == 0x67 || code[i] == 0xf2 || code[i] == 0xf3 ||
           code[i] == 0x64 || code[i] == 0x65 || code[i] == 0x2e || code[i] == 0x3e) {
        i++;
    }
    if (code[i] == 0xf0) {
        return true;
    }
    i += (code[i] & 0xf0) == 0x40; /* REX */
    return (code[i] == 0x86 || code[i] == 0x87) && code[i + 1] < 0xc0;
}

static void stop_at_trap(pid_t child)
{
    int status = 0;
    REQUIRE(waitpid(child, &status, 0) == child);
    REQUIRE(WIFSTOPPED(status) && WSTOPSIG(status) == SIGTRAP);
}

static struct user_regs_struct registers_of(pid_t child)
{
    struct user_regs_struct registers;
    REQUIRE(ptrace(PTRACE_GETREGS, child, NULL, &registers) == 0);
    return registers;
}

static void set_place(pid_t child, uintptr_t place)
{
    struct user_regs_struct registers = registers_of(child);
    registers.rip = place;
    REQUIRE(ptrace(PTRACE_SETREGS, child, NULL, &registers) == 0);
}

/* The child has just been called by the library, and runs up to the return. */
static void run_to_return(pid_t child)
{
    void *place = (void *)ptrace(PTRACE_PEEKDATA, child, (void *)registers_of(child).rsp, NULL);
    long code = ptrace(PTRACE_PEEKTEXT, child, place, NULL);
    REQUIRE(ptrace(PTRACE_POKETEXT, child, place, (code & ~0xffL) | BREAKPOINT) == 0);
    REQUIRE(ptrace(PTRACE_CONT, child, NULL, NULL) == 0);
    stop_at_trap(child);
    REQUIRE(ptrace(PTRACE_POKETEXT, child, place, code) == 0);
    set_place(child, (uintptr_t)place);
}

/* Steps from the child's next mark to the one after; the C library, which fills and copies, is left
 * out. The code is that of this process. */
static struct seen watch(pid_t child)
{
    struct seen seen = {0, 0};
    bool was_inside = false;
    REQUIRE(ptrace(PTRACE_CONT, child, NULL, NULL) == 0);
    stop_at_trap(child);
    for (;;) {
        uintptr_t place = registers_of(child).rip;
        const unsigned char *code = (const unsigned char *)place;
        bool is_inside = place >= code_start && place < code_end;
        bool is_program = place >= program_start && place < program_end;
        if (is_inside) {
            seen.steps++;
            seen.atomics += is_atomic(code);
        } else if (is_program && *code == BREAKPOINT) {
            set_place(child, place + 1);
            return seen;
        } else if (was_inside && !is_program) {
            run_to_return(child);
            continue;
        }
        was_inside = is_inside;
        REQUIRE(ptrace(PTRACE_SINGLESTEP, child, NULL, NULL) == 0);
        stop_at_trap(child);
    }
}

static pid_t traced(void (*run)(void))
{
    dl_iterate_phdr(code_find, NULL);
    REQUIRE(code_start != 0 && program_start != 0);
    pid_t child = fork();
    if (child == 0) {
        REQUIRE(ptrace(PTRACE_TRACEME, 0, NULL, NULL) == 0);
        mark();
        run();
        _exit(EXIT_SUCCESS);
    }
    stop_at_trap(child);
    return child;
}

static void finish(pid_t child)
{
    int status = -1;
    REQUIRE(ptrace(PTRACE_CONT, child, NULL, NULL) == 0);
    REQUIRE(waitpid(child, &status, 0) == child);
    EXPECT_EQUAL(status, 0);
}

/* ------------------------------------------------------------------------------------ the cases */

static const size_t small_sizes[] = {1, 16, 24, 100, 128, 129, 1000, 4096, 8192};
enum { SMALL_SIZES = sizeof small_sizes / sizeof small_sizes[0] };

static void run_malloc_and_free(void)
{
    for (int i = 0; i < SMALL_SIZES; i++) {
        void *kept = malloc(small_sizes[i]);
        void *freed = malloc(small_sizes[i]);
        free(freed);
        void *refilled =
            malloc(small_sizes[i]); /* the bin holds at least one more, or was filled */
        void *again = malloc(small_sizes[i]);
        free(again);
        free(refilled);
        refilled = malloc(small_sizes[i]);
        mark();
        void *ptr = malloc(small_sizes[i]);
        mark();
        mark();
        free(ptr);
        mark();
        free(refilled);
        free(kept);
    }
}

static void the_fast_paths_are_short(void)
{
    pid_t child = traced(run_malloc_and_free);
    for (int i = 0; i < SMALL_SIZES; i++) {
        struct seen of_malloc = watch(child);
        struct seen of_free = watch(child);
        if (!EXPECT(of_malloc.steps <= MALLOC_STEPS_MAX) ||
            !EXPECT(of_free.steps <= FREE_STEPS_MAX)) {
            case_say("# %zu bytes: malloc %lu, free %lu instructions\n", small_sizes[i],
                     of_malloc.steps, of_free.steps);
        }
        EXPECT(of_malloc.steps > 0 && of_free.steps > 0);
    }
    finish(child);
}

/* All rooms are called. The first medium block draws a secret, which is once. */
static void run_everything(void)
{
    enum { BLOCKS = 40, ROUNDS = 2 };
    void *blocks[BLOCKS];
    free(malloc(20000));
    mark();
    for (size_t round = 0; round < ROUNDS; round++) {
        for (size_t i = 0; i < BLOCKS; i++) {
            blocks[i] = i % 3 == 0 ? calloc(1, i * 20) : malloc(i * i * 40);
        }
        for (size_t i = 0; i < BLOCKS; i += 2) {
            blocks[i] = realloc(blocks[i], (i + round) % 7 * 9000);
        }
        void *large = malloc((size_t)2 << 20);
        void *behind = malloc((size_t)2 << 20);
        large = realloc(large, (size_t)5 << 20);
        void *aligned = aligned_alloc(65536, 300000);
        free(aligned);
        free(behind);
        free(large);
        for (size_t i = 0; i < BLOCKS; i++) {
            free(blocks[i]);
        }
    }
    mark();
}

static void nothing_is_atomic_before_there_are_threads(void)
{
    pid_t child = traced(run_everything);
    struct seen seen = watch(child);
    EXPECT(seen.steps > 10000);
    EXPECT_EQUAL(seen.atomics, 0);
    finish(child);
}

CASES_MAIN(CASE(the_fast_paths_are_short), CASE(nothing_is_atomic_before_there_are_threads))
