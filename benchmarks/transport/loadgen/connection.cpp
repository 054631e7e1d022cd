#include "connection.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <stdexcept>

#include "grpc_calls.h"
#include "sse.h"

Connection::Connection(const Options& options, Listener& listener)
    : options_(options), listener_(listener), socket_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(options.port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (socket_ < 0 || ::connect(socket_, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) {
    throw std::runtime_error("cannot connect to port " + std::to_string(options.port));
  }
  const int on = 1;
  setsockopt(socket_, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  fcntl(socket_, F_SETFL, O_NONBLOCK);
}

Connection::~Connection() { close(socket_); }

void Connection::receive() {
  static char buffer[256 << 10];
  const ssize_t size = recv(socket_, buffer, sizeof buffer, 0);
  if (size == 0) throw std::runtime_error("the server closed a connection");
  if (size < 0) {
    if (errno == EAGAIN || errno == EINTR) return;
    throw std::runtime_error("the server broke a connection");
  }
  take(buffer, size);
}

void Connection::send_all(const char* bytes, size_t size) {
  // Requests are small, and the socket takes megabytes: there is always room while the server reads at all.
  const ssize_t sent = send(socket_, bytes, size, MSG_NOSIGNAL);
  if (sent != static_cast<ssize_t>(size)) throw std::runtime_error("the server does not read");
}

std::unique_ptr<Connection> connect(const Options& options, Listener& listener) {
  switch (options.protocol) {
    case Protocol::sse:
      return std::make_unique<SseConnection>(options, listener);
    case Protocol::multiplex:
    case Protocol::multiplex_whole:
      return std::make_unique<MultiplexConnection>(options, listener);
    default:
      return std::make_unique<CallsConnection>(options, listener);
  }
}
