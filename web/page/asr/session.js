// An encoder and a decoder graph in onnxruntime-web. One session serves any number of streams.

import { KvCaches, NemoCaches, NoCaches } from "./caches.js";
import { GpuKvCaches } from "./caches_gpu.js";
import { PageError } from "./errors.js";
import { isFinite } from "./scores.js";

export class Session {
  /** ort: the module onnxruntime-web; model: { config, encoder, decoder }, each graph { graph: Uint8Array, data: [{ path, data }] };
   * device: "wasm" or "webgpu". */
  static async open(ort, model, { device = "wasm" } = {}) {
    const options = { executionProviders: [device], graphOptimizationLevel: "all", logSeverityLevel: 3 };
    const kept = device === "webgpu" ? cacheOutputs(ort, model.config.encoder) : [];
    const preferredOutputLocation = Object.fromEntries(kept.map((name) => [name, "gpu-buffer"]));
    const encoder = await opened(ort, model.encoder, { ...options, preferredOutputLocation }, "encoder");
    // The decoder runs a few small products for each token: to a GPU and back takes longer.
    const decoder = await opened(ort, model.decoder, { ...options, executionProviders: ["wasm"] }, "decoder");
    const gpu = device === "webgpu" ? await ort.env.webgpu.device : null;
    return new Session(ort, model.config, encoder, decoder, gpu);
  }

  constructor(ort, config, encoder, decoder, gpu) {
    Object.assign(this, { ort, config, _encoder: encoder, _decoder: decoder, _gpu: gpu });
  }

  newCaches() {
    const { encoder } = this.config;
    const { inputNames } = this._encoder;
    if (inputNames.includes("cache_last_channel")) return new NemoCaches(this.ort, encoder);
    if (!inputNames.includes("cache_len")) return new NoCaches();
    return this._gpu ? new GpuKvCaches(this.ort, encoder, this._gpu) : new KvCaches(this.ort, encoder);
  }

  /** Encodes a window of chunker.js. prompt: slot of the language, or null. Resolves to { frames, length, width }, frame after
   * frame, with `caches` advanced. */
  async encode(window, caches, prompt) {
    const { ort } = this;
    const bands = window.mel.length / window.size;
    const feeds = {
      audio_signal: new ort.Tensor("float32", window.mel, [1, bands, window.size]),
      length: new ort.Tensor("int64", BigInt64Array.of(BigInt(window.length)), [1]),
      ...caches.feeds(),
    };
    if (prompt !== null) feeds.prompt_index = new ort.Tensor("int64", BigInt64Array.of(BigInt(prompt)), [1]);
    const found = await this._encoder.run(feeds, ["outputs", "encoded_lengths", ...caches.outputs]);
    caches.advance(found);
    const [, width, count] = found.outputs.dims;
    const length = Number(found.encoded_lengths.data[0]);
    const frames = new Float32Array(length * width);
    for (let d = 0; d < width; d++) for (let t = 0; t < length; t++) frames[t * width + d] = found.outputs.data[d * count + t];
    return { frames, length, width };
  }

  /** Scores `count` frames, f32 [count * width], behind a token, see greedy.js. */
  async step(frames, count, token, hidden, cell) {
    const { ort, config } = this;
    const width = frames.length / count;
    const turned = new Float32Array(frames.length);
    for (let t = 0; t < count; t++) for (let d = 0; d < width; d++) turned[d * count + t] = frames[t * width + d];
    const encoded = new ort.Tensor("float32", turned, [1, width, count]);
    if (config.ctc) {
      const { logprobs } = await this._decoder.run({ encoder_outputs: encoded }, ["logprobs"]);
      return { scores: logprobs.data };
    }
    const shape = config.decoder.state_shape;
    const known = {
      encoder_outputs: encoded,
      targets: new ort.Tensor("int32", Int32Array.of(token), [1, 1]),
      target_length: new ort.Tensor("int32", Int32Array.of(1), [1]),
      input_states_1: new ort.Tensor("float32", hidden, shape),
      input_states_2: new ort.Tensor("float32", cell, shape),
    };
    // A graph may have pruned the unused target_length.
    const feeds = Object.fromEntries(this._decoder.inputNames.map((name) => [name, known[name]]));
    const found = await this._decoder.run(feeds, ["outputs", "output_states_1", "output_states_2"]);
    const [after, memory] = [found.output_states_1.data, found.output_states_2.data].map(finite);
    return { scores: found.outputs.data, hidden: after, cell: memory };
  }
}

/** Names of all that either layout's graph returns of its caches. */
function cacheOutputs(ort, encoder) {
  return encoder.cache_shapes ? [new NemoCaches(ort, encoder), new KvCaches(ort, encoder)].flatMap(({ outputs }) => outputs) : [];
}

/** States that an overflow in fp16 spoiled become zeros, so that a later frame can be decoded. */
function finite(state) {
  return isFinite(state) ? state : state.map((value) => (Number.isFinite(value) ? value : 0));
}

async function opened(ort, { graph, data }, options, what) {
  try {
    return await ort.InferenceSession.create(graph, data.length ? { ...options, externalData: data } : options);
  } catch (error) {
    throw new PageError(`The ${what} cannot be loaded.`, {
      expected: "a graph and its weights, as they were built, and the memory for them",
      found: String(error.message ?? error).split("\n")[0].slice(0, 300),
      todo: "close other tabs, take a smaller variant, or download the package again",
    });
  }
}
