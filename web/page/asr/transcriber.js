// A package, opened: live audio or a recording becomes words. What the worker does, without the browser.

import { PageError } from "./errors.js";
import { Hotwords } from "./hotwords.js";
import { merged, windowsOf } from "./long_audio.js";
import { Resampler } from "./resampler.js";
import { Stream } from "./stream.js";
import { WordTimes } from "./words.js";

const PASS_S = 60; // the longest pass of an offline model here: its memory grows with the length, and a browser has 4 GB
const OVERLAP_S = 15;

export class Transcriber {
  /** session: of session.js; shared: of Package.shared. */
  constructor(session, { filterbank, vocabulary }) {
    Object.assign(this, { session, config: session.config, _filterbank: filterbank, _vocabulary: vocabulary });
    this.rate = this.config.spec.frontend.sample_rate_hz;
    this.streaming = Boolean(this.config.encoder.chunks_by_lookahead);
  }

  /** Returns a new live stream. rate: of its samples; language: its name, of a model with a prompt; hotwords: phrases;
   * lookahead: in encoder frames. */
  start({ rate = this.rate, language = null, hotwords = [], lookahead = null } = {}) {
    const boosted = hotwords.length ? new Hotwords(this._vocabulary.pieces, hotwords) : null;
    const options = { prompt: slotOf(this.config, language), hotwords: boosted, lookahead };
    const open = () => new Stream(this.session, this._filterbank, options);
    const words = new WordTimes(this._vocabulary, this.config);
    const resampler = new Resampler(rate, this.rate);
    return this.streaming ? new Live(open(), words, resampler) : new Whole(open, words, resampler, this);
  }
}

class Live {
  constructor(stream, words, resampler) {
    Object.assign(this, { _stream: stream, _words: words, _resampler: resampler, _taken: 0 });
    this.tokens = stream.decoded.tokens;
  }

  /** Takes samples and resolves to { words: those that are final now, tentative: text of the one that may go on }. */
  async feed(samples) {
    await this._stream.feed(this._resampler.feed(samples));
    return this._found(this._stream.decoded.nFinal);
  }

  /** Ends the audio. Resolves as `feed`. */
  async finish() {
    await this._stream.feed(this._resampler.finish());
    await this._stream.finish();
    const { words } = this._found(this.tokens.length);
    return { words: [...words, ...this._words.finish()], tentative: "" };
  }

  _found(stop) {
    const { tokens, tokenFrames, tokenDurations } = this._stream.decoded;
    const words = [];
    for (; this._taken < stop; this._taken++) {
      const i = this._taken;
      words.push(...this._words.feed(tokens[i], tokenFrames[i], tokenDurations[i]));
    }
    return { words, tentative: this._words.incomplete };
  }
}

/** A recording for an offline model, which transcribes it at its end, in windows where it is long. */
class Whole {
  constructor(open, words, resampler, { rate, config }) {
    Object.assign(this, { _open: open, _words: words, _resampler: resampler, _rate: rate, _frame: config.frame_seconds });
    this._packets = [];
    this.tokens = [];
  }

  async feed(samples) {
    this._packets.push(this._resampler.feed(samples).slice());
    return { words: [], tentative: "" };
  }

  async finish() {
    const all = await new Blob([...this._packets, this._resampler.finish()]).arrayBuffer();
    const samples = new Float32Array(all);
    const parts = [];
    for (const [start, end] of windowsOf(samples.length, PASS_S * this._rate, OVERLAP_S * this._rate)) {
      const stream = this._open();
      await stream.feed(samples.subarray(start, end));
      await stream.finish();
      const { tokens, tokenFrames, tokenDurations } = stream.decoded;
      const timed = tokens.map((token, i) => ({ token, seconds: tokenFrames[i] * this._frame, duration: tokenDurations[i] }));
      parts.push({ start: start / this._rate, tokens: timed });
    }
    const found = merged(parts);
    this.tokens = found.map(({ token }) => token);
    const words = found.flatMap(({ token, seconds, duration }) => this._words.feed(token, seconds / this._frame, duration));
    return { words: [...words, ...this._words.finish()], tentative: "" };
  }
}

function slotOf(config, language) {
  const languages = config.prompt?.languages;
  if (!languages) return null;
  if (!(language in languages)) {
    throw new PageError("This model needs a language.", {
      expected: `one of ${Object.keys(languages).slice(0, 8).join(", ")}, ...`,
      found: String(language),
      todo: "choose one",
    });
  }
  return languages[language];
}
