// The messages of doherty.v1 and of vLLM's contract that the load generator needs, written and read by hand.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

// What a message tells of one request.
struct Part {
  // MultiplexPart.id; 0 in the other calls.
  uint64_t id = 0;
  // How many code points of text are new.
  uint32_t characters = 0;
  // Usage.output_tokens of the whole answer; -1 while it goes on.
  int tokens = -1;
  // MultiplexPart.status.code; 0 is none.
  int status = 0;
};

// Requests. vLLM's contract has the same numbers for the fields that `generate_request` sets.
std::string generate_request(int number, int tokens);
// A MultiplexGenerateRequest that begins one request; several of them joined are one that begins all.
std::string multiplex_start(uint64_t id, int number, int tokens, bool whole);

// Replies. Each throws std::runtime_error for bytes that are no message.
Part read_generate(std::string_view message);
Part read_stream(std::string_view message);
Part read_vllm(std::string_view message);
// Takes one part after the other off the beginning of the message; false when there is none left.
bool next_part(std::string_view& message, Part& part);

// The prompt by which the server's log knows which stream a request belongs to.
std::string prompt_of(int number);

uint32_t count_characters(std::string_view text);
