// Chat completions over HTTP/1.1, streamed as server-sent events.
#pragma once

#include <string>
#include <string_view>

#include "connection.h"

class SseConnection : public Connection {
 public:
  using Connection::Connection;

  bool is_ready() const override { return true; }
  void start(int number, int tokens) override;
  void flush() override;

 private:
  // What comes next of a response.
  enum class Expected { headers, chunk_size, chunk, chunk_end };

  void take(const char* bytes, size_t size) override;
  // Takes one element off the beginning; false when it is not wholly there.
  bool take_element(std::string_view& data);
  void take_event(std::string_view event);

  int number_ = -1;
  int tokens_ = -1;
  std::string out_;
  std::string in_;
  // The beginning of an event of which the rest has not come.
  std::string event_;
  Expected expected_ = Expected::headers;
  size_t chunk_size_ = 0;
};
