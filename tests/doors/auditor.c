/*
 * auditor.c - a library for LD_AUDIT that watches calls return, so that all calls between modules
 * are made by the dynamic linker. It allocates meanwhile, as they do.
 */
#include <link.h>
#include <stdlib.h>

enum { STACK_BYTES = 64 };

unsigned int la_version(unsigned int version)
{
    free(malloc(1));
    return version < LAV_CURRENT ? version : LAV_CURRENT;
}

unsigned int la_objopen(struct link_map *map, Lmid_t space, uintptr_t *cookie)
{
    (void)map;
    (void)space;
    (void)cookie;
    return LA_FLG_BINDTO | LA_FLG_BINDFROM;
}

uintptr_t la_symbind64(Elf64_Sym *symbol, unsigned int index, uintptr_t *from, uintptr_t *to,
                       unsigned int *flags, const char *name)
{
    (void)index;
    (void)from;
    (void)to;
    (void)flags;
    (void)name;
    return symbol->st_value;
}

Elf64_Addr la_x86_64_gnu_pltenter(Elf64_Sym *symbol, unsigned int index, uintptr_t *from,
                                  uintptr_t *to, La_x86_64_regs *registers, unsigned int *flags,
                                  const char *name, long *stack_bytes)
{
    (void)index;
    (void)from;
    (void)to;
    (void)registers;
    (void)flags;
    (void)name;
    *stack_bytes = STACK_BYTES; /* of it are given to the callee again, and its return is seen */
    return symbol->st_value;
}

unsigned int la_x86_64_gnu_pltexit(Elf64_Sym *symbol, unsigned int index, uintptr_t *from,
                                   uintptr_t *to, const La_x86_64_regs *registers,
                                   La_x86_64_retval *result, const char *name)
{
    (void)symbol;
    (void)index;
    (void)from;
    (void)to;
    (void)registers;
    (void)result;
    (void)name;
    return 0;
}
