// transformers.js on a package of the layout transformers-js, which it takes from a folder. job: {folder, dtype, ownMel}
import { basename, dirname } from "node:path";
import { env, pipeline, Tensor } from "@huggingface/transformers";
import { floats, main, windowsOf } from "./job.mjs";

main(async ({ folder, dtype, ownMel }) => {
  env.allowRemoteModels = false;
  env.localModelPath = `${dirname(folder)}/`;
  const session_options = { intraOpNumThreads: 1, interOpNumThreads: 1 };
  const transcribe = await pipeline("automatic-speech-recognition", basename(folder), { dtype, session_options });
  return async (clip) => {
    if (!ownMel) transcribe.processor = given(clip.mel, transcribe.processor);
    return { text: (await transcribe(floats(clip.samples))).text };
  };
});

// Takes the place of the feature extractor. Bands come first in the file, frames in transformers.js.
const given = (mel, { feature_extractor }) => {
  const [{ mel: values, size }] = windowsOf(mel);
  const rows = new Tensor("float32", values.slice(), [1, mel.bands, size]).permute(0, 2, 1);
  const mask = new Tensor("int64", new BigInt64Array(size).fill(1n), [1, size]);
  return Object.assign(async () => ({ input_features: rows, attention_mask: mask }), { feature_extractor });
};
