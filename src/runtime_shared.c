/*
 * runtime_shared.c - finds the C++ runtime of whoever called new. See operator.h.
 */
#include "operator.h"

#include <dlfcn.h>
#include <stdlib.h>

/* A program in C that loads a C++ plugin has a runtime that only the plugin sees, so the caller's
 * own scope is asked where `first` has nothing. */
static void *runtime_find(void *first, const char *name, void *caller)
{
    Dl_info module;
    void *found = dlsym(first, name);
    if (found != NULL || dladdr(caller, &module) == 0) {
        return found;
    }
    void *scope = dlopen(module.dli_fname, RTLD_LAZY | RTLD_NOLOAD);
    if (scope != NULL) {
        found = dlsym(scope, name);
        (void)dlclose(scope);
    }
    return found;
}

void *hmm_runtime_next(const char *name, void *caller)
{
    return runtime_find(RTLD_NEXT, name, caller);
}

new_handler hmm_runtime_new_handler(void *caller)
{
    void *found = runtime_find(RTLD_DEFAULT, "_ZSt15get_new_handlerv", caller);
    return found != NULL ? ((new_handler(*)(void))(uintptr_t)found)() : NULL;
}

void hmm_runtime_throw_bad_alloc(void *caller)
{
    void *found = runtime_find(RTLD_DEFAULT, "_ZSt17__throw_bad_allocv", caller);
    if (found != NULL) {
        ((void (*)(void))(uintptr_t)found)();
    }
    abort();
}
