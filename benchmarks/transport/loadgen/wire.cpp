#include "wire.h"

#include <stdexcept>

namespace {

constexpr int kVarint = 0;
constexpr int kFixed64 = 1;
constexpr int kBytes = 2;
constexpr int kFixed32 = 5;

void put_varint(std::string& out, uint64_t value) {
  while (value >= 0x80) {
    out.push_back(static_cast<char>(value | 0x80));
    value >>= 7;
  }
  out.push_back(static_cast<char>(value));
}

void put_number(std::string& out, int field, uint64_t value) {
  put_varint(out, field << 3 | kVarint);
  put_varint(out, value);
}

void put_bytes(std::string& out, int field, std::string_view bytes) {
  put_varint(out, field << 3 | kBytes);
  put_varint(out, bytes.size());
  out.append(bytes);
}

// Goes through the fields of a message.
class Fields {
 public:
  explicit Fields(std::string_view message) : rest_(message) {}

  // Goes to the next field; false at the end.
  bool next() {
    if (rest_.empty()) return false;
    const uint64_t tag = varint();
    field = static_cast<int>(tag >> 3);
    switch (tag & 7) {
      case kVarint:
        number = varint();
        return true;
      case kBytes:
        bytes = take(varint());
        return true;
      case kFixed64:
        take(8);
        return true;
      case kFixed32:
        take(4);
        return true;
      default:
        throw std::runtime_error("a reply cannot be parsed");
    }
  }

  std::string_view rest() const { return rest_; }

  int field = 0;
  uint64_t number = 0;
  std::string_view bytes;

 private:
  uint64_t varint() {
    uint64_t value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      const auto byte = static_cast<unsigned char>(take(1)[0]);
      value |= static_cast<uint64_t>(byte & 0x7f) << shift;
      if (byte < 0x80) return value;
    }
    throw std::runtime_error("a reply cannot be parsed");
  }

  std::string_view take(uint64_t size) {
    if (size > rest_.size()) throw std::runtime_error("a reply ends too early");
    const std::string_view taken = rest_.substr(0, size);
    rest_.remove_prefix(size);
    return taken;
  }

  std::string_view rest_;
};

int output_tokens(std::string_view summary) {
  int tokens = 0;
  for (Fields fields(summary); fields.next();) {
    if (fields.field != 4) continue;
    for (Fields usage(fields.bytes); usage.next();) {
      if (usage.field == 2) tokens = static_cast<int>(usage.number);
    }
  }
  return tokens;
}

uint32_t text_of_delta(std::string_view delta) {
  for (Fields fields(delta); fields.next();) {
    if (fields.field == 1) return count_characters(fields.bytes);
  }
  return 0;
}

void read_stream_into(std::string_view message, Part& part) {
  for (Fields fields(message); fields.next();) {
    if (fields.field == 2) part.characters += text_of_delta(fields.bytes);
    if (fields.field == 3) part.tokens = output_tokens(fields.bytes);
  }
}

}  // namespace

std::string prompt_of(int number) { return "Question " + std::to_string(number); }

std::string generate_request(int number, int tokens) {
  std::string stopping;
  put_number(stopping, 1, tokens);  // max_output_tokens
  put_number(stopping, 6, 1);       // ignore_eos
  std::string request;
  put_bytes(request, 3, prompt_of(number));
  put_bytes(request, 8, stopping);
  return request;
}

std::string multiplex_start(uint64_t id, int number, int tokens, bool whole) {
  std::string start;
  put_number(start, 1, id);
  put_bytes(start, 2, generate_request(number, tokens));
  if (whole) put_number(start, 4, 1);
  std::string field;
  put_bytes(field, 1, start);
  return field;
}

Part read_generate(std::string_view message) {
  Part part;
  for (Fields fields(message); fields.next();) {
    if (fields.field == 2) part.characters += count_characters(fields.bytes);
    if (fields.field == 5) part.tokens = output_tokens(fields.bytes);
  }
  return part;
}

Part read_stream(std::string_view message) {
  Part part;
  read_stream_into(message, part);
  return part;
}

Part read_vllm(std::string_view message) {
  Part part;
  for (Fields fields(message); fields.next();) {
    if (fields.field != 2) continue;  // outputs
    for (Fields output(fields.bytes); output.next();) {
      if (output.field == 2) part.characters += count_characters(output.bytes);
      if (output.field != 8) continue;  // finish_info
      part.tokens = 0;
      for (Fields finish(output.bytes); finish.next();) {
        if (finish.field == 1) part.tokens = static_cast<int>(finish.number);  // num_output_tokens
      }
    }
  }
  return part;
}

bool next_part(std::string_view& message, Part& part) {
  Fields parts(message);
  if (!parts.next()) return false;
  message = parts.rest();
  part = Part();
  for (Fields fields(parts.bytes); fields.next();) {
    if (fields.field == 1) part.id = fields.number;
    if (fields.field == 2) read_stream_into(fields.bytes, part);
    if (fields.field != 3) continue;
    for (Fields status(fields.bytes); status.next();) {
      if (status.field == 1) part.status = static_cast<int>(status.number);
    }
  }
  return true;
}

uint32_t count_characters(std::string_view text) {
  uint32_t count = 0;
  for (const char byte : text) count += (byte & 0xc0) != 0x80;
  return count;
}
