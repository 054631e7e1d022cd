#include "http2.h"

#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <vector>

namespace {

// No flow control is to be seen, whatever the server sends while it is not read.
constexpr int32_t kWindow = 64 << 20;
constexpr size_t kPrefix = 5;

nghttp2_nv header(std::string_view name, std::string_view value) {
  auto bytes = [](std::string_view text) { return reinterpret_cast<uint8_t*>(const_cast<char*>(text.data())); };
  return {bytes(name), bytes(value), name.size(), value.size(), NGHTTP2_NV_FLAG_NONE};
}

void append_message(std::string& out, std::string_view message) {
  const size_t size = message.size();
  const char prefix[kPrefix] = {0, static_cast<char>(size >> 24), static_cast<char>(size >> 16),
                                static_cast<char>(size >> 8), static_cast<char>(size)};
  out.append(prefix, kPrefix);
  out.append(message);
}

size_t message_size(std::string_view prefix) {
  size_t size = 0;
  for (const char byte : prefix.substr(1, 4)) size = size << 8 | static_cast<unsigned char>(byte);
  return size;
}

// Calls `take` with each message that is wholly there, and returns how many bytes those were.
template <typename Take>
size_t split(std::string_view data, Take take) {
  size_t at = 0;
  while (data.size() - at >= kPrefix) {
    const size_t size = message_size(data.substr(at));
    if (data.size() - at < kPrefix + size) break;
    take(data.substr(at + kPrefix, size));
    at += kPrefix + size;
  }
  return at;
}

Http2Connection& of(void* self) { return *static_cast<Http2Connection*>(self); }

void check(int result) {
  if (result < 0) throw std::runtime_error(std::string("HTTP/2: ") + nghttp2_strerror(result));
}

}  // namespace

Http2Connection::Http2Connection(const Options& options, Listener& listener)
    : Connection(options, listener),
      authority_("127.0.0.1:" + std::to_string(options.port)),
      authorization_(options.key.empty() ? "" : "Bearer " + options.key) {
  nghttp2_session_callbacks* callbacks = nullptr;
  check(nghttp2_session_callbacks_new(&callbacks));
  nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, frame_received);
  nghttp2_session_callbacks_set_on_header_callback(callbacks, header_received);
  nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, data_received);
  nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, stream_closed);
  check(nghttp2_session_client_new(&session_, callbacks, this));
  nghttp2_session_callbacks_del(callbacks);
  const nghttp2_settings_entry settings[] = {{NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, kWindow},
                                             {NGHTTP2_SETTINGS_ENABLE_PUSH, 0}};
  check(nghttp2_submit_settings(session_, NGHTTP2_FLAG_NONE, settings, std::size(settings)));
  check(nghttp2_session_set_local_window_size(session_, NGHTTP2_FLAG_NONE, 0, kWindow));
  Http2Connection::flush();
}

Http2Connection::~Http2Connection() { nghttp2_session_del(session_); }

void Http2Connection::flush() {
  std::string out;
  for (;;) {
    const uint8_t* bytes = nullptr;
    const ssize_t size = nghttp2_session_mem_send(session_, &bytes);
    check(static_cast<int>(size));
    if (size == 0) break;
    out.append(reinterpret_cast<const char*>(bytes), size);
  }
  if (!out.empty()) send_all(out.data(), out.size());
}

int32_t Http2Connection::open(const std::string& path, std::string_view message, int number, bool is_whole) {
  std::vector<nghttp2_nv> headers = {
      header(":method", "POST"),
      header(":scheme", "http"),
      header(":path", path),
      header(":authority", authority_),
      header("te", "trailers"),
      header("content-type", "application/grpc"),
      header("user-agent", "doherty-load"),
  };
  if (!authorization_.empty()) headers.push_back(header("authorization", authorization_));
  nghttp2_data_provider provider{};
  provider.read_callback = read_call;
  const int32_t id = nghttp2_submit_request(session_, nullptr, headers.data(), headers.size(), &provider, nullptr);
  check(id);
  Call& call = calls_[id];
  call.number = number;
  call.is_whole = is_whole;
  if (!message.empty()) append_message(call.out, message);
  return id;
}

void Http2Connection::send(int32_t id, std::string_view message) {
  append_message(calls_.at(id).out, message);
  check(nghttp2_session_resume_data(session_, id));
}

void Http2Connection::take(const char* bytes, size_t size) {
  check(static_cast<int>(nghttp2_session_mem_recv(session_, reinterpret_cast<const uint8_t*>(bytes), size)));
}

void Http2Connection::take_data(Call& call, std::string_view data) {
  auto take = [&](std::string_view message) { on_message(call, message); };
  if (call.in.empty()) {
    call.in.assign(data.substr(split(data, take)));
  } else {
    call.in.append(data);
    call.in.erase(0, split(call.in, take));
  }
}

int Http2Connection::frame_received(nghttp2_session*, const nghttp2_frame* frame, void* self) {
  const bool is_settings = frame->hd.type == NGHTTP2_SETTINGS && (frame->hd.flags & NGHTTP2_FLAG_ACK) == 0;
  if (is_settings && !of(self).has_settings_) {
    of(self).has_settings_ = true;
    of(self).on_ready();
  }
  return 0;
}

int Http2Connection::header_received(nghttp2_session*, const nghttp2_frame* frame, const uint8_t* name,
                                     size_t name_size, const uint8_t* value, size_t value_size, uint8_t, void* self) {
  if (std::string_view(reinterpret_cast<const char*>(name), name_size) == "grpc-status") {
    of(self).calls_.at(frame->hd.stream_id).status.assign(reinterpret_cast<const char*>(value), value_size);
  }
  return 0;
}

int Http2Connection::data_received(nghttp2_session*, uint8_t, int32_t id, const uint8_t* data, size_t size,
                                   void* self) {
  of(self).take_data(of(self).calls_.at(id), {reinterpret_cast<const char*>(data), size});
  return 0;
}

int Http2Connection::stream_closed(nghttp2_session*, int32_t id, uint32_t error, void* self) {
  const auto node = of(self).calls_.extract(id);
  of(self).on_close(node.mapped(), error);
  return 0;
}

ssize_t Http2Connection::read_call(nghttp2_session*, int32_t id, uint8_t* buffer, size_t size, uint32_t* flags,
                                   nghttp2_data_source*, void* self) {
  Call& call = of(self).calls_.at(id);
  const size_t count = std::min(size, call.out.size());
  if (count == 0 && !call.is_whole) return NGHTTP2_ERR_DEFERRED;
  std::memcpy(buffer, call.out.data(), count);
  call.out.erase(0, count);
  if (call.is_whole && call.out.empty()) *flags |= NGHTTP2_DATA_FLAG_EOF;
  return static_cast<ssize_t>(count);
}
