/*
 * own_new.cc - a program that replaces one operator new by malloc, and no other: its delete
 * is the library's.
 */
#include <cstdlib>
#include <new>

#ifdef OWN_ARRAY
void *operator new[](std::size_t bytes)
#else
void *operator new(std::size_t bytes)
#endif
{
    void *ptr = std::malloc(bytes);
    return ptr != nullptr ? ptr : throw std::bad_alloc();
}

/* So that no pair of calls is left out. */
static char *volatile bytes;
static int *volatile number;

int main()
{
    for (int i = 0; i < 100; i++) {
        bytes = new char[20 + i];
        number = new int(i);
        delete[] bytes;
        delete number;
    }
    return 0;
}
