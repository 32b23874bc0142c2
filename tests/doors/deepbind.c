/*
 * deepbind.c - loads the plug-in named as its argument so that it prefers the names of what it
 * needs itself, and exchanges blocks with it.
 */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void *find(void *plugin, const char *name)
{
    void *found = dlsym(plugin, name);
    if (found == NULL) {
        fprintf(stderr, "# %s\n", dlerror());
        exit(EXIT_FAILURE);
    }
    return found;
}

static int check(const char *what, int is_so)
{
    if (!is_so) {
        fprintf(stderr, "# %s: no\n", what);
    }
    return is_so;
}

/* Enough of them that an allocator which takes a foreign block for its own would hand
 * it out again. */
static int exchange_blocks(void *plugin)
{
    char *(*plugin_makes)(void) = (char *(*)(void))find(plugin, "plugin_makes");
    void (*plugin_frees)(char *) = (void (*)(char *))find(plugin, "plugin_frees");
    int made = 0;
    for (int i = 0; i < 1000; i++) {
        char *theirs = plugin_makes();
        char *ours = malloc(100);
        made += theirs != NULL && ours != NULL;
        memset(theirs, 1, 100);
        memset(ours, 2, 100);
        free(theirs);
        plugin_frees(ours);
    }
    return made == 1000;
}

int main(int argc, char **argv)
{
    void *plugin = argc == 2 ? dlopen(argv[1], RTLD_NOW | RTLD_LOCAL | RTLD_DEEPBIND) : NULL;
    if (plugin == NULL) {
        fprintf(stderr, "# %s\n", argc == 2 ? dlerror() : "deepbind PLUGIN");
        return EXIT_FAILURE;
    }
    int (*plugin_frees_a_copy)(void) = (int (*)(void))find(plugin, "plugin_frees_a_copy");
    int (*plugin_loads)(const char *) = (int (*)(const char *))find(plugin, "plugin_loads");
    int is_fine = check("the plug-in frees a copy", plugin_frees_a_copy());
    is_fine &= check("blocks are exchanged", exchange_blocks(plugin));
    is_fine &= check("what the plug-in loads is looked for where the plug-in says",
                     plugin_loads("deep_inner.so"));
    is_fine &= check("what is nowhere is not loaded", !plugin_loads("deep_nowhere.so"));
    return is_fine ? EXIT_SUCCESS : EXIT_FAILURE;
}
