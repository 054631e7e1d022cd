/** Calls a method by gRPC-Web, by connect-web over fetch, as pages in browsers do. Also runs in Node. */
import { createFileRegistry, fromBinary, fromJson, toJson } from "@bufbuild/protobuf";
import { FileDescriptorSetSchema } from "@bufbuild/protobuf/wkt";
import { ConnectError, createClient } from "@connectrpc/connect";
import { createGrpcWebTransport } from "@connectrpc/connect-web";

/**
 * Makes a call, and returns {messages, code, details, trailers}.
 *
 * `asked` is {url, service, method, request, cancelAfter?}; `cancelAfter` is the number of messages after which the call is
 * cancelled. `descriptors` is an encoded FileDescriptorSet.
 */
export async function call(asked, descriptors) {
  const registry = createFileRegistry(fromBinary(FileDescriptorSetSchema, descriptors));
  const service = registry.getService(asked.service);
  const method = service.methods.find((one) => one.name === asked.method);
  const client = createClient(service, createGrpcWebTransport({ baseUrl: asked.url }));
  const stop = new AbortController();
  const result = { messages: [], code: 0, details: [], trailers: {} };
  const onTrailer = (trailer) => Object.assign(result.trailers, Object.fromEntries(trailer));
  const options = { signal: stop.signal, onTrailer };
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
  return result;
}
