#include "service.h"

#include <mutex>
#include <string>

namespace {

using doherty::v1::GenerateRequest;
using doherty::v1::GenerateResponse;
using doherty::v1::Start;
using doherty::v1::StreamGenerateResponse;
using doherty::v1::Summary;

const std::string kPrompt = "Question ";
const grpc::Status kCancelled(grpc::StatusCode::CANCELLED, "the caller has gone");
const grpc::Status kUnknown(grpc::StatusCode::INVALID_ARGUMENT, "there is no such answer");

// The stream that a prompt is for; -1 if it does not come from the load generator.
int number_of(const GenerateRequest& request) {
  if (request.prompt().compare(0, kPrompt.size(), kPrompt) != 0) return -1;
  return std::stoi(request.prompt().substr(kPrompt.size()));
}

int length_of(const GenerateRequest& request) { return static_cast<int>(request.stopping().max_output_tokens()); }

void set_start(const GenerateRequest& request, Start* start) {
  start->set_request_id(request.request_id());
  start->set_model("synthetic");
}

void set_summary(int tokens, Summary* summary) {
  summary->set_finish_reason(doherty::v1::FINISH_REASON_LENGTH);
  summary->mutable_usage()->set_output_tokens(tokens);
}

// A stream: one message at a time is with the transport, and what comes meanwhile is the next one.
class Stream : public grpc::ServerWriteReactor<StreamGenerateResponse>, public Request {
 public:
  explicit Stream(const GenerateRequest& request) : Request(number_of(request), length_of(request)) {
    set_start(request, next_.mutable_start());
  }

  void deliver(const std::string& text, int token_count, bool is_last) override {
    {
      const std::lock_guard lock(mutex_);
      auto* delta = next_.mutable_delta();
      delta->mutable_text()->append(text);
      delta->set_token_count(delta->token_count() + token_count);
      if (is_last) set_summary(tokens, next_.mutable_summary());
      is_dropped_ = is_last;
      if (is_writing_) return;
      take_next();
    }
    write();
  }

  void drop() override {
    {
      const std::lock_guard lock(mutex_);
      is_dropped_ = true;
      if (is_writing_) return;
    }
    Finish(kCancelled);
  }

  void OnWriteDone(bool ok) override {
    const bool had_summary = sent_.has_summary();
    bool has_more = false;
    {
      const std::lock_guard lock(mutex_);
      is_writing_ = false;
      has_more = ok && next_.has_delta();
      if (has_more) {
        take_next();
      } else if (!is_dropped_ || had_summary) {
        return;
      }
    }
    if (has_more) {
      write();
    } else {
      Finish(kCancelled);
    }
  }

  void OnCancel() override { abort(); }
  void OnDone() override { delete this; }

 private:
  void take_next() {
    sent_.Swap(&next_);
    next_.Clear();
    is_writing_ = true;
  }

  // Only one thread gets here at a time: the one that set `is_writing_`.
  void write() {
    if (sent_.has_summary()) {
      StartWriteAndFinish(&sent_, grpc::WriteOptions(), grpc::Status::OK);
    } else {
      StartWrite(&sent_);
    }
  }

  std::mutex mutex_;
  bool is_writing_ = false;
  // Whether the engine has said its last word on it.
  bool is_dropped_ = false;
  StreamGenerateResponse sent_;
  StreamGenerateResponse next_;
};

class Whole : public grpc::ServerUnaryReactor, public Request {
 public:
  Whole(const GenerateRequest& request, GenerateResponse* response)
      : Request(number_of(request), length_of(request)), response_(response) {
    set_start(request, response->mutable_start());
  }

  void deliver(const std::string& text, int, bool is_last) override {
    response_->mutable_text()->append(text);
    if (!is_last) return;
    set_summary(tokens, response_->mutable_summary());
    Finish(grpc::Status::OK);
  }

  void drop() override { Finish(kCancelled); }

  void OnCancel() override { abort(); }
  void OnDone() override { delete this; }

 private:
  GenerateResponse* response_;
};

// Hands a call to the engine, or ends it.
template <typename Call>
Call* begun(Call* call, Engine& engine) {
  if (engine.knows(call->number, call->tokens)) {
    engine.submit(call);
  } else {
    call->Finish(kUnknown);
  }
  return call;
}

}  // namespace

grpc::ServerWriteReactor<StreamGenerateResponse>* Service::StreamGenerate(grpc::CallbackServerContext*,
                                                                          const GenerateRequest* request) {
  return begun(new Stream(*request), engine_);
}

grpc::ServerUnaryReactor* Service::Generate(grpc::CallbackServerContext*, const GenerateRequest* request,
                                            GenerateResponse* response) {
  return begun(new Whole(*request, response), engine_);
}
