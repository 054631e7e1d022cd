/**
 * Calls one method of a gRPC server and prints what came back as one JSON object.
 *
 * The one argument is JSON: {target, includes, service, method, requests, deadlineMs?, cancelAfter?}. `includes` are
 * the folders that proto files are looked for in, `cancelAfter` is after how many messages the call is cancelled.
 */
import { createRequire } from "node:module";
import path from "node:path";
import grpc from "@grpc/grpc-js";
import protoLoader from "@grpc/proto-loader";
import protobuf from "protobufjs";
import descriptor from "protobufjs/ext/descriptor/index.js";

const SCHEMAS = [
  "doherty/v1/generation_service.proto",
  "doherty/v1/latency_service.proto",
  "grpc/reflection/v1/reflection.proto",
  "health/v1/health.proto",
];

/** The folder of the proto files that a package brings, `file` being one of its own. */
function folderIn(name, file) {
  return path.join(path.dirname(createRequire(import.meta.url).resolve(`${name}/package.json`)), file);
}

/** The class of the client of a service, made from the proto files. */
function clientOf(service, includes) {
  const includeDirs = [
    ...includes,
    folderIn("@grpc/reflection", "build/proto"),
    folderIn("grpc-health-check", "proto"),
  ];
  const asJson = { keepCase: true, enums: String, longs: String, bytes: String };
  const root = grpc.loadPackageDefinition(protoLoader.loadSync(SCHEMAS, { includeDirs, ...asJson }));
  return service.split(".").reduce((scope, name) => scope[name], root);
}

/** Connects, so that a deadline is that of the call alone. */
function connect(client) {
  return new Promise((resolve, reject) => {
    client.waitForReady(Date.now() + 60_000, (error) => (error ? reject(error) : resolve()));
  });
}

/** Makes a call of any of the four kinds; gives its messages and its status. */
async function exchange(client, { method, requests, deadlineMs, cancelAfter }) {
  const { requestStream, responseStream } = client[method];
  const messages = [];
  const take = (message) => {
    messages.push(message);
    if (messages.length === cancelAfter) call.cancel();
  };
  let finish;
  const finished = new Promise((resolve) => {
    finish = resolve;
  });
  const takeSingle = (error, message) => {
    if (!error) take(message);
    finish();
  };
  const call = client[method](
    ...(requestStream ? [] : [requests[0]]),
    deadlineMs === undefined ? {} : { deadline: Date.now() + deadlineMs },
    ...(responseStream ? [] : [takeSingle]),
  );
  if (responseStream) call.on("data", take).on("end", finish).on("error", finish);
  if (requestStream) {
    for (const request of requests) call.write(request);
    call.end();
  }
  const status = await new Promise((resolve) => call.on("status", resolve));
  await finished;
  return { messages, status };
}

/** The decoded google.rpc.Status details of a call's trailing metadata, each with its type's name. */
function detailsOf(metadata, includes) {
  const [encoded] = metadata.get("grpc-status-details-bin");
  if (encoded === undefined) return [];
  const root = new protobuf.Root();
  const origin = root.resolvePath;
  root.resolvePath = (from, file) =>
    includes.map((folder) => path.join(folder, file)).find((file) => protobuf.util.fs.existsSync(file)) ??
    origin(from, file);
  root.loadSync(["google/rpc/status.proto", "google/rpc/error_details.proto"]);
  return root
    .lookupType("google.rpc.Status")
    .decode(encoded)
    .details.map(({ type_url: url, value }) => {
      const type = url.split("/").pop();
      return { type, ...root.lookupType(type).decode(value).toJSON() };
    });
}

/** The services and their methods of a serialized file descriptor of the reflection service. */
function servicesIn(encoded) {
  return descriptor.FileDescriptorProto.decode(Buffer.from(encoded, "base64")).toJSON().service ?? [];
}

const options = JSON.parse(process.argv[2]);
const Client = clientOf(options.service, options.includes);
const client = new Client(options.target, grpc.credentials.createInsecure());
await connect(client);
const { messages, status } = await exchange(client, options);
client.close();
const files = messages.flatMap((message) => message.file_descriptor_response?.file_descriptor_proto ?? []);
console.log(
  JSON.stringify({
    messages,
    code: status.code,
    details: detailsOf(status.metadata, options.includes),
    services: files.flatMap(servicesIn),
  }),
);
