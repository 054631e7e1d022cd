// The clocks of this machine, in nanoseconds.
#pragma once

#include <sys/types.h>
#include <time.h>

#include <cstdint>
#include <stdexcept>

inline int64_t read_clock(clockid_t id) {
  timespec spec{};
  if (clock_gettime(id, &spec) != 0) throw std::runtime_error("a clock cannot be read");
  return spec.tv_sec * 1'000'000'000LL + spec.tv_nsec;
}

// The clock that Python calls time.monotonic().
inline int64_t now() { return read_clock(CLOCK_MONOTONIC); }

// The CPU time that all threads of a process have used.
inline int64_t cpu_time(pid_t process) {
  clockid_t id{};
  if (clock_getcpuclockid(process, &id) != 0) throw std::runtime_error("the server's process is not there");
  return read_clock(id);
}
