#include "engine.h"

#include <chrono>
#include <numeric>
#include <thread>

namespace {

// The end of an answer that ends within a sign.
const Output kNothing;

int length_of(const Answer& answer) {
  auto add = [](int sum, const Output& output) { return sum + output.tokens; };
  return std::accumulate(answer.begin(), answer.end(), 0, add);
}

}  // namespace

Engine::Engine(std::vector<Answer> answers, double pace, const std::string& log)
    : answers_(std::move(answers)), interval_(pace == 0 ? 0 : 1 / pace), log_(log) {}

bool Engine::knows(int number, int tokens) const {
  return number >= 0 && tokens > 0 && tokens <= length_of(answer_of(number));
}

void Engine::submit(Request* request) {
  const std::lock_guard lock(mutex_);
  incoming_.push_back(request);
  log_.submit(request->number);
  arrival_.notify_one();
}

void Engine::run() {
  using Clock = std::chrono::steady_clock;
  const auto interval = std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(interval_));
  for (Clock::time_point next;;) {
    if (running_.empty()) {
      std::unique_lock lock(mutex_);
      arrival_.wait(lock, [this] { return !incoming_.empty(); });
      next = Clock::now();
    }
    // Each step has its time from the one before, however late that one was.
    next += interval;
    std::this_thread::sleep_until(next);
    take_in();
    step();
  }
}

void Engine::take_in() {
  const std::lock_guard lock(mutex_);
  for (Request* request : incoming_) running_.push_back({request});
  incoming_.clear();
}

void Engine::step() {
  std::erase_if(running_, [](const Running& one) {
    if (!one.request->is_aborted()) return false;
    one.request->drop();
    return true;
  });
  std::vector<Running> told;
  told.reserve(running_.size());
  for (Running& one : running_) {
    generate(one);
    if (one.output != nullptr) told.push_back(one);
  }
  if (told.empty()) return;
  std::erase_if(running_, [](const Running& one) { return one.is_last; });
  {
    const std::lock_guard lock(mutex_);
    for (const Running& one : told) {
      log_.output(one.request->number, one.output->characters, one.tokens);
    }
    log_.step();
  }
  for (const Running& one : told) one.request->deliver(one.output->text, one.tokens, one.is_last);
}

void Engine::generate(Running& one) {
  ++one.generated;
  one.is_last = one.generated == one.request->tokens;
  one.tokens = one.generated - one.told;
  const Output& next = answer_of(one.request->number)[one.outputs];
  if (one.tokens == next.tokens) {
    one.output = &next;
    ++one.outputs;
  } else {
    one.output = one.is_last ? &kNothing : nullptr;
  }
  if (one.output != nullptr) one.told = one.generated;
}
