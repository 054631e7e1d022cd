// A clock, and at every tick of it a token for every running request, as the synthetic engine has it.
#pragma once

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <string>
#include <vector>

#include "step_log.h"
#include "texts.h"

// A request, as its servicer keeps it. The engine's thread calls `deliver` until it has said that it was the last time.
class Request {
 public:
  Request(int number, int tokens) : number(number), tokens(tokens) {}
  virtual ~Request() = default;

  // Takes what a step produced: `text` is empty at the end of an answer that ends within a sign.
  virtual void deliver(const std::string& text, int token_count, bool is_last) = 0;
  // The engine has dropped it, as `abort` asked for.
  virtual void drop() = 0;

  // Any thread may ask the engine to drop it.
  void abort() { is_aborted_.store(true, std::memory_order_relaxed); }
  bool is_aborted() const { return is_aborted_.load(std::memory_order_relaxed); }

  const int number;
  const int tokens;

 private:
  std::atomic<bool> is_aborted_{false};
};

class Engine {
 public:
  // `pace` is in tokens a second for each request; 0 is as fast as possible.
  Engine(std::vector<Answer> answers, double pace, const std::string& log);

  // Whether there is such an answer; streams beyond those that have texts of their own share them.
  bool knows(int number, int tokens) const;
  void submit(Request* request);
  // Runs the clock; never returns.
  void run();

 private:
  struct Running {
    Request* request;
    int generated = 0;
    // How many outputs have been delivered, and how many tokens those stood for.
    size_t outputs = 0;
    int told = 0;
    // What the step at hand produced, for how many tokens.
    const Output* output = nullptr;
    int tokens = 0;
    bool is_last = false;
  };

  const Answer& answer_of(int number) const { return answers_[number % answers_.size()]; }
  void take_in();
  void step();
  void generate(Running& one);

  const std::vector<Answer> answers_;
  const double interval_;
  StepLog log_;
  std::vector<Running> running_;
  std::mutex mutex_;
  std::condition_variable arrival_;
  std::vector<Request*> incoming_;
};
