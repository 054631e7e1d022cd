#include "options.h"

#include <map>
#include <stdexcept>

namespace {

const std::map<std::string, Protocol> kProtocols = {
    {"stream", Protocol::stream},
    {"generate", Protocol::generate},
    {"multiplex", Protocol::multiplex},
    {"multiplex-whole", Protocol::multiplex_whole},
    {"sse", Protocol::sse},
    {"vllm-stream", Protocol::vllm_stream},
    {"vllm-generate", Protocol::vllm_generate},
};

void set(Options& options, const std::string& name, const std::string& value) {
  if (name == "--protocol") {
    options.protocol = kProtocols.at(value);
  } else if (name == "--port") {
    options.port = std::stoi(value);
  } else if (name == "--streams") {
    options.streams = std::stoi(value);
  } else if (name == "--per-connection") {
    options.per_connection = std::stoi(value);
  } else if (name == "--tokens") {
    options.tokens = std::stoi(value);
  } else if (name == "--burst-every") {
    options.burst_every = std::stod(value);
  } else if (name == "--warm-up") {
    options.warm_up = std::stod(value);
  } else if (name == "--seconds") {
    options.seconds = std::stod(value);
  } else if (name == "--server") {
    options.server = std::stoi(value);
  } else if (name == "--key") {
    options.key = value;
  } else {
    throw std::invalid_argument("there is no option " + name);
  }
}

}  // namespace

Options read_options(int count, char** arguments) {
  Options options;
  for (int index = 1; index < count; ++index) {
    const std::string name = arguments[index];
    if (name == "--stagger") {
      options.stagger = true;
    } else if (name == "--hold") {
      options.hold = true;
    } else if (++index == count) {
      throw std::invalid_argument(name + " needs a value");
    } else {
      try {
        set(options, name, arguments[index]);
      } catch (const std::logic_error&) {
        throw std::invalid_argument(name + " cannot be " + arguments[index]);
      }
    }
  }
  if (options.port == 0) throw std::invalid_argument("--port is missing");
  if (options.protocol == Protocol::sse && options.per_connection != 1) {
    throw std::invalid_argument("over HTTP/1.1 a connection carries one request");
  }
  return options;
}
