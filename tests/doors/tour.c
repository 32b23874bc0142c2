/* Takes a block by each way to allocate one, writes to all of it, and frees it. For tools that put
 * functions of their own in the place of the family's. */
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BYTES = 300 };

static int failures;

static void use(const char *name, void *block)
{
    if (block == NULL) {
        printf("%s: NULL\n", name);
        failures++;
        return;
    }
    memset(block, 'u', BYTES);
    free(block);
}

int main(void)
{
    void *aligned = NULL;
    use("malloc", malloc(BYTES));
    use("calloc", calloc(3, BYTES / 3));
    use("realloc", realloc(malloc(10), BYTES));
    use("realloc(NULL)", realloc(NULL, BYTES));
    use("reallocarray", reallocarray(malloc(10), 3, BYTES / 3));
    use("reallocarray(NULL)", reallocarray(NULL, 3, BYTES / 3));
    use("memalign", memalign(64, BYTES));
    use("aligned_alloc", aligned_alloc(64, BYTES));
    use("valloc", valloc(BYTES));
    use("posix_memalign", posix_memalign(&aligned, 64, BYTES) == 0 ? aligned : NULL);
    return failures == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
