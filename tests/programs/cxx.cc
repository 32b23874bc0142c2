// What the C++ library asks of an allocator: containers, exceptions, every form of new, the
// new-handler, and objects that one thread makes and another deletes.
#include <condition_variable>
#include <cstdint>
#include <cstdio>
#include <deque>
#include <future>
#include <map>
#include <memory>
#include <memory_resource>
#include <mutex>
#include <new>
#include <numeric>
#include <stdexcept>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

namespace
{

// No machine has this much memory. Volatile, so that the compiler cannot see the folly and warn.
volatile std::size_t impossible_bytes = PTRDIFF_MAX - 4096;

bool is_aligned(const void *pointer, std::size_t alignment)
{
    return reinterpret_cast<std::uintptr_t>(pointer) % alignment == 0;
}

void containers()
{
    std::map<std::string, std::vector<int>> groups;
    for (int i = 0; i < 60000; i++) {
        groups["group " + std::to_string(i * 7919 % 503)].push_back(i);
    }
    for (auto group = groups.begin(); group != groups.end();) {
        group = group->second.front() % 3 == 0 ? groups.erase(group) : std::next(group);
    }
    long sum = 0;
    for (const auto &[name, members] : groups) {
        sum += std::accumulate(members.begin(), members.end(), static_cast<long>(name.size()));
    }
    std::unordered_map<int, std::unique_ptr<std::string>> table;
    for (int i = 0; i < 40000; i++) {
        table[i * 31 % 4001] = std::make_unique<std::string>(i % 200, 'x');
    }
    std::size_t length = 0;
    for (const auto &entry : table) {
        length += entry.second->size();
    }
    std::pmr::unsynchronized_pool_resource pool;
    std::pmr::deque<std::pmr::string> queue(&pool);
    for (int i = 0; i < 9000; i++) {
        queue.emplace_back(i % 90, 'y');
        if (i % 3 == 0) {
            queue.pop_front();
        }
    }
    std::printf("containers %zu %ld %zu %zu %zu\n", groups.size(), sum, table.size(), length,
                queue.size());
}

struct Guard {
    explicit Guard(int &live) : live_(live), payload_(std::make_unique<char[]>(100))
    {
        live_++;
    }
    ~Guard()
    {
        live_--;
    }
    Guard(const Guard &) = delete;
    Guard &operator=(const Guard &) = delete;

  private:
    int &live_;
    std::unique_ptr<char[]> payload_;
};

int throw_at(int depth, int &live)
{
    Guard guard(live);
    if (depth == 0) {
        throw std::runtime_error("bottom after " + std::string(50, '.'));
    }
    return throw_at(depth - 1, live) + 1;
}

void exceptions()
{
    int live = 0;
    int caught = 0;
    std::string message;
    for (int i = 0; i < 1000; i++) {
        try {
            throw_at(i % 30, live);
        } catch (const std::exception &error) {
            caught++;
            message = error.what();
        }
    }
    std::exception_ptr kept;
    std::thread([&kept] {
        try {
            throw std::out_of_range("thrown in another thread");
        } catch (...) {
            kept = std::current_exception();
        }
    }).join();
    try {
        std::rethrow_exception(kept);
    } catch (const std::out_of_range &error) {
        std::printf("exceptions %d live %d: %s, %s\n", caught, live, message.c_str(), error.what());
    }
}

struct alignas(64) Line {
    char bytes[96];
};
struct alignas(4096) Page {
    char bytes[5000];
};

void aligned_new()
{
    int wrong = 0;
    std::vector<std::unique_ptr<Line>> lines;
    std::vector<std::unique_ptr<Page[]>> pages;
    for (int i = 0; i < 500; i++) {
        lines.push_back(std::make_unique<Line>());
        wrong += !is_aligned(lines.back().get(), alignof(Line));
        if (i % 10 == 0) {
            pages.push_back(std::make_unique<Page[]>(i % 3 + 1));
            wrong += !is_aligned(pages.back().get(), alignof(Page));
        }
    }
    for (std::size_t shift = 3; shift <= 20; shift++) {
        const auto alignment = static_cast<std::align_val_t>(std::size_t{1} << shift);
        void *plain = ::operator new(100, alignment);
        void *array = ::operator new[](100, alignment, std::nothrow);
        wrong += !is_aligned(plain, std::size_t{1} << shift) +
                 !is_aligned(array, std::size_t{1} << shift);
        ::operator delete(plain, 100, alignment);
        ::operator delete[](array, alignment);
    }
    std::printf("aligned %zu %zu wrong %d\n", lines.size(), pages.size(), wrong);
}

int handler_calls = 0;

void handler_that_gives_up()
{
    if (++handler_calls == 3) {
        std::set_new_handler(nullptr);
    }
}

void out_of_memory()
{
    void *plain = ::operator new(impossible_bytes, std::nothrow);
    void *array = ::operator new[](impossible_bytes, std::nothrow);
    void *aligned = ::operator new (impossible_bytes, std::align_val_t{256}, std::nothrow);
    std::printf("nothrow %d %d %d\n", plain == nullptr, array == nullptr, aligned == nullptr);

    std::set_new_handler(handler_that_gives_up);
    try {
        ::operator delete(::operator new(impossible_bytes));
    } catch (const std::bad_alloc &) {
        std::printf("bad_alloc after %d calls of the handler\n", handler_calls);
    }
    handler_calls = 0;
    std::set_new_handler(handler_that_gives_up);
    plain = ::operator new(impossible_bytes, std::nothrow);
    std::printf("nothrow %d after %d calls of the handler\n", plain == nullptr, handler_calls);

    std::set_new_handler([] { throw std::bad_alloc(); });
    try {
        std::vector<char> greedy(impossible_bytes);
    } catch (const std::bad_alloc &) {
        std::printf("bad_alloc from the handler\n");
    }
    std::set_new_handler(nullptr);
    void *nothing = ::operator new(0);
    std::printf("new of nothing %d\n", nothing != nullptr);
    ::operator delete(nothing);
    ::operator delete(nullptr);
}

thread_local std::vector<std::string> scratch;

// Strings travel from producers to one consumer, which deletes what it did not make; scratch is
// destroyed at thread exit.
void threads()
{
    std::mutex mutex;
    std::condition_variable changed;
    std::deque<std::unique_ptr<std::string>> queue;
    constexpr int producers = 3;
    constexpr int messages = 10000;
    std::vector<std::thread> crew;
    for (int id = 0; id < producers; id++) {
        crew.emplace_back([&, id] {
            for (int i = 0; i < messages; i++) {
                scratch.emplace_back(i % 64, 's');
                auto message = std::make_unique<std::string>((i * 37 + id) % 700, 'm');
                const std::lock_guard lock(mutex);
                queue.push_back(std::move(message));
                changed.notify_one();
            }
        });
    }
    std::size_t total = 0;
    for (int i = 0; i < producers * messages; i++) {
        std::unique_lock lock(mutex);
        changed.wait(lock, [&] { return !queue.empty(); });
        const auto message = std::move(queue.front());
        queue.pop_front();
        lock.unlock();
        total += message->size();
    }
    for (auto &thread : crew) {
        thread.join();
    }
    std::size_t lengths = 0;
    for (int round = 0; round < 40; round++) {
        auto left =
            std::async(std::launch::async, [round] { return std::string(round * 100, 'l'); });
        auto right =
            std::async(std::launch::async, [round] { return std::vector<int>(round * 50, round); });
        lengths += left.get().size() + right.get().size();
    }
    std::printf("threads %zu %zu\n", total, lengths);
}

} // namespace

int main()
{
    // A crash should show how far the program came.
    std::setvbuf(stdout, nullptr, _IOLBF, BUFSIZ);
    containers();
    exceptions();
    aligned_new();
    out_of_memory();
    threads();
    std::printf("finished\n");
    return 0;
}
