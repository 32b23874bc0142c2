/*
 * machine.h - the kind of machine that the command was built for, as ELF files name it.
 */
#ifndef HMM_MACHINE_H
#define HMM_MACHINE_H

#include <elf.h>
#include <stdbool.h>

#if defined(__x86_64__)
enum { MACHINE = EM_X86_64 };
#elif defined(__aarch64__)
enum { MACHINE = EM_AARCH64 };
#elif defined(__riscv)
enum { MACHINE = EM_RISCV };
#elif defined(__powerpc64__)
enum { MACHINE = EM_PPC64 };
#elif defined(__s390x__)
enum { MACHINE = EM_S390 };
#else
enum { MACHINE = EM_NONE };
#endif

/* Of a file's header, as far as we know. */
static inline bool is_own_machine(unsigned machine)
{
    return MACHINE == EM_NONE || machine == (unsigned)MACHINE;
}

#endif
