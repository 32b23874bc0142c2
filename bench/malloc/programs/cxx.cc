// What a C++ compiler spends its time on: large headers, and templates made for a few types each.
#include <algorithm>
#include <iostream>
#include <map>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

template <class Key, class Value>
std::size_t counted(const std::vector<std::pair<Key, Value>> &pairs)
{
    std::map<Key, std::vector<Value>> ordered;
    std::unordered_map<Key, std::unique_ptr<Value>> hashed;
    for (const auto &[key, value] : pairs) {
        ordered[key].push_back(value);
        hashed[key] = std::make_unique<Value>(value);
    }
    std::vector<std::pair<Key, Value>> sorted(pairs);
    std::sort(sorted.begin(), sorted.end());
    return ordered.size() + hashed.size() + sorted.size();
}

int main()
{
    std::cout << counted<int, std::string>({{1, "a"}}) << counted<std::string, long>({{"b", 2}})
              << counted<unsigned long, char>({{3, 'c'}}) << '\n';
}
