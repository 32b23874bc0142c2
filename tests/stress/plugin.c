/*
 * plugin.c - a library that programs load and unload. Its constructor allocates, its
 * destructor frees, and blocks of its own stay with the program. Linked with libhmm.a it has a
 * malloc of its own.
 */
#include <stdlib.h>
#include <string.h>

static char *kept;

char *plugin_word(void);
void plugin_work(void);

char *plugin_word(void)
{
    return strdup("a word of the plug-in");
}

void plugin_work(void)
{
    enum { BLOCKS = 100 };
    char *blocks[BLOCKS];
    for (int i = 0; i < BLOCKS; i++) {
        blocks[i] = malloc(1 + (size_t)i * 200);
        memset(blocks[i], i, 1);
    }
    for (int i = 0; i < BLOCKS; i++) {
        free(blocks[i]);
    }
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
