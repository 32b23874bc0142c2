/* Loses a block, and may open no more files than it has. */
#include <stdlib.h>
#include <sys/resource.h>

static __attribute__((noinline)) void lose(void)
{
    void *volatile lost = malloc(1000);
    lost = NULL;
    (void)lost;
}

int main(void)
{
    struct rlimit limit;
    lose();
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0) {
        return 2;
    }
    limit.rlim_cur = 0;
    return setrlimit(RLIMIT_NOFILE, &limit) != 0;
}
