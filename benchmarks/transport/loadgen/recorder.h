// Takes note of when what arrived, and prints it.
#pragma once

#include <cstdint>
#include <deque>
#include <ostream>
#include <vector>

// One request, from its first byte to its end.
struct Request {
  int number = 0;
  int64_t sent = 0;
  // When each message came, and how many code points of text it brought.
  std::vector<int64_t> times;
  std::vector<uint32_t> characters;
  // What the server says that the whole answer had; -1 until it does.
  int tokens = -1;
};

// The clocks at one border of the window.
struct Border {
  int64_t time = 0;
  int64_t server_cpu = 0;
  int64_t own_cpu = 0;
};

class Recorder {
 public:
  // For so many streams of answers of so many tokens.
  Recorder(int streams, int tokens);

  void begin(int number);
  void text(int number, uint32_t characters, int64_t arrival);
  void end(int number, int tokens);

  bool is_open(int number) const { return current_[number] != nullptr; }
  bool is_any_open() const;
  // Whether the stream has had any text.
  bool has_begun(int number) const { return current_[number] != nullptr && !current_[number]->times.empty(); }

  // As JSON, with times in nanoseconds of CLOCK_MONOTONIC.
  void print(std::ostream& out, const Border& begin, const Border& end) const;

 private:
  int tokens_;
  std::vector<Request*> current_;
  std::deque<Request> all_;  // which does not move its elements
};
