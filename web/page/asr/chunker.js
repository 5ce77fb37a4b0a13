// Windows of mel frames for an encoder, cut as nemoport/chunker.py does with the flush rule "full".
// A window is { mel, length }: mel f32 [n_mels * size], row major, zeros behind `length` frames.

import { PageError } from "./errors.js";
import { joined, LogMel, LogMelStream } from "./mel.js";

export class StreamingChunker {
  /** config: config.json; filterbank: f32; lookahead: in encoder frames. */
  constructor(config, filterbank, lookahead) {
    this._sizes = config.encoder.chunks_by_lookahead[lookahead];
    if (!this._sizes) {
      throw new PageError(`Lookahead ${lookahead} is not one of this model's.`, {
        expected: `one of ${Object.keys(config.encoder.chunks_by_lookahead).join(", ")}`,
        found: String(lookahead),
        todo: "choose one of these",
      });
    }
    this._mel = new LogMelStream(config.spec.frontend, filterbank);
    this._bands = config.spec.frontend.n_mels;
    this._past = config.encoder.pre_encode_cache_mel_frames;
    this._pending = []; // frames that no window has had as new ones
    this._cache = null; // the frames before them; null before the first window
  }

  /** Takes samples, f32 [n], and returns the windows that they complete. */
  feed(samples) {
    this._pending.push(...this._mel.feed(samples));
    return this._full();
  }

  /** Returns the last windows of the stream. */
  finish() {
    this._pending.push(...this._mel.finish());
    const windows = this._full();
    if (this._pending.length) windows.push(this._cut(this._pending.length));
    return windows;
  }

  _new() {
    return this._cache ? this._sizes.new_mel_frames : this._sizes.first_window_mel_frames;
  }

  _full() {
    const windows = [];
    while (this._pending.length >= this._new()) windows.push(this._cut(this._new()));
    return windows;
  }

  _cut(count) {
    const size = this._cache ? this._sizes.window_mel_frames : this._sizes.first_window_mel_frames;
    const frames = [...(this._cache ?? []), ...this._pending.splice(0, count)];
    const zero = new Float32Array(this._bands);
    const missing = Math.max(0, this._past - frames.length);
    const known = [...Array(missing).fill(zero), ...frames];
    this._cache = known.slice(known.length - this._past);
    return windowOf(frames, this._bands, size);
  }
}

export class OfflineChunker {
  constructor(config, filterbank) {
    this._mel = new LogMel(config.spec.frontend, filterbank);
    this._packets = [];
  }

  feed(samples) {
    this._packets.push(samples.slice());
    return [];
  }

  /** Returns the window of the whole recording; none if it is shorter than a mel frame. */
  finish() {
    const mel = this._mel.whole(joined(this._packets));
    return mel.length ? [windowOf(mel, this._mel.spec.n_mels, mel.length)] : [];
  }
}

/** Lays frames out band by band, zeros behind them. */
export function windowOf(frames, bands, size) {
  const mel = new Float32Array(bands * size);
  frames.forEach((frame, t) => {
    for (let band = 0; band < bands; band++) mel[band * size + t] = frame[band];
  });
  return { mel, length: frames.length, size };
}
