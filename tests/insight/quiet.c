/*
 * quiet.c - allocates nothing. With an argument: allocates, and puts that file under every number
 * that it finds open.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

enum { FIRST_FILE = 3, FILES_MAX = 1100 };

static void *volatile block;

int main(int argc, char **argv)
{
    int own = argc > 1 ? open(argv[1], O_RDWR) : -1;
    block = argc > 1 ? malloc(100) : NULL;
    for (int file = FIRST_FILE; own >= 0 && file < FILES_MAX; file++) {
        if (file != own && fcntl(file, F_GETFD) >= 0 && dup2(own, file) < 0) {
            return 1;
        }
    }
    return 0;
}
