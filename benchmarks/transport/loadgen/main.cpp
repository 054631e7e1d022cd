// Loads a server, and prints when each part of each answer came.
#include <exception>
#include <iostream>

#include "load.h"

int main(int count, char** arguments) {
  try {
    const Options options = read_options(count, arguments);
    Load load(options);
    load.run();
  } catch (const std::exception& error) {
    std::cerr << error.what() << "\n";
    return 1;
  }
}
