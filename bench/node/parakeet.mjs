// parakeet.js on a package of the layout parakeet-js. job: {folder, suffix, bands, ownMel}
import { dirname } from "node:path";
import { createRequire } from "node:module";
import { existsSync, readFileSync } from "node:fs";
import { fileURLToPath, pathToFileURL } from "node:url";
import { ParakeetModel } from "parakeet.js";
import { floats, main, windowsOf } from "./job.mjs";

// parakeet.js 1.4.4 takes the runtime's WebAssembly from a network, whatever its option wasmPaths says, unless it is set there.
const runtime = dirname(createRequire(fileURLToPath(import.meta.resolve("parakeet.js"))).resolve("onnxruntime-web"));
const { env } = await import(pathToFileURL(`${runtime}/ort.node.min.mjs`));
env.wasm.wasmPaths = pathToFileURL(`${runtime}/`).href;

main(async ({ folder, suffix, bands, ownMel }) => {
  const names = { encoder: `encoder-model${suffix}.onnx`, decoder: `decoder_joint-model${suffix}.onnx` };
  const data = (name) => (existsSync(`${folder}/${name}.data`) ? `${folder}/${name}.data` : null);
  const vocabulary = readFileSync(`${folder}/vocab.txt`).toString("base64");
  const model = await ParakeetModel.fromUrls({
    encoderUrl: `${folder}/${names.encoder}`,
    decoderUrl: `${folder}/${names.decoder}`,
    encoderDataUrl: data(names.encoder),
    decoderDataUrl: data(names.decoder),
    tokenizerUrl: `data:text/plain;base64,${vocabulary}`,
    filenames: names,
    backend: "wasm",
    cpuThreads: 1,
    nMels: bands,
  });
  return async (clip) => {
    const given = ownMel ? {} : { precomputedFeatures: features(clip.mel) };
    const options = { returnTokenIds: true, enableProfiling: false, ...given };
    const { utterance_text: text, tokenIds: tokens } = await model.transcribe(floats(clip.samples), 16000, options);
    return { text, tokens };
  };
});

const features = (mel) => {
  const [{ mel: values, size }] = windowsOf(mel);
  return { features: values.slice(), T: size, melBins: mel.bands };
};
