// The calls of doherty.v1.GenerationService and of vLLM's Inference: one for each request, or one for many.
#pragma once

#include <unordered_map>

#include "http2.h"
#include "wire.h"

// A method, and how its replies are read.
struct Method {
  std::string path;
  Part (*read)(std::string_view message);
};

// A call for each request: StreamGenerate and Generate, and vLLM's GenerateStream and Generate.
class CallsConnection : public Http2Connection {
 public:
  CallsConnection(const Options& options, Listener& listener);

  void start(int number, int tokens) override;

 private:
  void on_message(Call& call, std::string_view message) override;
  void on_close(const Call& call, uint32_t error) override;

  const Method method_;
};

// MultiplexGenerate: one call, which lives as long as the connection.
class MultiplexConnection : public Http2Connection {
 public:
  using Http2Connection::Http2Connection;

  void start(int number, int tokens) override;
  // What has been begun since the last time goes out in one message.
  void flush() override;

 private:
  void on_ready() override;
  void on_message(Call& call, std::string_view message) override;
  void on_close(const Call& call, uint32_t error) override;

  int32_t call_ = 0;
  uint64_t last_id_ = 0;
  std::string starts_;
  std::unordered_map<uint64_t, int> numbers_;
};
