// Threads that keep objects of many sizes, some freed by others. It says so and waits; with an
// argument it ends at once, by _exit, with all of it still in place. No byte is zero, so that a
// core shows what was touched.
#include <condition_variable>
#include <cstdio>
#include <cstring>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <unistd.h>
#include <vector>

static std::mutex lock;
static std::condition_variable turned;
static unsigned turn, ready;
static std::vector<char *> shared;

constexpr unsigned thread_count = 4, round_count = 20, step_count = 1000;

// Threads take turns, so that every run ends with the same heap.
static void work(unsigned number)
{
    auto *kept = new std::map<unsigned, std::string>;
    unsigned seed = number;
    for (unsigned round = 0; round < round_count; round++) {
        std::unique_lock<std::mutex> hold(lock);
        turned.wait(hold, [=] { return turn % thread_count == number; });
        for (unsigned step = 0; step < step_count; step++) {
            seed = seed * 1664525 + 1013904223;
            (*kept)[seed] = std::string(1 + seed % 400, 'k');
            size_t bytes = 16 + seed % 3000;
            char *block = new char[bytes];
            memset(block, 'b', bytes);
            shared.push_back(block);
            if (shared.size() > 3000) {
                delete[] shared[seed % shared.size()];
                shared[seed % shared.size()] = shared.back();
                shared.pop_back();
            }
        }
        turn++;
        turned.notify_all();
    }
    char *large = new char[3 << 20];
    memset(large, 'L', 3 << 20);
    {
        std::lock_guard<std::mutex> hold(lock);
        ready++;
        turned.notify_all();
    }
    pause();
}

int main(int argc, char **)
{
    std::vector<std::thread> threads;
    for (unsigned i = 0; i < thread_count; i++) {
        threads.emplace_back(work, i);
    }
    {
        std::unique_lock<std::mutex> hold(lock);
        turned.wait(hold, [] { return ready == thread_count; });
    }
    puts("ready");
    fflush(stdout);
    if (argc > 1) {
        _exit(0);
    }
    pause();
}
