#include "sse.h"

#include <charconv>
#include <stdexcept>

#include "wire.h"

namespace {

constexpr std::string_view kEnd = "\r\n";
constexpr std::string_view kContent = "\"content\":\"";
constexpr std::string_view kTokens = "\"completion_tokens\":";

std::string body_of(int number, int tokens) {
  return R"({"model":"synthetic","messages":[{"role":"user","content":")" + prompt_of(number) + R"("}],"max_tokens":)" +
         std::to_string(tokens) + R"(,"ignore_eos":true,"stream":true,"stream_options":{"include_usage":true}})";
}

// The code points of a JSON string, which begins here and ends with a quotation mark.
uint32_t characters_of_json(std::string_view text) {
  uint32_t count = 0;
  for (size_t at = 0; at < text.size() && text[at] != '"'; ++at) {
    if (text[at] != '\\') {
      count += (text[at] & 0xc0) != 0x80;
      continue;
    }
    ++at;
    ++count;
    if (at + 4 < text.size() && text[at] == 'u') {
      // The second half of a pair of surrogates adds nothing.
      const std::string_view digits = text.substr(at + 1, 4);
      if ((digits[0] | 0x20) == 'd' && (digits[1] | 0x20) >= 'c') --count;
      at += 4;
    }
  }
  return count;
}

}  // namespace

void SseConnection::start(int number, int tokens) {
  number_ = number;
  tokens_ = -1;
  const std::string body = body_of(number, tokens);
  out_ = "POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\ncontent-length: " +
         std::to_string(body.size()) + "\r\n\r\n" + body;
}

void SseConnection::flush() {
  if (!out_.empty()) send_all(out_.data(), out_.size());
  out_.clear();
}

void SseConnection::take(const char* bytes, size_t size) {
  in_.append(bytes, size);
  std::string_view data = in_;
  while (take_element(data)) {
  }
  in_.erase(0, in_.size() - data.size());
}

bool SseConnection::take_element(std::string_view& data) {
  if (expected_ == Expected::chunk) {
    if (data.size() < chunk_size_) return false;
    event_.append(data.substr(0, chunk_size_));
    data.remove_prefix(chunk_size_);
    expected_ = Expected::chunk_end;
    for (size_t end; (end = event_.find("\n\n")) != std::string::npos; event_.erase(0, end + 2)) {
      take_event(std::string_view(event_).substr(0, end));
    }
    return true;
  }
  const std::string_view border = expected_ == Expected::headers ? "\r\n\r\n" : kEnd;
  const size_t end = data.find(border);
  if (end == std::string_view::npos) return false;
  const std::string_view line = data.substr(0, end);
  data.remove_prefix(end + border.size());
  switch (expected_) {
    case Expected::headers:
      if (line.substr(0, 13) != "HTTP/1.1 200 ") throw std::runtime_error("HTTP: " + std::string(line.substr(0, 40)));
      expected_ = Expected::chunk_size;
      return true;
    case Expected::chunk_size:
      if (std::from_chars(line.begin(), line.end(), chunk_size_, 16).ec != std::errc()) {
        throw std::runtime_error("HTTP: there is no size of a chunk");
      }
      expected_ = Expected::chunk;
      return true;
    default:
      if (chunk_size_ != 0) {
        expected_ = Expected::chunk_size;
      } else {
        expected_ = Expected::headers;
        listener_.on_end(number_, tokens_, "ok");
      }
      return true;
  }
}

void SseConnection::take_event(std::string_view event) {
  if (const size_t at = event.find(kContent); at != std::string_view::npos) {
    const uint32_t characters = characters_of_json(event.substr(at + kContent.size()));
    if (characters != 0) listener_.on_text(number_, characters);
  }
  if (const size_t at = event.find(kTokens); at != std::string_view::npos) {
    const std::string_view rest = event.substr(at + kTokens.size());
    std::from_chars(rest.begin(), rest.end(), tokens_);
  }
}
