#include "recorder.h"

#include <algorithm>
#include <stdexcept>

#include "clock.h"

namespace {

template <typename T>
void print_list(std::ostream& out, const std::vector<T>& values) {
  const char* separator = "[";
  for (const T& value : values) {
    out << separator << value;
    separator = ",";
  }
  out << (values.empty() ? "[]" : "]");
}

void print_border(std::ostream& out, const Border& border) {
  out << "{\"time\":" << border.time << ",\"server_cpu\":" << border.server_cpu << ",\"own_cpu\":" << border.own_cpu
      << "}";
}

}  // namespace

Recorder::Recorder(int streams, int tokens) : tokens_(tokens), current_(streams, nullptr) {}

void Recorder::begin(int number) {
  if (is_open(number)) throw std::logic_error("a stream has one request at a time");
  Request& request = all_.emplace_back();
  request.number = number;
  request.times.reserve(tokens_);
  request.characters.reserve(tokens_);
  request.sent = now();
  current_[number] = &request;
}

void Recorder::text(int number, uint32_t characters, int64_t arrival) {
  Request& request = *current_[number];
  request.times.push_back(arrival);
  request.characters.push_back(characters);
}

void Recorder::end(int number, int tokens) {
  Request& request = *current_[number];
  request.tokens = tokens;
  current_[number] = nullptr;
}

bool Recorder::is_any_open() const {
  return std::any_of(current_.begin(), current_.end(), [](const Request* request) { return request != nullptr; });
}

void Recorder::print(std::ostream& out, const Border& begin, const Border& end) const {
  out << "{\"begin\":";
  print_border(out, begin);
  out << ",\"end\":";
  print_border(out, end);
  out << ",\"requests\":";
  const char* separator = "[";
  for (const Request& request : all_) {
    out << separator << "{\"number\":" << request.number << ",\"sent\":" << request.sent << ",\"times\":";
    print_list(out, request.times);
    out << ",\"characters\":";
    print_list(out, request.characters);
    out << ",\"tokens\":" << request.tokens << "}\n";
    separator = ",";
  }
  out << (all_.empty() ? "[]" : "]") << "}\n";
}
