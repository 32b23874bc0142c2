/*
 * replaces.cc - a program that replaces four operators, and uses all of them: the others rest
 * on those four.
 *
 * Its blocks have a head, so none of them may reach another delete than its own.
 */
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <new>

namespace
{

constexpr std::size_t head_bytes = 256;
int made_count;
int ended_count;

void *block_make(std::size_t bytes, std::size_t alignment)
{
    void *block = std::aligned_alloc(alignment, (bytes + 2 * head_bytes) / head_bytes * head_bytes);
    if (block == nullptr) {
        throw std::bad_alloc();
    }
    made_count++;
    return static_cast<char *>(block) + head_bytes;
}

void block_end(void *ptr)
{
    if (ptr != nullptr) {
        ended_count++;
        std::free(static_cast<char *>(ptr) - head_bytes);
    }
}

struct alignas(128) lined {
    char bytes[100];
};

bool is_made(const char *form, const void *ptr, std::size_t alignment)
{
    static int expected;
    expected++;
    bool is_so = made_count == expected && reinterpret_cast<std::uintptr_t>(ptr) % alignment == 0;
    if (!is_so) {
        std::fprintf(stderr, "# operator new%s: %d blocks of %d\n", form, made_count, expected);
    }
    return is_so;
}

bool is_ended(const char *form)
{
    if (ended_count != made_count) {
        std::fprintf(stderr, "# operator delete%s: %d blocks of %d\n", form, ended_count,
                     made_count);
    }
    return ended_count == made_count;
}

} // namespace

void *operator new(std::size_t bytes)
{
    return block_make(bytes, 16);
}

void *operator new(std::size_t bytes, std::align_val_t alignment)
{
    return block_make(bytes, static_cast<std::size_t>(alignment));
}

void operator delete(void *ptr) noexcept
{
    block_end(ptr);
}

void operator delete(void *ptr, std::align_val_t) noexcept
{
    block_end(ptr);
}

int main()
{
    constexpr std::align_val_t line{alignof(lined)};
    constexpr std::size_t bytes = sizeof(lined);
    bool is_right = true;
    auto end = [&is_right](const char *form) { is_right &= is_ended(form); };
    auto make = [&is_right](const char *form, void *ptr, std::size_t alignment) {
        is_right &= is_made(form, ptr, alignment);
        return ptr;
    };
    for (int i = 0; i < 100; i++) {
        operator delete(make("(bytes)", operator new(bytes), 16));
        end("(ptr)");
        operator delete(make("(bytes, nothrow)", operator new(bytes, std::nothrow), 16), bytes);
        end("(ptr, bytes)");
        operator delete(make("(bytes)", operator new(bytes), 16), std::nothrow);
        end("(ptr, nothrow)");
        operator delete[](make("[](bytes)", operator new[](bytes), 16));
        end("[](ptr)");
        operator delete[](make("[](bytes, nothrow)", operator new[](bytes, std::nothrow), 16),
                          bytes);
        end("[](ptr, bytes)");
        operator delete[](make("[](bytes)", operator new[](bytes), 16), std::nothrow);
        end("[](ptr, nothrow)");
        operator delete(make("(bytes, alignment)", operator new(bytes, line), 128), line);
        end("(ptr, alignment)");
        operator delete(
            make("(bytes, alignment, nothrow)", operator new(bytes, line, std::nothrow), 128),
            bytes, line);
        end("(ptr, bytes, alignment)");
        operator delete(make("(bytes, alignment)", operator new(bytes, line), 128), line,
                        std::nothrow);
        end("(ptr, alignment, nothrow)");
        operator delete[](make("[](bytes, alignment)", operator new[](bytes, line), 128), line);
        end("[](ptr, alignment)");
        operator delete[](
            make("[](bytes, alignment, nothrow)", operator new[](bytes, line, std::nothrow), 128),
            bytes, line);
        end("[](ptr, bytes, alignment)");
        operator delete[](make("[](bytes, alignment)", operator new[](bytes, line), 128), line,
                          std::nothrow);
        end("[](ptr, alignment, nothrow)");
    }
    return is_right ? EXIT_SUCCESS : EXIT_FAILURE;
}
