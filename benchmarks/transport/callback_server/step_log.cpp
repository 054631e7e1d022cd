#include "step_log.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <stdexcept>

namespace {

constexpr uint64_t kCapacity = 1 << 20;

double now() {
  timespec spec{};
  clock_gettime(CLOCK_MONOTONIC, &spec);
  return static_cast<double>(spec.tv_sec) + static_cast<double>(spec.tv_nsec) * 1e-9;
}

uint16_t small(int value) { return static_cast<uint16_t>(value); }

}  // namespace

struct StepLog::File {
  std::atomic<uint64_t> count;
  uint64_t unused;
  Record records[kCapacity];
};

StepLog::StepLog(const std::string& path) {
  static_assert(sizeof(Record) == 16);
  const int descriptor = open(path.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  if (descriptor < 0 || ftruncate(descriptor, sizeof(File)) != 0) throw std::runtime_error("cannot write " + path);
  void* memory = mmap(nullptr, sizeof(File), PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0);
  if (memory == MAP_FAILED) throw std::runtime_error("cannot map " + path);
  close(descriptor);
  file_ = static_cast<File*>(memory);
}

void StepLog::submit(int number) {
  put({now(), small(number), 0, 0, Kind::submit});
  publish();
}

void StepLog::output(int number, int characters, int tokens) {
  put({0, small(number), small(characters), small(tokens), Kind::output});
}

void StepLog::step() {
  put({now(), 0, 0, 0, Kind::step});
  publish();
}

void StepLog::put(const Record& record) {
  file_->records[count_ % kCapacity] = record;
  ++count_;
}

void StepLog::publish() { file_->count.store(count_, std::memory_order_release); }
