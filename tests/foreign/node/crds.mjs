/**
 * Checks objects of Kubernetes' extensions by the schemas of their makers. Standard input is a JSON array of objects; prints
 * one line for each that is wrong.
 */
import { text } from "node:stream/consumers";

const PACKAGES = {
  "gateway.networking.k8s.io": "gateway-api",
  "keda.sh": "keda",
  "monitoring.coreos.com": "prometheus-operator",
};

for (const object of JSON.parse(await text(process.stdin))) {
  const group = object.apiVersion.split("/")[0];
  const models = await import(`@kubernetes-models/${PACKAGES[group]}/${object.apiVersion}/${object.kind}`);
  try {
    new models[object.kind](object).validate();
  } catch (error) {
    console.log(`${object.kind} ${object.metadata.name}: ${error.message}`);
  }
}
