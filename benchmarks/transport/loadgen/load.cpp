#include "load.h"

#include <sys/epoll.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <iostream>
#include <stdexcept>

#include "clock.h"

namespace {

constexpr int64_t kSecond = 1'000'000'000;
constexpr int64_t kPatience = 30 * kSecond;
constexpr int kMaxEvents = 256;

int64_t nanoseconds(double seconds) { return static_cast<int64_t>(seconds * kSecond); }

void allow_open_files() {
  rlimit limit{};
  getrlimit(RLIMIT_NOFILE, &limit);
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
}

}  // namespace

Load::Load(const Options& options)
    : options_(options), recorder_(options.streams, options.tokens), epoll_(epoll_create1(EPOLL_CLOEXEC)) {
  allow_open_files();
}

void Load::run() {
  connect_all();
  if (options_.hold) return hold();
  const int64_t began = now();
  const int64_t window = began + nanoseconds(options_.warm_up);
  const int64_t end = window + nanoseconds(options_.seconds);
  const int64_t period = nanoseconds(options_.burst_every);
  int64_t next_burst = began + period;
  Border first{};
  start_all();
  for (int64_t time = now(); time < end; time = now()) {
    if (first.time == 0 && time >= window) first = border();
    if (period != 0 && time >= next_burst) {
      // A server that is not through with the last one gets the next one a period later.
      if (!recorder_.is_any_open()) start_all();
      next_burst += period;
    }
    poll(std::min({first.time == 0 ? window : end, period == 0 ? end : next_burst}));
  }
  recorder_.print(std::cout, first, border());
}

void Load::connect_all() {
  const int count = (options_.streams + options_.per_connection - 1) / options_.per_connection;
  for (int index = 0; index < count; ++index) {
    Connection& one = *connections_.emplace_back(connect(options_, *this));
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.ptr = &one;
    epoll_ctl(epoll_, EPOLL_CTL_ADD, one.socket(), &event);
  }
  const int64_t patience = now() + kPatience;
  auto is_ready = [](const auto& one) { return one->is_ready(); };
  while (!std::all_of(connections_.begin(), connections_.end(), is_ready)) {
    if (now() > patience) throw std::runtime_error("the server does not greet");
    poll(patience);
  }
}

void Load::hold() {
  start_all();
  const int64_t patience = now() + kPatience;
  for (int number = 0; number < options_.streams;) {
    if (recorder_.has_begun(number)) {
      ++number;
    } else if (now() > patience) {
      throw std::runtime_error("a stream gets no text");
    } else {
      poll(patience);
    }
  }
  std::cout << "open" << std::endl;
  epoll_event event{};
  event.events = EPOLLIN;
  epoll_ctl(epoll_, EPOLL_CTL_ADD, STDIN_FILENO, &event);
  const auto is_over = [this] {
    epoll_event one{};
    // Standard input is the one without a connection.
    return epoll_wait(epoll_, &one, 1, -1) == 1 && one.data.ptr == nullptr;
  };
  while (!is_over()) poll(0);
}

void Load::poll(int64_t until) {
  static epoll_event events[kMaxEvents];
  const int64_t wait = std::max<int64_t>(0, until - now());
  const timespec timeout{wait / kSecond, wait % kSecond};
  const int count = epoll_pwait2(epoll_, events, kMaxEvents, &timeout, nullptr);
  for (int index = 0; index < count; ++index) {
    auto* one = static_cast<Connection*>(events[index].data.ptr);
    if (one == nullptr) continue;
    arrival_ = 0;
    one->receive();
    unsent_.push_back(one);  // HTTP/2 has answers of its own
    if (options_.burst_every == 0) {
      for (const int number : ended_) start(number, options_.tokens);
    }
    ended_.clear();
    flush();
  }
}

Border Load::border() const {
  const int64_t server = options_.server == 0 ? 0 : cpu_time(options_.server);
  return {now(), server, read_clock(CLOCK_PROCESS_CPUTIME_ID)};
}

void Load::start_all() {
  for (int number = 0; number < options_.streams; ++number) {
    start(number, first_length(number));
  }
  flush();
}

void Load::start(int number, int tokens) {
  Connection& one = connection_of(number);
  if (!unsent_.empty() && unsent_.back() != &one) flush();
  recorder_.begin(number);
  one.start(number, tokens);
  if (unsent_.empty()) unsent_.push_back(&one);
}

void Load::flush() {
  for (Connection* one : unsent_) one->flush();
  unsent_.clear();
}

int Load::first_length(int number) const {
  if (!options_.stagger) return options_.tokens;
  return std::max(1, options_.tokens * (number + 1) / options_.streams);
}

void Load::on_text(int number, uint32_t characters) {
  if (arrival_ == 0) arrival_ = now();
  recorder_.text(number, characters, arrival_);
}

void Load::on_end(int number, int tokens, const std::string& outcome) {
  if (outcome != "ok") throw std::runtime_error("a request failed: " + outcome);
  recorder_.end(number, tokens);
  ended_.push_back(number);
}
