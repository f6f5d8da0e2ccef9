// A device written with MQTT.js, as its readers would: it keeps connecting until it is let in, then talks to itself.
// Arguments: one JSON object. Prints one JSON object a line for what happens.
"use strict";

const fs = require("node:fs");
const mqtt = require(process.env.MQTT_JS);

const asked = JSON.parse(process.argv[2]);
const tell = (event, more = {}) => console.log(JSON.stringify({ event, ...more }));

const client = mqtt.connect({
  protocol: "mqtts",
  host: "127.0.0.1",
  port: asked.port,
  servername: asked.endpoint,
  ca: fs.readFileSync(asked.ca),
  cert: fs.readFileSync(asked.cert),
  key: fs.readFileSync(asked.key),
  ALPNProtocols: asked.alpn,
  clientId: asked.clientId,
  protocolVersion: asked.version,
  clean: true,
  reconnectPeriod: 100,
  properties: asked.version === 5 ? { topicAliasMaximum: 4, sessionExpiryInterval: 60 } : undefined,
});

let closed = 0;
client.on("close", () => { closed += 1; });
client.on("error", (error) => tell("error", { message: error.message }));
client.on("connect", (connack) => {
  tell("connect", { closed, sessionPresent: connack.sessionPresent, properties: connack.properties ?? null });
  client.subscribe(["js/+", "$share/g/shared/#"], { qos: 1 }, (error, granted) => {
    tell("subscribed", { error: error?.message ?? null, granted: (granted ?? []).map((each) => each.qos) });
    const properties = asked.version === 5 ? { contentType: "text/plain", userProperties: { a: "1" } } : undefined;
    client.publish("js/1", "one", { qos: 1, properties });
    client.publish("js/1", "two", { qos: 1, properties });
    client.publish("shared/x", "three", { qos: 1, retain: true });
  });
});
let seen = 0;
client.on("message", (topic, payload, packet) => {
  tell("message", {
    topic,
    payload: payload.toString(),
    qos: packet.qos,
    contentType: packet.properties?.contentType ?? null,
    userProperties: packet.properties?.userProperties ?? null,
  });
  seen += 1;
  if (seen === 3) client.end(false, {}, () => tell("end"));
});
