/*
 * plugin.c - a library that programs load and unload. Its constructor allocates, its destructor
 * frees, and blocks of its own stay with the program.
 */
#include <stdlib.h>
#include <string.h>

static char *kept;

char *plugin_word(void);

char *plugin_word(void)
{
    return strdup("a word of the plug-in");
}

__attribute__((constructor)) static void begin(void)
{
    kept = malloc(5000);
    memset(kept, 1, 5000);
}

__attribute__((destructor)) static void end(void)
{
    free(kept);
}
