/**
 * Calls a method as a page in a browser does, by gRPC-Web (connect-web over fetch), and prints what came back as one JSON
 * object: {messages, code, details, trailers}.
 *
 * The one argument is JSON: {url, descriptors, service, method, request, cancelAfter?}. `descriptors` is a file with a
 * FileDescriptorSet, `cancelAfter` is after how many messages the call is cancelled.
 */
import { readFileSync } from "node:fs";
import { createFileRegistry, fromBinary, fromJson, toJson } from "@bufbuild/protobuf";
import { FileDescriptorSetSchema } from "@bufbuild/protobuf/wkt";
import { ConnectError, createClient } from "@connectrpc/connect";
import { createGrpcWebTransport } from "@connectrpc/connect-web";

const asked = JSON.parse(process.argv[2]);
const registry = createFileRegistry(fromBinary(FileDescriptorSetSchema, readFileSync(asked.descriptors)));
const service = registry.getService(asked.service);
const method = service.methods.find((one) => one.name === asked.method);
const client = createClient(service, createGrpcWebTransport({ baseUrl: asked.url }));
const stop = new AbortController();
const result = { messages: [], code: 0, details: [], trailers: {} };
const options = { signal: stop.signal, onTrailer: (trailer) => Object.assign(result.trailers, Object.fromEntries(trailer)) };
const written = (message) => toJson(method.output, message, { registry, useProtoFieldName: true });

try {
  const request = fromJson(method.input, asked.request, { registry });
  if (method.methodKind === "unary") {
    result.messages.push(written(await client[method.localName](request, options)));
  } else {
    for await (const message of client[method.localName](request, options)) {
      result.messages.push(written(message));
      if (result.messages.length === asked.cancelAfter) stop.abort();
    }
  }
} catch (error) {
  const failure = ConnectError.from(error);
  result.code = failure.code;
  for (const name of ["google.rpc.ErrorInfo", "google.rpc.BadRequest", "google.rpc.RequestInfo"]) {
    const schema = registry.getMessage(name);
    result.details.push(...failure.findDetails(schema).map((detail) => ({ type: name, ...toJson(schema, detail) })));
  }
}
console.log(JSON.stringify(result));
