/*
 * new_plugin.cc - a C++ plug-in of a program in C, as Python's extensions are: only it sees
 * the C++ runtime.
 */
#include <cstdlib>
#include <new>

extern "C" int plugin_catches_bad_alloc()
{
    volatile std::size_t too_much = std::size_t(1) << 46;
    try {
        ::operator delete(::operator new(too_much));
    } catch (const std::bad_alloc &) {
        return 1;
    }
    return 0;
}

static int calls;

static void give_up()
{
    calls++;
    throw std::bad_alloc();
}

extern "C" int plugin_calls_its_handler()
{
    volatile std::size_t too_much = std::size_t(1) << 46;
    std::set_new_handler(give_up);
    void *ptr = ::operator new(too_much, std::nothrow);
    std::set_new_handler(nullptr);
    return ptr == nullptr && calls > 0;
}
