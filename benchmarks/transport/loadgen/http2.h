// gRPC over HTTP/2, as far as calls need it.
#pragma once

#include <nghttp2/nghttp2.h>

#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>

#include "connection.h"

// A call: its messages in both directions.
struct Call {
  // The stream that it is for, where it is for one alone.
  int number = -1;
  // Frames that are not sent yet.
  std::string out;
  // Whether the caller has said all.
  bool is_whole = true;
  // The beginning of a message of which the rest has not come.
  std::string in;
  // What its summary said.
  int tokens = -1;
  std::string status;
};

class Http2Connection : public Connection {
 public:
  Http2Connection(const Options& options, Listener& listener);
  ~Http2Connection() override;

  bool is_ready() const override { return has_settings_; }
  void flush() override;

 protected:
  // Opens a call of a method; the message, if any, is its first one, and unless it is `whole` more may follow.
  int32_t open(const std::string& path, std::string_view message, int number, bool is_whole);
  // Sends another message on an open call.
  void send(int32_t id, std::string_view message);

  virtual void on_message(Call& call, std::string_view message) = 0;
  virtual void on_close(const Call& call, uint32_t error) = 0;
  virtual void on_ready() {}

 private:
  void take(const char* bytes, size_t size) override;
  void take_data(Call& call, std::string_view data);

  static int frame_received(nghttp2_session*, const nghttp2_frame* frame, void* self);
  static int header_received(nghttp2_session*, const nghttp2_frame* frame, const uint8_t* name, size_t name_size,
                             const uint8_t* value, size_t value_size, uint8_t, void* self);
  static int data_received(nghttp2_session*, uint8_t, int32_t id, const uint8_t* data, size_t size, void* self);
  static int stream_closed(nghttp2_session*, int32_t id, uint32_t error, void* self);
  static ssize_t read_call(nghttp2_session*, int32_t id, uint8_t* buffer, size_t size, uint32_t* flags,
                           nghttp2_data_source*, void* self);

  nghttp2_session* session_ = nullptr;
  bool has_settings_ = false;
  std::string authority_;
  std::string authorization_;
  std::unordered_map<int32_t, Call> calls_;
};
