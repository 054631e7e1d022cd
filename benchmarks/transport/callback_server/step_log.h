// What the engine did, told to the harness as transport_bench/engine_log.py describes it.
#pragma once

#include <cstdint>
#include <string>

enum class Kind : uint16_t { submit = 1, output = 2, step = 3 };

class StepLog {
 public:
  // Makes the file; throws std::runtime_error where it cannot.
  explicit StepLog(const std::string& path);

  void submit(int number);
  void output(int number, int characters, int tokens);
  // The outputs before this are handed over now.
  void step();

 private:
  struct Record {
    double time;
    uint16_t number;
    uint16_t characters;
    uint16_t tokens;
    Kind kind;
  };
  struct File;

  void put(const Record& record);
  void publish();

  File* file_;
  uint64_t count_ = 0;
};
