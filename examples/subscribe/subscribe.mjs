// mosquitto_sub -h BROKER -t 'veilsight/v1/#' -F '%t %x' | node subscribe.mjs DEVICE_KEY BRIDGE_KEY
import { createPublicKey, verify } from "node:crypto";
import { createInterface } from "node:readline";
import { veilsight } from "./veilsight.mjs"; // generated from wire/protocol/veilsight.proto by `npm install`

const ed25519 = "302a300506032b6570032100"; // what a DER public key of this kind begins with
const asKey = (hex) => createPublicKey({ key: Buffer.from(ed25519 + hex, "hex"), format: "der", type: "spki" });
const [device, bridge] = process.argv.slice(2).map(asKey);
const { Signed, Features, Verdict, Alert } = veilsight.v1;
const norm = (z) => Math.hypot(...Array.from({ length: z.length / 2 }, (_, i) => Buffer.from(z).readInt16LE(2 * i)));
const top = (m) => m.probabilities.indexOf(Math.max(...m.probabilities));
const label = (m) => (m.unsure && top(m) === 0 ? "unsure" : m.labels[top(m)]);
const verdict = (m) => `${label(m)} ${m.probabilities[top(m)].toFixed(2)}`;
const topics = {
  features: ["features", device, Features, (m) => `slot ${m.slot} |z| ${norm(m.z).toFixed(1)}`],
  "verdict/edge": ["verdict", device, Verdict, verdict],
  "verdict/cloud": ["verdict", bridge, Verdict, (m) => `${verdict(m)} "${m.sentence}"`],
  "alert/open": ["alert/open", bridge, JSON, (m) => `open: ${m.open || "none"}`],
  bridge: ["bridge", bridge, JSON, (m) => `${m.status} ${m.reason}`.trim()],
  contour: ["contour", bridge, JSON, (m) => `lying ${m.lying ?? "?"}, several ${m.several ?? "?"} (${m.text})`],
  alert: ["alert", bridge, Alert, (m) => `${m.label} ${m.raised ? "raised" : "cleared"} ${m.probability.toFixed(2)}`],
};
const unpack = (payload, type) => {
  if (type !== JSON) return Signed.decode(payload);
  const [body, signature] = payload.subarray(0, 1024).toString().split(', "signature": "'); // signed without this
  return { body: Buffer.from(`${body}}`), signature: Buffer.from(signature.slice(0, 128), "hex") };
};
const old = (m) => (m.late || Date.now() / 1000 - m.timeS > 180 ? " LATE: not now" : ""); // 120 s, and a minute
for await (const line of createInterface({ input: process.stdin })) {
  const [topic, payload] = line.split(" ");
  const [, , site, camera, ...name] = topic.split("/");
  const [kind, key, type, tell] = topics[name.join("/")] ?? [];
  if (!kind) continue; // state is read as the other JSON documents are
  try {
    const { body, signature } = unpack(Buffer.from(payload, "hex"), type);
    const context = Buffer.from(`veilsight/v2/${kind}\0${site}\0${camera}\0`);
    const genuine = verify(null, Buffer.concat([context, body]), key, signature);
    const said = genuine && (type === JSON ? JSON.parse(body) : type.decode(body));
    console.log(topic, genuine ? tell(said) + old(said) : "REFUSED: not signed for this camera by its writer");
  } catch (error) {
    console.log(topic, `REFUSED: ${error.message}`);
  }
}
