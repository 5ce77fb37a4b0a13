// Calls functions of web/page/asr for test_web.py: reads { name, argument } from standard input and writes the result as JSON.

import { readFileSync } from "node:fs";

const asr = (name) => import(`../web/page/asr/${name}.js`);
const rows = (frames) => frames.map((frame) => Array.from(frame));

/** A step of scores that are in a table: [frame][token before]. */
function tableStep(table, blank) {
  return async (frames, count, token = blank, hidden = null, cell = null) => {
    const scores = Float32Array.from(Array.from(frames.subarray(0, count)).flatMap((frame) => table[frame][token].map((x) => x ?? NaN)));
    return { scores, hidden, cell };
  };
}

const calls = {
  async mel({ spec, filterbank, samples, packets }) {
    const { LogMel, LogMelStream } = await asr("mel");
    const bank = Float32Array.from(filterbank);
    const all = Float32Array.from(samples);
    if (!packets) return rows(new LogMel(spec, bank).whole(all));
    const stream = new LogMelStream(spec, bank);
    let at = 0;
    const parts = packets.map((size) => stream.feed(all.subarray(at, (at += size))));
    return [...parts, stream.finish()].map(rows);
  },

  async preferred({ names, device }) {
    return (await import("../web/page/ui/model.js")).preferred(names, device);
  },

  async torchSum(values) {
    const { torchSum } = await asr("torch_sum");
    return values.map((row) => torchSum(Float32Array.from(row)));
  },

  async windows({ config, filterbank, samples, lookahead, packet }) {
    const { StreamingChunker } = await asr("chunker");
    const chunker = new StreamingChunker(config, Float32Array.from(filterbank), lookahead);
    const windows = [];
    for (let at = 0; at < samples.length; at += packet) {
      windows.push(...chunker.feed(Float32Array.from(samples.slice(at, at + packet))));
    }
    return [...windows, ...chunker.finish()].map(({ mel, length, size }) => ({ mel: Array.from(mel), length, size }));
  },

  async greedy({ config, table, chunks, pieces, phrases, boost }) {
    const { Ctc, Transducer } = await asr("greedy");
    const { Hotwords } = await asr("hotwords");
    const step = tableStep(table, (config.decoder ?? config.ctc).blank_id);
    const hotwords = phrases ? new Hotwords(pieces, phrases, boost) : null;
    const decoded = new (config.ctc ? Ctc : Transducer)(config, step, hotwords);
    const finals = [];
    for (const chunk of chunks) {
      await decoded.decode(Float32Array.from(chunk), chunk.length, 1);
      finals.push(decoded.nFinal);
    }
    return [decoded.tokens, decoded.tokenFrames, decoded.tokenDurations, finals];
  },

  async words({ config, tokens, spelling, timed }) {
    const { readPieces, Spelling } = await asr("spelling");
    const { segmentsOf, WordTimes } = await asr("words");
    const { asSrt, asVtt } = await asr("subtitles");
    const vocabulary = readPieces(tokens, spelling);
    return timed.map((stream) => {
      const times = new WordTimes(vocabulary, config);
      const text = new Spelling(vocabulary, { withTags: !config.prompt });
      const spelled = stream.map(([token]) => text.feed([token])).join("") + text.finish();
      const words = [...stream.flatMap(([token, frame, duration]) => times.feed(token, frame, duration)), ...times.finish()];
      const segments = segmentsOf(words, 1).map((part) => part.length);
      return { spelled, words: words.map(({ text, start, end, isLast }) => [text, start, end, isLast]), segments, srt: asSrt(words), vtt: asVtt(words) };
    });
  },

  async resample({ rate, target, samples, packet }) {
    const { Resampler } = await asr("resampler");
    const resampler = new Resampler(rate, target);
    const out = [];
    for (let at = 0; at < samples.length; at += packet) {
      out.push(...resampler.feed(Float32Array.from(samples.slice(at, at + packet))));
    }
    return [...out, ...resampler.finish()];
  },

  async merge(parts) {
    const { merged } = await asr("long_audio");
    return merged(parts).map(({ token, seconds, duration }) => [token, seconds, duration]);
  },

  async windowsOf([count, size, overlap]) {
    return (await asr("long_audio")).windowsOf(count, size, overlap);
  },

  async caches({ encoder, chunks }) {
    const { KvCaches } = await asr("caches");
    class Tensor {
      constructor(type, data, dims) {
        Object.assign(this, { type, data, dims });
      }
    }
    const caches = new KvCaches({ Tensor }, encoder);
    return chunks.map((found) => {
      caches.advance(Object.fromEntries(Object.entries(found).map(([name, { data, dims }]) => [name, { data: Float32Array.from(data), dims }])));
      return Object.fromEntries(Object.entries(caches.feeds()).map(([name, { data }]) => [name, Array.from(data, Number)]));
    });
  },

  async wav(bytes) {
    const { readWav, writeWav } = await asr("wav");
    const found = readWav(Uint8Array.from(bytes).buffer);
    if (!found) return null;
    const again = readWav(await writeWav(found.samples, found.rate).arrayBuffer());
    return { samples: Array.from(found.samples), rate: found.rate, again: Array.from(again.samples) };
  },

  async open({ files, variant }) {
    const { FilesSource } = await asr("sources");
    const { openPackage } = await asr("package");
    const blobs = Object.entries(files).map(([path, bytes]) => ({ path, file: new Blob([Buffer.from(bytes, "base64")]) }));
    try {
      const found = await openPackage(new FilesSource(blobs));
      const { vocabulary } = await found.shared();
      const { encoder } = await found.variant(variant ?? found.variants[0].name);
      return { variants: found.variants, pieces: vocabulary.pieces.length, data: encoder.data.map(({ path }) => path) };
    } catch (error) {
      return { error: error.message, kind: error.name };
    }
  },

  async url(texts) {
    const { folderUrl } = await asr("sources");
    return texts.map((text) => {
      try {
        return folderUrl(text);
      } catch (error) {
        return error.message;
      }
    });
  },
};

const { name, argument } = JSON.parse(readFileSync(0, "utf8"));
process.stdout.write(JSON.stringify(await calls[name](argument)));
