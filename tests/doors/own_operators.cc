/*
 * own_operators.cc - a library with operators new and delete of its own, which all of it is bound
 * to, as one has that the C++ runtime is linked into. They call malloc and free. With
 * -DRUNTIME_INSIDE it is such a one.
 */
#include "own_operators.h"
#include <cstdlib>
#include <new>

#ifndef RUNTIME_INSIDE

void *operator new(std::size_t bytes)
{
    void *ptr = std::malloc(bytes);
    return ptr != nullptr ? ptr : throw std::bad_alloc();
}

void *operator new[](std::size_t bytes)
{
    return operator new(bytes);
}

void *operator new(std::size_t bytes, std::align_val_t alignment)
{
    std::size_t unit = static_cast<std::size_t>(alignment);
    void *ptr = std::aligned_alloc(unit, (bytes + unit - 1) / unit * unit);
    return ptr != nullptr ? ptr : throw std::bad_alloc();
}

void operator delete(void *ptr) noexcept
{
    std::free(ptr);
}

void operator delete(void *ptr, std::size_t) noexcept
{
    std::free(ptr);
}

void operator delete[](void *ptr) noexcept
{
    std::free(ptr);
}

void operator delete[](void *ptr, std::size_t) noexcept
{
    std::free(ptr);
}

void operator delete(void *ptr, std::size_t, std::align_val_t) noexcept
{
    std::free(ptr);
}

#endif

template <class Thing> static Thing *make()
{
    return new Thing();
}

small *make_small()
{
    return make<small>();
}

medium *make_medium()
{
    return make<medium>();
}

large *make_large()
{
    return make<large>();
}

lined *make_lined()
{
    return make<lined>();
}

void end(small *thing)
{
    delete thing;
}

void end(medium *thing)
{
    delete thing;
}

void end(large *thing)
{
    delete thing;
}

void end(lined *thing)
{
    delete thing;
}

char *make_bytes(std::size_t count)
{
    return new char[count];
}
