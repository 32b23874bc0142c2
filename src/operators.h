/*
 * operators.h - whether C++ has one operator new in this process, or more.
 *
 * A library may bring operators of its own and be bound to them, as those do that the C++ runtime
 * is linked into. What its new has made is malloc's then, and the program deletes it with ours;
 * what the program's new has made is ours, and the library frees it. Nothing is wrong with that:
 * all of them are one malloc's.
 */
#ifndef HMM_OPERATORS_H
#define HMM_OPERATORS_H

#include "base.h"

/* Whether a module besides the C++ runtime and ourselves shows an operator new or has a runtime of
 * its own, or the program has put one in the place of ours. Once it is so it stays so. Takes the
 * loader's lock, so no lock may be held; goes through all modules. */
HMM_HIDDEN bool hmm_operators_are_mixed(void);

/* Whether the module in which the address lies defines that name. A program may have a stub for
 * somebody else's, and a symbol of its name. Takes the loader's lock. */
HMM_HIDDEN bool hmm_module_defines(const void *address, const char *name);

/* Whether the program has replaced one of our operators new. The doors of C++ define it: NULL in
 * programs that do without them. */
HMM_HIDDEN bool hmm_new_is_replaced(void) __attribute__((weak));

/* Whether the program's malloc is not ours, though we are there. The shared libraries define it. */
HMM_HIDDEN bool hmm_malloc_is_replaced(void) __attribute__((weak));

#endif
