// Our graphs in onnxruntime-node, or in the WebAssembly of onnxruntime-web, behind the modules of our page in web/page/asr.
// job: {package: "onnxruntime-node" | "onnxruntime-web", folder, variant, asr}; folder: a build, or a package of the layout native;
// asr: where the modules are.
import { existsSync, readFileSync } from "node:fs";
import { floats, main, windowsOf } from "./job.mjs";

main(async ({ package: runtime, folder, variant, asr, ownMel }) => {
  const page = (name) => import(`${asr}/${name}.js`);
  const [{ Session }, { Stream }, { readPieces, Spelling }] = [await page("session"), await page("stream"), await page("spelling")];
  const ort = await import(runtime);
  if (runtime === "onnxruntime-web") ort.env.wasm.numThreads = 1;
  const providers = runtime === "onnxruntime-web" ? ["wasm"] : ["cpu"];
  const options = { executionProviders: providers, intraOpNumThreads: 1, interOpNumThreads: 1, logSeverityLevel: 3 };
  const open = (name) => {
    const path = `${folder}/${variant}/${name}`;
    const beside = existsSync(`${path}.data`) ? [{ path: `${name}.data`, data: readFileSync(`${path}.data`) }] : [];
    return ort.InferenceSession.create(readFileSync(path), { ...options, externalData: beside });
  };
  const config = JSON.parse(readFileSync(`${folder}/config.json`, "utf8"));
  const session = new Session(ort, config, await open("encoder_model.onnx"), await open("decoder_model.onnx"));
  const bank = floats(`${folder}/shared/filterbank.bin`);
  const spelling = `${folder}/shared/spelling.json`;
  const rule = existsSync(spelling) ? readFileSync(spelling, "utf8") : null;
  const vocabulary = readPieces(readFileSync(`${folder}/shared/tokens.txt`, "utf8"), rule);
  return async (clip) => {
    const stream = new Stream(session, bank);
    if (ownMel) {
      await stream.feed(floats(clip.samples));
      await stream.finish();
    } else {
      const caches = session.newCaches();
      for (const window of windowsOf(clip.mel)) {
        const { frames, length, width } = await session.encode(window, caches, null);
        await stream.decoded.decode(frames, length, width);
      }
    }
    const { tokens } = stream.decoded;
    const text = new Spelling(vocabulary);
    return { text: text.feed(tokens) + text.finish(), tokens };
  };
});
