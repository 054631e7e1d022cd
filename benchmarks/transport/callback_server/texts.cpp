#include "texts.h"

#include <cstdint>
#include <fstream>
#include <stdexcept>

namespace {

template <typename Number>
bool read_number(std::istream& in, Number& number) {
  return static_cast<bool>(in.read(reinterpret_cast<char*>(&number), sizeof number));
}

}  // namespace

std::vector<Answer> read_texts(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  std::vector<Answer> answers;
  for (uint32_t count = 0; read_number(in, count);) {
    Answer& answer = answers.emplace_back();
    for (uint32_t index = 0; index < count; ++index) {
      uint16_t tokens = 0;
      uint16_t characters = 0;
      uint16_t size = 0;
      if (!read_number(in, tokens) || !read_number(in, characters) || !read_number(in, size)) break;
      std::string text(size, '\0');
      in.read(text.data(), size);
      answer.push_back({std::move(text), characters, tokens});
    }
  }
  if (answers.empty() || in.bad()) throw std::runtime_error("cannot read the texts in " + path);
  return answers;
}
