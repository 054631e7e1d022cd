// What the synthetic engine says, read from the file that transport_bench/texts.py writes.
#pragma once

#include <string>
#include <vector>

struct Output {
  std::string text;
  int characters = 0;
  int tokens = 0;
};

// The outputs of one answer, in order.
using Answer = std::vector<Output>;

// The answer of each stream; throws std::runtime_error where the file cannot be read.
std::vector<Answer> read_texts(const std::string& path);
