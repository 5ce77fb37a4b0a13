// Time of single products in the WebAssembly of onnxruntime-web. job: {graphs: [{name, file, feeds: [{name, type, dims}]}], rounds,
// repeats, threads}; every feed is 1. Printed: {name: [microseconds of processor time a run, one figure a round]}.
import { readFileSync, writeSync } from "node:fs";
import * as ort from "onnxruntime-web";

const { graphs, rounds, repeats, threads } = JSON.parse(readFileSync(process.argv[2], "utf8"));
ort.env.wasm.numThreads = threads;
const arrays = { float32: Float32Array, uint8: Uint8Array };
const running = [];
for (const { name, file, feeds } of graphs) {
  const session = await ort.InferenceSession.create(readFileSync(file), { executionProviders: ["wasm"], logSeverityLevel: 3 });
  const tensor = ({ type, dims }) => new ort.Tensor(type, new arrays[type](dims.reduce((a, b) => a * b)).fill(1), dims);
  running.push({ name, session, fed: Object.fromEntries(feeds.map((feed) => [feed.name, tensor(feed)])) });
}
const found = Object.fromEntries(graphs.map(({ name }) => [name, []]));
for (let round = -2; round < rounds; round++) {
  for (const { name, session, fed } of running) {
    const before = process.cpuUsage();
    for (let i = 0; i < repeats; i++) await session.run(fed);
    const { user, system } = process.cpuUsage(before);
    if (round >= 0) found[name].push((user + system) / repeats); // code is compiled in the first ones
  }
}
writeSync(1, JSON.stringify(found));
process.exit(0);
