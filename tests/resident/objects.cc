// objects.cc - a small process in C++: what it makes and deletes fits into slots. Answers each line
// with a line.
#include <iostream>
#include <map>
#include <memory>
#include <string>
#include <vector>

int main()
{
    std::map<int, std::unique_ptr<std::string>> names;
    for (int i = 0; i < 500; i++) {
        names[i] = std::make_unique<std::string>(i, 'x');
        names.erase(i / 2);
    }
    std::vector<char> bytes(100);
    std::unique_ptr<int[]> numbers(new int[bytes.size()]);
    numbers[0] = static_cast<int>(names.size());
    std::string line;
    while (std::getline(std::cin, line)) {
        std::cout << line << numbers[0] << std::endl;
    }
}
