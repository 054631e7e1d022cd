// The contract on gRPC's C++ callback API: `callback_server LOG TEXTS TOKENS_PER_SECOND`.
#include <csignal>
#include <cstdlib>
#include <exception>
#include <iostream>
#include <thread>

#include "engine.h"
#include "service.h"
#include "texts.h"

namespace {

void serve(char** arguments) {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);  // in every thread that is made from here on

  Engine engine(read_texts(arguments[2]), std::atof(arguments[3]), arguments[1]);
  Service service(engine);
  grpc::ServerBuilder builder;
  int port = 0;
  builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
  builder.RegisterService(&service);
  const auto server = builder.BuildAndStart();
  std::thread([&engine] { engine.run(); }).detach();
  std::cerr << R"({"event": "ready", "address": "127.0.0.1:)" << port << "\"}" << std::endl;

  int signal = 0;
  sigwait(&signals, &signal);
  std::_Exit(0);  // the clock runs for ever
}

}  // namespace

int main(int count, char** arguments) {
  if (count != 4) {
    std::cerr << "callback_server LOG TEXTS TOKENS_PER_SECOND\n";
    return 2;
  }
  try {
    serve(arguments);
  } catch (const std::exception& error) {
    std::cerr << error.what() << "\n";
    return 1;
  }
}
