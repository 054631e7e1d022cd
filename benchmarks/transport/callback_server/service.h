// The service on gRPC's callback API: a reactor for each call, and no thread that waits for one.
#pragma once

#include <grpcpp/grpcpp.h>

#include "doherty/v1/generation_service.grpc.pb.h"
#include "engine.h"

class Service : public doherty::v1::GenerationService::CallbackService {
 public:
  explicit Service(Engine& engine) : engine_(engine) {}

  grpc::ServerWriteReactor<doherty::v1::StreamGenerateResponse>* StreamGenerate(
      grpc::CallbackServerContext* context, const doherty::v1::GenerateRequest* request) override;
  grpc::ServerUnaryReactor* Generate(grpc::CallbackServerContext* context, const doherty::v1::GenerateRequest* request,
                                     doherty::v1::GenerateResponse* response) override;

 private:
  Engine& engine_;
};
