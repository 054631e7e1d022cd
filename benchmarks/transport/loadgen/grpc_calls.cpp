#include "grpc_calls.h"

#include <stdexcept>

#include "wire.h"

namespace {

const std::string kService = "/doherty.v1.GenerationService/";

std::string outcome_of(const Call& call, uint32_t error) {
  if (error != NGHTTP2_NO_ERROR) return "reset " + std::to_string(error);
  return call.status == "0" ? "ok" : "status " + call.status;
}

}  // namespace

void CallsConnection::start(int number, int tokens) {
  const bool is_unary = options_.protocol == Protocol::generate;
  open(kService + (is_unary ? "Generate" : "StreamGenerate"), generate_request(number, tokens), number, true);
}

void CallsConnection::on_message(Call& call, std::string_view message) {
  const Part part = options_.protocol == Protocol::generate ? read_generate(message) : read_stream(message);
  if (part.characters != 0) listener_.on_text(call.number, part.characters);
  if (part.tokens >= 0) call.tokens = part.tokens;
}

void CallsConnection::on_close(const Call& call, uint32_t error) {
  listener_.on_end(call.number, call.tokens, outcome_of(call, error));
}

void MultiplexConnection::on_ready() { call_ = open(kService + "MultiplexGenerate", "", -1, false); }

void MultiplexConnection::start(int number, int tokens) {
  const uint64_t id = ++last_id_;
  numbers_[id] = number;
  starts_ += multiplex_start(id, number, tokens, options_.protocol == Protocol::multiplex_whole);
}

void MultiplexConnection::flush() {
  if (!starts_.empty()) {
    send(call_, starts_);
    starts_.clear();
  }
  Http2Connection::flush();
}

void MultiplexConnection::on_message(Call&, std::string_view message) {
  for (Part part; next_part(message, part);) {
    const int number = numbers_.at(part.id);
    if (part.characters != 0) listener_.on_text(number, part.characters);
    if (part.tokens < 0 && part.status == 0) continue;
    numbers_.erase(part.id);
    listener_.on_end(number, part.tokens, part.status == 0 ? "ok" : "status " + std::to_string(part.status));
  }
}

void MultiplexConnection::on_close(const Call& call, uint32_t error) {
  throw std::runtime_error("MultiplexGenerate ended: " + outcome_of(call, error));
}
