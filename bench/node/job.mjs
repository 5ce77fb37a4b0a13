// What the programs of this folder share: a job is a JSON file whose path is the first argument, its result is printed as JSON.
//
// job: {clips: [{id, samples, mel}], ownMel, ...}; samples: file of f32 at 16 kHz; mel: {file, bands, windows: [{length, size}]}, the
// windows of nemoport one behind the other, each f32 [bands, size]; an offline model has one. ownMel: they are not used.
// warm: how often the first clip is transcribed before, by default once; V8 compiles WebAssembly anew where it is hot.
// result: {clips: [{id, text, tokens?}], seconds}; seconds: of processor time, without opening, the first clip counted the second time.

import { readFileSync, writeSync } from "node:fs";

export const floats = (path) => {
  const bytes = readFileSync(path);
  return new Float32Array(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length));
};

export function windowsOf({ file, bands, windows }) {
  const all = floats(file);
  let at = 0;
  return windows.map(({ length, size }) => ({ mel: all.subarray(at, (at += bands * size)), length, size }));
}

const processorSeconds = () => {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1e6;
};

/** Runs open(job), which resolves to clip => {text, tokens?}, over all clips. What a package prints goes to stderr. */
export async function main(open) {
  console.log = console.info = console.debug = console.table = console.error;
  const job = JSON.parse(readFileSync(process.argv[2], "utf8"));
  const transcribe = await open(job);
  for (let i = 0; i < (job.warm ?? 1); i++) await transcribe(job.clips[0]); // memory is taken and code compiled at first use
  const started = processorSeconds();
  const clips = [];
  for (const clip of job.clips) clips.push({ id: clip.id, ...(await transcribe(clip)) });
  const result = Buffer.from(JSON.stringify({ clips, seconds: processorSeconds() - started }));
  for (let at = 0; at < result.length; ) at += writeSync(1, result, at);
  process.exit(0); // threads of a runtime may still wait
}
