// sherpa-onnx's WebAssembly on a package of the layout sherpa-onnx, as the card's example feeds the Python one.
// job: {suffix, folder, head, streaming, bands}
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { floats, main } from "./job.mjs";

main(async ({ folder, suffix, head, streaming, bands }) => {
  const sherpa = createRequire(import.meta.url)("sherpa-onnx");
  const { sherpa_onnx: rules } = JSON.parse(readFileSync(`${folder}/config.json`, "utf8"));
  const path = (part) => `${folder}/${part}${suffix}.onnx`;
  const transducer = { encoder: path("encoder"), decoder: path("decoder"), joiner: path("joiner") };
  const model = head === "ctc" ? { nemoCtc: { model: path("model") } } : { transducer };
  const modelConfig = {
    ...model,
    tokens: `${folder}/tokens.txt`,
    numThreads: 1,
    provider: "cpu",
    debug: 0,
    modelType: !streaming && head !== "ctc" ? "nemo_transducer" : "",
  };
  const config = { featConfig: { sampleRate: 16000, featureDim: bands }, modelConfig };
  const recognizer = streaming ? sherpa.createOnlineRecognizer(config) : sherpa.createOfflineRecognizer(config);
  const around = (samples) => {
    const all = new Float32Array((rules.lead_samples ?? 0) + samples.length + (rules.tail_samples ?? 0));
    all.set(samples, (rules.lead_samples ?? 0));
    return all;
  };
  return (clip) => {
    const stream = recognizer.createStream();
    stream.acceptWaveform(16000, around(floats(clip.samples)));
    if (streaming) {
      stream.inputFinished();
      while (recognizer.isReady(stream)) recognizer.decode(stream);
    } else recognizer.decode(stream);
    const { text } = recognizer.getResult(stream);
    stream.free();
    return { text: text.trim() };
  };
});
