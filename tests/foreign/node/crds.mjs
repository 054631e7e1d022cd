/**
 * Checks objects of Kubernetes' extensions by the schemas of their makers. Standard input is a JSON array of objects; prints
 * one line for each that is wrong or has an unknown field.
 */
import { text } from "node:stream/consumers";

const PACKAGES = {
  "gateway.networking.k8s.io": "gateway-api",
  "keda.sh": "keda",
  "monitoring.coreos.com": "prometheus-operator",
};

/** A value whose fields note that they were read: the schemas are code that reads every field that it knows. */
function watched(value, path, unread) {
  if (typeof value !== "object" || value === null) return value;
  const fields = Object.entries(value).map(([name, field]) => {
    const place = Array.isArray(value) ? path : `${path}.${name}`;
    unread.add(place);
    return [name, { place, field: watched(field, place, unread) }];
  });
  const known = Object.fromEntries(fields);
  return new Proxy(value, {
    get(target, name) {
      if (!Object.hasOwn(known, name)) return target[name];
      unread.delete(known[name].place);
      return known[name].field;
    },
  });
}

for (const object of JSON.parse(await text(process.stdin))) {
  const group = object.apiVersion.split("/")[0];
  const models = await import(`@kubernetes-models/${PACKAGES[group]}/${object.apiVersion}/${object.kind}`);
  const unread = new Set();
  try {
    // A model would copy its object, and so read all of it.
    models[object.kind].prototype.validate.call(watched(object, object.kind, unread));
  } catch (error) {
    console.log(`${object.kind} ${object.metadata.name}: ${error.message}`);
  }
  for (const field of unread) console.log(`${object.kind} ${object.metadata.name}: unknown field ${field}`);
}
