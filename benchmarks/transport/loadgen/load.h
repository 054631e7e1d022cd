// What is asked of the server, and when.
#pragma once

#include <memory>
#include <unordered_map>
#include <vector>

#include "connection.h"
#include "recorder.h"

class Load : public Listener {
 public:
  explicit Load(const Options& options);

  // Runs to the end of the window and prints what was seen; or, when told to hold, until standard input ends.
  void run();

  void on_text(int number, uint32_t characters) override;
  void on_end(int number, int tokens, const std::string& outcome) override;

 private:
  void connect_all();
  void hold();
  // Takes what comes until `until`, or nothing more than is there when that has passed.
  void poll(int64_t until);
  Border border() const;

  void start_all();
  void start(int number, int tokens);
  void flush();
  int first_length(int number) const;
  Connection& connection_of(int number) { return *connections_[number / options_.per_connection]; }

  const Options options_;
  Recorder recorder_;
  int epoll_;
  std::vector<std::unique_ptr<Connection>> connections_;
  // Streams whose requests have ended, and which begin another one.
  std::vector<int> ended_;
  std::vector<Connection*> unsent_;
  // When what is being read was taken from its socket.
  int64_t arrival_ = 0;
};
