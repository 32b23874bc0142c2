/*
 * deep_plugin.c - a plug-in for deepbind.c: makes blocks, frees those of others, and loads the
 * library that its own search path leads to.
 */
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

char *plugin_makes(void);
void plugin_frees(char *block);
int plugin_frees_a_copy(void);
int plugin_loads(const char *file);

char *plugin_makes(void)
{
    return calloc(1, 100);
}

void plugin_frees(char *block)
{
    free(block);
}

/* Of strdup, which is the C library's: it calls the malloc of the program. */
int plugin_frees_a_copy(void)
{
    char *copy = strdup("copy");
    int is_copied = copy != NULL && strcmp(copy, "copy") == 0;
    free(copy);
    return is_copied;
}

int plugin_loads(const char *file)
{
    void *library = dlopen(file, RTLD_NOW | RTLD_LOCAL);
    return library != NULL && dlclose(library) == 0;
}
