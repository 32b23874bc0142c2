/*
 * news.cc - operator new and delete in all their forms, and what C++ wants when memory runs out.
 *
 * It runs with a limit, so that memory does run out: HMM_OPTIONS=limit=64M.
 */
#include "cases.h"

#include <cerrno>
#include <cstdint>
#include <map>
#include <new>
#include <malloc.h>
#include <sstream>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

namespace
{

constexpr std::size_t mebibyte = std::size_t(1) << 20;
constexpr std::size_t too_much = mebibyte << 20;
constexpr std::align_val_t line{64};
constexpr std::align_val_t page{4096};

/* Memory that a test holds so that nothing is left, in a list that needs none of its own. */
struct Hoard {
    Hoard *next;
};

Hoard *hoard;
int handler_calls;

void hoard_fill(std::size_t bytes)
{
    std::set_new_handler(nullptr);
    while (void *ptr = operator new(bytes, std::nothrow)) {
        hoard = new (ptr) Hoard{hoard};
    }
}

void hoard_drop()
{
    Hoard *dropped = hoard;
    REQUIRE(dropped != nullptr);
    hoard = dropped->next;
    operator delete(dropped);
}

void hoard_drop_all()
{
    while (hoard != nullptr) {
        hoard_drop();
    }
}

std::size_t used_bytes()
{
    return mallinfo2().uordblks;
}

/* What is used counts the tags of free blocks too, and their number changes. */
constexpr std::size_t tags_bytes = 100;

bool is_all_freed_since(std::size_t used_before)
{
    return used_bytes() < used_before + tags_bytes;
}

/* The first exception of a program takes memory for good. */
void exception_warm_up()
{
    try {
        throw std::runtime_error("the first");
    } catch (const std::exception &) {
    }
}

bool is_multiple(const void *ptr, std::size_t alignment)
{
    return reinterpret_cast<std::uintptr_t>(ptr) % alignment == 0;
}

/* -------------------------------------------------------------------------------- all the forms */

void every_new_is_taken_by_every_delete()
{
    std::size_t before = used_bytes();
    for (int taker = 0; taker < 12; taker++) {
        void *blocks[] = {
            ::operator new(100),         ::operator new(100, std::nothrow),
            ::operator new(100, line),   ::operator new(100, line, std::nothrow),
            ::operator new[](100),       ::operator new[](100, std::nothrow),
            ::operator new[](100, page), ::operator new[](100, page, std::nothrow),
            ::operator new(0),           ::operator new[](0),
        };
        EXPECT(is_multiple(blocks[2], 64) && is_multiple(blocks[3], 64));
        EXPECT(is_multiple(blocks[6], 4096) && is_multiple(blocks[7], 4096));
        for (void *ptr : blocks) {
            REQUIRE(ptr != nullptr);
            memset(ptr, taker, malloc_usable_size(ptr));
        }
        for (void *&block : blocks) {
            void *ptr = block;
            std::size_t bytes = &block < blocks + 8 ? 100 : 0; /* as they were asked for */
            switch (taker) {
            case 0:
                operator delete(ptr);
                break;
            case 1:
                operator delete(ptr, bytes);
                break;
            case 2:
                operator delete(ptr, std::nothrow);
                break;
            case 3:
                operator delete(ptr, line);
                break;
            case 4:
                operator delete(ptr, line, std::nothrow);
                break;
            case 5:
                operator delete(ptr, bytes, line);
                break;
            case 6:
                operator delete[](ptr);
                break;
            case 7:
                operator delete[](ptr, bytes);
                break;
            case 8:
                operator delete[](ptr, std::nothrow);
                break;
            case 9:
                operator delete[](ptr, page);
                break;
            case 10:
                operator delete[](ptr, page, std::nothrow);
                break;
            default:
                operator delete[](ptr, bytes, page);
                break;
            }
        }
    }
    EXPECT(is_all_freed_since(before));
}

void nothing_may_be_deleted()
{
    void *nothing = nullptr;
    std::size_t before = used_bytes();
    errno = EDOM;
    operator delete(nothing);
    operator delete(nothing, std::size_t(1));
    operator delete(nothing, std::nothrow);
    operator delete(nothing, line);
    operator delete(nothing, line, std::nothrow);
    operator delete(nothing, std::size_t(1), line);
    operator delete[](nothing);
    operator delete[](nothing, std::size_t(1));
    operator delete[](nothing, std::nothrow);
    operator delete[](nothing, line);
    operator delete[](nothing, line, std::nothrow);
    operator delete[](nothing, std::size_t(1), line);
    EXPECT_EQUAL(errno, EDOM);
    EXPECT(is_all_freed_since(before));
}

/* Calls one of the eight forms of new. */
void *new_form(int form, std::size_t bytes)
{
    switch (form) {
    case 0:
        return operator new(bytes);
    case 1:
        return operator new[](bytes);
    case 2:
        return operator new(bytes, line);
    case 3:
        return operator new[](bytes, page);
    case 4:
        return operator new(bytes, std::nothrow);
    case 5:
        return operator new[](bytes, std::nothrow);
    case 6:
        return operator new(bytes, line, std::nothrow);
    default:
        return operator new[](bytes, page, std::nothrow);
    }
}

/* And the one of delete that belongs to it. */
void delete_form(int form, void *ptr)
{
    switch (form % 4) {
    case 0:
        operator delete(ptr);
        break;
    case 1:
        operator delete[](ptr);
        break;
    case 2:
        operator delete(ptr, line);
        break;
    default:
        operator delete[](ptr, page);
    }
}

constexpr int throwing_forms = 4;
constexpr int forms = 8;

/* ------------------------------------------------------------------------- when memory runs out */

void bad_alloc_is_thrown_and_caught()
{
    const std::size_t sizes[] = {too_much, SIZE_MAX, SIZE_MAX - 64, SIZE_MAX / 2, SIZE_MAX / 2 + 1};
    for (int form = 0; form < throwing_forms; form++) {
        for (std::size_t bytes : sizes) {
            bool is_caught = false;
            try {
                (void)new_form(form, bytes);
            } catch (const std::bad_alloc &) {
                is_caught = true;
            }
            EXPECT(is_caught);
        }
    }
    volatile std::size_t count = SIZE_MAX / 2;
    bool is_caught = false;
    try {
        (void)new int[count];
    } catch (const std::bad_alloc &) {
        is_caught = true;
    }
    EXPECT(is_caught);
}

void nothrow_returns_null()
{
    for (int form = throwing_forms; form < forms; form++) {
        EXPECT(new_form(form, too_much) == nullptr);
        EXPECT(new_form(form, SIZE_MAX) == nullptr);
    }
}

/* Not even the exception itself finds memory then; the C++ runtime keeps some for it. */
void bad_alloc_is_thrown_when_nothing_is_left()
{
    hoard_fill(mebibyte);
    for (std::size_t bytes = 1000; bytes >= 16; bytes -= 8) {
        hoard_fill(bytes);
    }
    int caught = 0;
    for (int form = 0; form < throwing_forms; form++) {
        try {
            (void)new_form(form, 100);
        } catch (const std::bad_alloc &) {
            caught++;
        }
    }
    hoard_drop_all();
    EXPECT_EQUAL(caught, throwing_forms);
    delete new int;
}

void handler_that_frees_a_little()
{
    handler_calls++;
    hoard_drop();
}

void the_handler_is_called_until_there_is_room()
{
    for (int form = 0; form < forms; form++) {
        handler_calls = 0;
        /* It leaves a little, which the search for the runtime's own operator needs. */
        hoard_fill(mebibyte + mebibyte / 4);
        REQUIRE(hoard != nullptr);
        std::set_new_handler(handler_that_frees_a_little);
        void *ptr = new_form(form, 8 * mebibyte);
        EXPECT(ptr != nullptr);
        /* Each call frees one of several neighbours, which then merge. */
        EXPECT(handler_calls >= 2);
        EXPECT(std::get_new_handler() == handler_that_frees_a_little);
        delete_form(form, ptr);
        std::set_new_handler(nullptr);
        hoard_drop_all();
    }
}

void no_memory_is_enough_for_what_is_no_alignment()
{
    handler_calls = 0;
    std::set_new_handler(handler_that_frees_a_little);
    bool is_caught = false;
    try {
        (void)operator new(100, std::align_val_t(24));
    } catch (const std::bad_alloc &) {
        is_caught = true;
    }
    EXPECT(is_caught);
    EXPECT_EQUAL(handler_calls, 0);
    std::set_new_handler(nullptr);
}

void handler_that_gives_up()
{
    handler_calls++;
    if (handler_calls == 3) {
        std::set_new_handler(nullptr);
    }
}

void a_handler_may_take_itself_away()
{
    for (int form = 0; form < forms; form++) {
        handler_calls = 0;
        std::set_new_handler(handler_that_gives_up);
        void *ptr = nullptr;
        bool is_caught = false;
        try {
            ptr = new_form(form, too_much);
        } catch (const std::bad_alloc &) {
            is_caught = true;
        }
        EXPECT(ptr == nullptr && is_caught == (form < throwing_forms));
        EXPECT_EQUAL(handler_calls, 3);
        std::set_new_handler(nullptr);
    }
}

struct NoMoreMemory : std::bad_alloc {
};

void handler_that_throws()
{
    handler_calls++;
    throw NoMoreMemory();
}

void what_the_handler_throws_arrives()
{
    std::set_new_handler(handler_that_throws);
    for (int form = 0; form < throwing_forms; form++) {
        handler_calls = 0;
        bool is_caught = false;
        try {
            (void)new_form(form, too_much);
        } catch (const NoMoreMemory &) {
            is_caught = true;
        }
        EXPECT(is_caught);
        EXPECT_EQUAL(handler_calls, 1);
    }
    std::set_new_handler(nullptr);
}

/* Were the exception to come out of a function that promises not to throw, the program would end.
 */
void *new_form_noexcept(int form, std::size_t bytes) noexcept
{
    return new_form(form, bytes);
}

void nothrow_catches_what_the_handler_throws()
{
    std::set_new_handler(handler_that_throws);
    for (int form = throwing_forms; form < forms; form++) {
        handler_calls = 0;
        EXPECT(new_form_noexcept(form, too_much) == nullptr);
        EXPECT_EQUAL(handler_calls, 1);
    }
    std::set_new_handler(nullptr);
}

/* ---------------------------------------------------------------------------- as programs use it
 */

int alive;

struct Part {
    std::string name;
    explicit Part(int number) : name("a name too long to be kept inside: " + std::to_string(number))
    {
        if (number == 13) {
            throw std::runtime_error(name);
        }
        alive++;
    }
    ~Part()
    {
        alive--;
    }
};

struct alignas(256) WidePart : Part {
    using Part::Part;
    char content[300];
};

int next_number;

struct CountedPart : Part {
    CountedPart() : Part(next_number++)
    {
    }
};

/* Whatever a constructor throws, the block goes back through the delete that belongs to its new. */
void a_constructor_that_throws_leaks_nothing()
{
    exception_warm_up();
    std::size_t before = used_bytes();
    for (int round = 0; round < 100; round++) {
        int caught = 0;
        try {
            delete new Part(13);
        } catch (const std::runtime_error &) {
            caught++;
        }
        try {
            delete new WidePart(13);
        } catch (const std::runtime_error &) {
            caught++;
        }
        try {
            next_number = 0;
            delete[] new CountedPart[20];
        } catch (const std::runtime_error &) {
            caught++;
        }
        EXPECT_EQUAL(caught, 3);
        WidePart *wide = new WidePart(1);
        EXPECT(is_multiple(wide, 256));
        delete wide;
        next_number = 100;
        delete[] new CountedPart[20];
    }
    EXPECT_EQUAL(alive, 0);
    EXPECT(is_all_freed_since(before));
}

std::size_t library_work(int seed)
{
    std::map<std::string, std::vector<int>> table;
    for (int i = 0; i < 2000; i++) {
        std::ostringstream name;
        name << "key " << (i * seed) % 311 << " of a table";
        table[name.str()].push_back(i);
    }
    std::size_t count = 0;
    for (const auto &row : table) {
        count += row.second.size();
    }
    return count;
}

void the_standard_library_works()
{
    EXPECT_EQUAL(library_work(3), 2000);
    std::size_t before = used_bytes();
    EXPECT_EQUAL(library_work(7), 2000);
    EXPECT(is_all_freed_since(before));
    std::vector<std::thread> threads;
    for (int i = 0; i < 4; i++) {
        threads.emplace_back([i] { EXPECT_EQUAL(library_work(11 + i), 2000); });
    }
    for (std::thread &thread : threads) {
        thread.join();
    }
}

void exceptions_nest()
{
    exception_warm_up();
    std::size_t before = used_bytes();
    int caught = 0;
    for (int i = 0; i < 1000; i++) {
        try {
            try {
                throw std::runtime_error(std::string(200, 'x'));
            } catch (const std::exception &) {
                std::throw_with_nested(std::logic_error(std::string(300, 'y')));
            }
        } catch (const std::exception &outer) {
            caught += outer.what()[299] == 'y';
        }
    }
    EXPECT_EQUAL(caught, 1000);
    EXPECT(is_all_freed_since(before));
}

} // namespace

CASES_MAIN(CASE(every_new_is_taken_by_every_delete), CASE(nothing_may_be_deleted),
           CASE(bad_alloc_is_thrown_and_caught), CASE(nothrow_returns_null),
           CASE(bad_alloc_is_thrown_when_nothing_is_left),
           CASE(the_handler_is_called_until_there_is_room),
           CASE(no_memory_is_enough_for_what_is_no_alignment), CASE(a_handler_may_take_itself_away),
           CASE(what_the_handler_throws_arrives), CASE(nothrow_catches_what_the_handler_throws),
           CASE(a_constructor_that_throws_leaks_nothing), CASE(the_standard_library_works),
           CASE(exceptions_nest))
