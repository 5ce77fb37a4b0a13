// Holds the package and the session, so that the page stays responsive. Requests are { id, method, argument } and are answered
// { id, result } or { id, error }; while audio comes, { event, ... } is sent unasked.

import { PageError } from "./asr/errors.js";
import { openPackage } from "./asr/package.js";
import { Session } from "./asr/session.js";
import { FilesSource, KeptSource, UrlSource } from "./asr/sources.js";
import { openStore } from "./asr/store.js";
import { Transcriber } from "./asr/transcriber.js";

const FILE_PACKET_S = 1; // of a recording: text grows while it is transcribed
const ort = { wasm: () => import("./ort/ort.wasm.min.mjs"), webgpu: () => import("./ort/ort.webgpu.min.mjs") };

let store = null;
let opened = null; // the package
let transcriber = null;
let live = null; // { stream, rate, tail, waiting, audio, work, ended }

const methods = {
  async kept() {
    store ??= await openStore();
    return (await store?.packages())?.map(({ name, manifest }) => ({ name, digest: manifest.digest })) ?? [];
  },

  async forget(digest) {
    await store?.forget(digest);
  },

  async open({ files, url, digest }) {
    store ??= await openStore();
    const kept = digest && (await store.packages()).find((one) => one.manifest.digest === digest);
    const source = kept ? new KeptSource(kept.manifest) : url ? new UrlSource(url) : new FilesSource(files);
    opened = await openPackage(source, store);
    const { name, variants, config } = opened;
    return { name, variants, config };
  },

  async load({ variant, device, threads }) {
    transcriber = live = null;
    const shared = await opened.shared();
    const model = await opened.variant(variant, (bytes, all) => postMessage({ event: "progress", bytes, all }));
    const module = await ort[device]();
    module.env.wasm.numThreads = threads;
    module.env.wasm.wasmPaths = new URL("./ort/", import.meta.url).href;
    const session = await Session.open(module, model, { device });
    transcriber = new Transcriber(session, shared);
  },

  /** Begins live audio. Its packets come by the port of an AudioWorklet, or by `feed`. */
  async start({ rate, port, ...options }) {
    if (!transcriber) throw new PageError("No model is loaded.", { todo: "load one first" });
    const stream = { stream: transcriber.start({ rate, ...options }), rate, tail: Promise.resolve(), waiting: 0, audio: 0, work: 0 };
    if (port) {
      // The last packet may come behind the request to finish, which takes another way.
      stream.ended = new Promise((resolve) => {
        port.onmessage = ({ data }) => (data.end ? resolve() : feed(stream, data.samples));
      });
    }
    live = stream;
  },

  async finish() {
    const ending = live;
    await ending.ended;
    await ending.tail;
    try {
      if (ending.error) throw ending.error;
      if (live === ending) report(ending, await timed(ending, () => ending.stream.finish()));
    } finally {
      if (live === ending) live = null;
    }
    return { tokens: Array.from(ending.stream.tokens), audio: ending.audio, work: ending.work };
  },

  async transcribe({ samples, rate, ...options }) {
    await methods.start({ rate, ...options });
    const size = FILE_PACKET_S * rate;
    for (let at = 0; at < samples.length; at += size) feed(live, samples.subarray(at, at + size));
    return methods.finish();
  },

  /** Ends the live audio where it is: what waits is not transcribed. */
  async cancel() {
    live = null;
  },
};

/** Queues a packet behind those before. */
function feed(stream, samples) {
  const seconds = samples.length / stream.rate;
  stream.waiting += seconds;
  stream.tail = stream.tail.then(async () => {
    if (stream.error || live !== stream) return;
    try {
      const result = await timed(stream, () => stream.stream.feed(samples));
      stream.audio += seconds;
      stream.waiting -= seconds;
      report(stream, result);
    } catch (error) {
      stream.error = error; // `finish` states it
    }
  });
}

async function timed(stream, work) {
  const started = performance.now();
  const result = await work();
  stream.work += (performance.now() - started) / 1000;
  return result;
}

function report({ audio, work, waiting }, { words, tentative }) {
  postMessage({ event: "words", words, tentative, audio, work, waiting: Math.max(0, waiting) });
}

function messageOf(error) {
  return error instanceof PageError ? error.message : `Something failed: ${error?.message ?? error}`;
}

onmessage = async ({ data: { id, method, argument } }) => {
  try {
    postMessage({ id, result: await methods[method](argument) });
  } catch (error) {
    postMessage({ id, error: messageOf(error) });
  }
};
