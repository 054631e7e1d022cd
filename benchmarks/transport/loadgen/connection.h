// A connection to the server, and what it tells of the requests on it.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "options.h"

// Who is told what arrives; a request goes by the number of its stream.
class Listener {
 public:
  virtual ~Listener() = default;
  virtual void on_text(int number, uint32_t characters) = 0;
  // `outcome` is "ok" or a status; `tokens` is what the server says that the answer had, -1 if it did not say.
  virtual void on_end(int number, int tokens, const std::string& outcome) = 0;
};

// Every method throws std::runtime_error when the server does not keep to the protocol, or goes away.
class Connection {
 public:
  Connection(const Options& options, Listener& listener);
  virtual ~Connection();
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  int socket() const { return socket_; }
  // Whether requests may be begun.
  virtual bool is_ready() const = 0;
  // Begins a request; it is sent by `flush`.
  virtual void start(int number, int tokens) = 0;
  // Sends what there is to send.
  virtual void flush() = 0;
  // Takes what there is on the socket.
  void receive();

 protected:
  virtual void take(const char* bytes, size_t size) = 0;
  void send_all(const char* bytes, size_t size);

  const Options& options_;
  Listener& listener_;

 private:
  int socket_;
};

std::unique_ptr<Connection> connect(const Options& options, Listener& listener);
