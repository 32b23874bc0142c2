/*
 * loads_plugin.c - a program in C that loads the C++ plug-in named as its argument.
 */
#include <dlfcn.h>
#include <stdio.h>

static int answer(void *plugin, const char *name)
{
    int (*function)(void) = (int (*)(void))dlsym(plugin, name);
    int result = function != NULL && function() == 1;
    if (!result) {
        fprintf(stderr, "# %s: no\n", name);
    }
    return result;
}

int main(int argc, char **argv)
{
    void *plugin = argc == 2 ? dlopen(argv[1], RTLD_NOW | RTLD_LOCAL) : NULL;
    if (plugin == NULL) {
        fprintf(stderr, "# %s\n", dlerror());
        return 1;
    }
    int catches = answer(plugin, "plugin_catches_bad_alloc");
    int calls = answer(plugin, "plugin_calls_its_handler");
    return !(catches && calls);
}
