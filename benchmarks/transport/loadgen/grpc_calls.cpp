#include "grpc_calls.h"

#include <stdexcept>

namespace {

const std::string kService = "/doherty.v1.GenerationService/";
const std::string kVllmService = "/vllm.Inference/";

Method method_of(Protocol protocol) {
  switch (protocol) {
    case Protocol::generate:
      return {kService + "Generate", read_generate};
    case Protocol::vllm_stream:
      return {kVllmService + "GenerateStream", read_vllm};
    case Protocol::vllm_generate:
      return {kVllmService + "Generate", read_vllm};
    default:
      return {kService + "StreamGenerate", read_stream};
  }
}

std::string outcome_of(const Call& call, uint32_t error) {
  if (error != NGHTTP2_NO_ERROR) return "reset " + std::to_string(error);
  return call.status == "0" ? "ok" : "status " + call.status;
}

}  // namespace

CallsConnection::CallsConnection(const Options& options, Listener& listener)
    : Http2Connection(options, listener), method_(method_of(options.protocol)) {}

void CallsConnection::start(int number, int tokens) {
  open(method_.path, generate_request(number, tokens), number, true);
}

void CallsConnection::on_message(Call& call, std::string_view message) {
  const Part part = method_.read(message);
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
