// One live stream, or one recording: samples in packets of any size become tokens. As nemoport/stream.py, greedy.

import { OfflineChunker, StreamingChunker } from "./chunker.js";
import { Ctc, Transducer } from "./greedy.js";
import { isFinite } from "./scores.js";

export class Stream {
  /** session: of session.js; filterbank: f32; lookahead: in encoder frames, of a streaming model, by default that of config.json;
   * prompt: slot of the language; hotwords: of hotwords.js. */
  constructor(session, filterbank, { lookahead = null, prompt = null, hotwords = null } = {}) {
    const { config } = session;
    const streaming = Boolean(config.encoder.chunks_by_lookahead);
    this._session = session;
    this._prompt = prompt;
    this._chunker = streaming
      ? new StreamingChunker(config, filterbank, lookahead ?? config.encoder.default_lookahead)
      : new OfflineChunker(config, filterbank);
    this._caches = session.newCaches();
    const step = (...request) => session.step(...request);
    this.decoded = config.ctc ? new Ctc(config, step, hotwords) : new Transducer(config, step, hotwords);
    this.restarts = 0; // how often the encoder began anew, because its frames were not finite
  }

  /** Takes samples, f32 [n], mono, at the model's rate, and runs the windows that they complete. */
  async feed(samples) {
    for (const window of this._chunker.feed(samples)) await this._run(window);
  }

  /** Ends the audio and runs the last windows. */
  async finish() {
    for (const window of this._chunker.finish()) await this._run(window);
    this._caches.release?.();
  }

  async _run(window) {
    const { frames, length, width } = await this._session.encode(window, this._caches, this._prompt);
    if (length && !isFinite(frames)) {
      this._caches.release?.();
      this._caches = this._session.newCaches();
      this.restarts += 1;
      this.decoded.frame += length; // the whole chunk is blank
      return;
    }
    await this.decoded.decode(frames, length, width);
  }
}
