/**
 * Makes a call by gRPC-Web and prints what came back as one JSON object. The one argument is JSON: what `call` takes, with the
 * file of the descriptors as `descriptors`.
 */
import { readFileSync } from "node:fs";
import { call } from "./web_call.mjs";

const asked = JSON.parse(process.argv[2]);
console.log(JSON.stringify(await call(asked, readFileSync(asked.descriptors))));
