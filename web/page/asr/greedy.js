// Greedy decoding of transducers, RNNT and TDT, and of CTC: as nemoport/decode.py and nemoport/ctc.py.
// `step(frames, count, token, hidden, cell)` resolves to { scores: f32 [count * n_scores], hidden, cell }.

import { argmax, isFinite } from "./scores.js";

const AHEAD_FRAMES = 16; // scored with a prefix in one call

export class Transducer {
  /** config: config.json; step: scores frames; hotwords: of hotwords.js, or null. */
  constructor(config, step, hotwords = null) {
    const { decoder, spec } = config;
    this._step = step;
    this._blank = decoder.blank_id;
    this._durations = decoder.durations ?? [];
    this._most = decoder.max_symbols_per_frame;
    this._resetting = new Set(spec.events && spec.events.resets !== false ? Object.values(config.events.tokens) : []);
    this._zeros = () => new Float32Array(decoder.state_shape.reduce((a, b) => a * b));
    this._hotwords = hotwords;
    this._match = hotwords?.start;
    this.frame = 0; // encoder frames decoded so far
    this.tokens = [];
    this.tokenFrames = [];
    this.tokenDurations = [];
    this._beginAnew();
  }

  /** Tokens that audio to come cannot change. */
  get nFinal() {
    return this.tokens.length;
  }

  _beginAnew() {
    this._token = this._blank;
    this._hidden = this._zeros();
    this._cell = this._zeros();
  }

  /** Decodes one chunk. frames: f32 [length * width], one encoder frame after another. */
  async decode(frames, length, width) {
    let position = 0;
    let symbols = 0;
    while (position < length) {
      const end = Math.min(AHEAD_FRAMES, length - position);
      const part = frames.subarray(position * width, (position + end) * width);
      const { scores, hidden, cell } = await this._step(part, end, this._token, this._hidden, this._cell);
      const all = scores.length / end;
      const row = (at) => scores.subarray(at * all, (at + 1) * all);
      let at = 0;
      let best = 0;
      let skip = 0;
      while (at < end) {
        const finite = isFinite(row(at)); // as they are not after an overflow in fp16
        best = finite ? argmax(row(at), 0, this._blank + 1) : this._blank;
        skip = this._durations[finite ? argmax(row(at), this._blank + 1, all) : 0] ?? 0;
        if (best !== this._blank) break;
        at += Math.max(skip, 1);
      }
      if (at) {
        position += at;
        symbols = 0;
      }
      if (at >= end) continue;
      const token = this._hotwords ? this._hotwords.choose(this._match, row(at).subarray(0, this._blank)) : best;
      if (this._hotwords) this._match = this._hotwords.advance(this._match, token);
      this._token = token;
      this._hidden = hidden;
      this._cell = cell;
      this.tokens.push(token);
      this.tokenFrames.push(this.frame + position);
      this.tokenDurations.push(skip);
      symbols += 1;
      if (this._resetting.has(token)) {
        this._beginAnew();
        skip = 0;
        symbols = this._most;
      }
      if (skip || symbols === this._most) {
        position += Math.max(skip, 1);
        symbols = 0;
      }
    }
    this.frame += length;
  }
}

export class Ctc {
  constructor(config, step, hotwords = null) {
    this._step = step;
    this._blank = config.ctc.blank_id;
    this._hotwords = hotwords;
    this._match = hotwords?.start;
    this._open = null; // best token of the last frame, whose run may go on
    this.frame = 0;
    this.tokens = [];
    this.tokenFrames = [];
    this.tokenDurations = [];
  }

  /** Tokens that audio to come cannot change: all but one whose run may go on. */
  get nFinal() {
    return this.tokens.length - (this._open === null ? 0 : 1);
  }

  async decode(frames, length) {
    const { scores } = await this._step(frames, length);
    const all = scores.length / Math.max(length, 1);
    for (let t = 0; t < length; t++) this._advance(scores.subarray(t * all, (t + 1) * all));
  }

  _advance(scores) {
    const token = isFinite(scores) ? argmax(scores, 0, scores.length) : this._blank;
    const before = this.tokens.at(-1);
    if (token === this._blank) {
      this._open = null;
    } else if (this._open !== null && (token === this._open || token === before)) {
      this._open = token;
      this.tokenDurations[this.tokenDurations.length - 1] += 1;
    } else {
      let emitted = token;
      if (this._hotwords) {
        const allowed = scores.slice(0, this._blank);
        if (this._open !== null) allowed[before] = -Infinity; // without a blank between, it would go on
        emitted = this._hotwords.choose(this._match, allowed);
        this._match = this._hotwords.advance(this._match, emitted);
      }
      this._open = token;
      this.tokens.push(emitted);
      this.tokenFrames.push(this.frame);
      this.tokenDurations.push(1);
    }
    this.frame += 1;
  }
}
