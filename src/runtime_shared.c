/*
 * runtime_shared.c - finds the C++ runtime of whoever called new. See operator.h.
 */
#include "operator.h"
#include "operators.h"
#include "symbol.h"

#include <stdlib.h>

/* A program in C that loads a C++ plugin has a runtime that only the plugin sees, so the caller's
 * own scope is asked where the program's has nothing. */
static void *runtime_find(const char *name, void *caller)
{
    Dl_info module;
    void *found = symbol_find(RTLD_DEFAULT, name);
    if (found != NULL || dladdr(caller, &module) == 0) {
        return found;
    }
    void *scope = dlopen(module.dli_fname, RTLD_LAZY | RTLD_NOLOAD);
    if (scope != NULL) {
        found = symbol_find(scope, name);
        (void)dlclose(scope);
    }
    return found;
}

/* Whether it lies in another module than we do. */
static bool is_foreign(void *found)
{
    Dl_info owner;
    Dl_info ours;
    return found != NULL && dladdr(found, &owner) != 0 &&
           dladdr((void *)(uintptr_t)hmm_runtime_operator, &ours) != 0 &&
           owner.dli_fbase != ours.dli_fbase;
}

/* The operator of the module that keeps the new-handler, looked up in that module's scope. Where
 * that leads back to our own, there is none. */
void *hmm_runtime_operator(const char *name, void *caller)
{
    Dl_info runtime;
    void *handler_call = runtime_find("_ZSt15get_new_handlerv", caller);
    if (handler_call == NULL || dladdr(handler_call, &runtime) == 0) {
        return NULL;
    }
    void *scope = dlopen(runtime.dli_fname, RTLD_LAZY | RTLD_NOLOAD);
    void *found = scope != NULL ? symbol_find(scope, name) : NULL;
    if (scope != NULL) {
        (void)dlclose(scope);
    }
    return is_foreign(found) ? found : NULL;
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

/* -------------------------------------------------------------------- what the program replaces */

_Atomic bool hmm_runtime_is_ours;

/* Relaxed, and before `are_known`, release and acquire: who looks them up at the same time
 * finds the same. */
static _Atomic uintptr_t replacements[BASIS_COUNT];
static _Atomic bool are_known;

static const char *const basis_names[BASIS_COUNT] = {
    [BASIS_NEW_ARRAY] = NEW_SYMBOL(_Zna, ),
    [BASIS_NEW] = NEW_SYMBOL(_Znw, ),
    [BASIS_NEW_ARRAY_ALIGNED] = NEW_SYMBOL(_Zna, St11align_val_t),
    [BASIS_NEW_ALIGNED] = NEW_SYMBOL(_Znw, St11align_val_t),
    [BASIS_DELETE_ARRAY] = "_ZdaPv",
    [BASIS_DELETE] = "_ZdlPv",
    [BASIS_DELETE_ARRAY_ALIGNED] = "_ZdaPvSt11align_val_t",
    [BASIS_DELETE_ALIGNED] = "_ZdlPvSt11align_val_t",
};

/* Where the program's calls by that name go, 0: to us. Programs at fixed addresses that take the
 * address of an operator have a stub of that name, which they do not define. */
static uintptr_t replacement_find(const char *name)
{
    void *found = symbol_find(RTLD_DEFAULT, name);
    return is_foreign(found) && hmm_module_defines(found, name) ? (uintptr_t)found : 0;
}

HMM_COLD bool hmm_malloc_is_replaced(void)
{
    return replacement_find("malloc") != 0;
}

static void replacements_find(void)
{
    bool is_ours = true;
    for (size_t i = 0; i < BASIS_COUNT; i++) {
        uintptr_t found = replacement_find(basis_names[i]);
        atomic_store_explicit(&replacements[i], found, memory_order_relaxed);
        is_ours = is_ours && found == 0;
    }
    atomic_store_explicit(&are_known, true,
                          memory_order_release); /* pairs with hmm_runtime_replacement */
    atomic_store_explicit(&hmm_runtime_is_ours, is_ours, memory_order_relaxed);
}

HMM_COLD void *hmm_runtime_replacement(enum basis basis)
{
    if (!atomic_load_explicit(&are_known, memory_order_acquire)) { /* replacements_find */
        replacements_find();
    }
    uintptr_t found = atomic_load_explicit(&replacements[basis], memory_order_relaxed);
    if (found == 0 && basis_is_array(basis)) {
        found = atomic_load_explicit(&replacements[basis + 1], memory_order_relaxed);
    }
    return (void *)found;
}
