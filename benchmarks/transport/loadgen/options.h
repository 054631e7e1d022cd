// What the load generator is told on its command line.
#pragma once

#include <sys/types.h>

#include <string>

enum class Protocol { stream, generate, multiplex, multiplex_whole, sse, vllm_stream, vllm_generate };

struct Options {
  int port = 0;
  Protocol protocol = Protocol::stream;
  // How many requests are in flight.
  int streams = 1;
  // How many of them share a connection; with multiplex also an RPC.
  int per_connection = 1;
  // The length of an answer.
  int tokens = 170;
  // Whether the first answers are of all lengths, so that they do not end together.
  bool stagger = false;
  // Seconds from one burst of `streams` new calls to the next; 0 begins a call when the one before it has ended.
  double burst_every = 0;
  double warm_up = 0.5;
  double seconds = 1.5;
  pid_t server = 0;
  // The API key; empty for none.
  std::string key;
  // Whether to open all streams, say so, and keep them until standard input ends.
  bool hold = false;
};

// Throws std::invalid_argument with a sentence.
Options read_options(int count, char** arguments);
