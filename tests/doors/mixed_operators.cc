/*
 * mixed_operators.cc - deletes what a library has made with its own operators, and has deleted by
 * it what it made itself. Under the C library's malloc that is all one.
 */
#include "own_operators.h"

template <class Thing> static void exchange(Thing *theirs)
{
    theirs->bytes[0] = 1;
    delete theirs;
    end(new Thing());
}

int main()
{
    for (int i = 0; i < 100; i++) {
        exchange(make_small());
        exchange(make_medium());
        exchange(make_large());
        exchange(make_lined());
        delete[] make_bytes(30);
    }
    return 0;
}
