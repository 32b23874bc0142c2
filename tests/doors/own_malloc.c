/*
 * own_malloc.c - a program with a malloc of its own, but no reallocarray: that is somebody else's,
 * and must call the program's realloc.
 */
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

enum { MEMORY_BYTES = 1 << 22, UNIT_BYTES = 16 };

static _Alignas(UNIT_BYTES) unsigned char memory[MEMORY_BYTES];
static size_t taken_bytes;

/* One unit with the size lies before each block. */
void *malloc(size_t bytes)
{
    const size_t needed_bytes = (bytes + 2 * UNIT_BYTES - 1) / UNIT_BYTES * UNIT_BYTES;
    if (needed_bytes > MEMORY_BYTES - taken_bytes) {
        return NULL;
    }
    unsigned char *block = memory + taken_bytes + UNIT_BYTES;
    memcpy(block - UNIT_BYTES, &bytes, sizeof bytes);
    taken_bytes += needed_bytes;
    return block;
}

static size_t own_bytes(const void *ptr)
{
    const unsigned char *block = ptr;
    size_t bytes;
    if (block < memory + UNIT_BYTES || block >= memory + MEMORY_BYTES) {
        abort();
    }
    memcpy(&bytes, block - UNIT_BYTES, sizeof bytes);
    return bytes;
}

void free(void *ptr)
{
    if (ptr != NULL) {
        (void)own_bytes(ptr);
    }
}

void *calloc(size_t count, size_t bytes)
{
    return malloc(count * bytes); /* of static memory, once */
}

void *realloc(void *ptr, size_t bytes)
{
    void *block = malloc(bytes);
    if (ptr != NULL && block != NULL) {
        const size_t old_bytes = own_bytes(ptr);
        memcpy(block, ptr, old_bytes < bytes ? old_bytes : bytes);
    }
    return block;
}

int main(void)
{
    char *text = NULL;
    for (size_t count = 1; count <= 1000; count++) {
        text = reallocarray(text, count, 2);
        if (text == NULL) {
            return 1;
        }
        memset(text + 2 * (count - 1), (int)count, 2);
    }
    int result = text[0] != 1;
    free(text);
    return result;
}
