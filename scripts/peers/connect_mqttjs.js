// MQTT.js, the engine of MQTTX CLI: one client a device, certificates in memory, the name sent and verified beside the
// address. Takes turns as phases.py says. Reconnecting is off, so that a refusal is seen and not repeated.
"use strict";

const fs = require("node:fs");
const path = require("node:path");
const readline = require("node:readline");

const task = JSON.parse(process.argv[2]);
const say = (line) => console.log(JSON.stringify(line));
const missing = (what) => {
  say({ missing: what });
  process.exit(0);
};
const place = process.env.MQTT_JS || missing("no directory of node modules is given");
if (!fs.existsSync(place)) missing(`no module mqtt at ${place}`);
const mqtt = require(place);

const answers = readline.createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const turn = async (line) => {
  say(line);
  if ((await answers.next()).done) process.exit(0);
};
const numbers = ([first, end]) => Array.from({ length: end - first }, (_, at) => first + at);
const digits = (number) => String(number).padStart(6, "0");
const held = [];

function connect(number, bundle, ca) {
  return new Promise((resolve, reject) => {
    const client = mqtt.connect({
      protocol: "mqtts",
      host: task.host,
      port: task.port,
      servername: task.server_name,
      ca,
      cert: bundle,
      key: bundle,
      clientId: `device-${digits(number)}`,
      keepalive: task.keep_alive,
      reconnectPeriod: 0,
      connectTimeout: 60000,
    });
    held.push(client);
    client.once("connect", resolve);
    client.once("error", reject);
    client.once("close", () => reject(new Error(`device ${number} was closed`)));
  });
}

async function main() {
  const package_ = JSON.parse(fs.readFileSync(path.join(place, "package.json")));
  say({ version: `mqtt ${package_.version}, node ${process.versions.node}` });
  const ca = fs.readFileSync(task.roots);
  for (const batch of task.batches) {
    const waiting = numbers(batch).map((each) => [each, fs.readFileSync(path.join(task.devices, `${digits(each)}.pem`))]);
    const count = waiting.length;
    await turn({ phase: "prepared" });
    const hand = async () => {
      while (waiting.length > 0) {
        const [number, bundle] = waiting.shift();
        await connect(number, bundle, ca);
      }
    };
    await Promise.all(Array.from({ length: task.concurrency }, hand));
    await turn({ phase: "connected", connections: count });
  }
}

main().catch((error) => {
  console.error(String(error));
  process.exit(1);
});
