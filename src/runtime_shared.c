/*
 * runtime_shared.c - finds the C++ runtime of whoever called new. See operator.h.
 */
#include "operator.h"

#include <dlfcn.h>
#include <stdlib.h>

/* A program in C that loads a C++ plugin has a runtime that only the plugin sees, so the caller's
 * own scope is asked where the program's has nothing. */
static void *runtime_find(const char *name, void *caller)
{
    Dl_info module;
    void *found = dlsym(RTLD_DEFAULT, name);
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

/* The operator of the module that keeps the new-handler, looked up in that module's scope. Where
 * that leads back to our own, there is none. */
void *hmm_runtime_operator(const char *name, void *caller)
{
    Dl_info runtime;
    Dl_info ours;
    Dl_info owner;
    void *handler_call = runtime_find("_ZSt15get_new_handlerv", caller);
    if (handler_call == NULL || dladdr(handler_call, &runtime) == 0) {
        return NULL;
    }
    void *scope = dlopen(runtime.dli_fname, RTLD_LAZY | RTLD_NOLOAD);
    void *found = scope != NULL ? dlsym(scope, name) : NULL;
    if (scope != NULL) {
        (void)dlclose(scope);
    }
    bool is_foreign = found != NULL && dladdr(found, &owner) != 0 &&
                      dladdr((void *)(uintptr_t)hmm_runtime_operator, &ours) != 0 &&
                      owner.dli_fbase != ours.dli_fbase;
    return is_foreign ? found : NULL;
}

new_handler hmm_runtime_new_handler(void *caller)
{
    void *found = runtime_find("_ZSt15get_new_handlerv", caller);
    return found != NULL ? ((new_handler(*)(void))(uintptr_t)found)() : NULL;
}

void hmm_runtime_throw_bad_alloc(void *caller)
{
    void *found = runtime_find("_ZSt17__throw_bad_allocv", caller);
    if (found != NULL) {
        ((void (*)(void))(uintptr_t)found)();
    }
    abort();
}
