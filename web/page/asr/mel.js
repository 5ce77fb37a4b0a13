// Log-mel features equal to nemoport's (nemoport/frontend.py), which are NeMo's. A frame is a Float32Array [n_mels].

import { PageError } from "./errors.js";
import { PowerSpectrum } from "./fft.js";
import { torchSum } from "./torch_sum.js";

const { fround } = Math;

/** torch.hann_window(periodic=False), whose angles are float32. */
function hannWindow(size) {
  const step = fround((2 * Math.PI) / (size - 1));
  return Float32Array.from({ length: size }, (_, i) => 0.5 - fround(0.5 * fround(Math.cos(fround(i * step)))));
}

export class LogMel {
  /** spec: `frontend` of config.json; filterbank: f32 [n_mels * (n_fft / 2 + 1)], of filterbank.bin. */
  constructor(spec, filterbank) {
    const bins = spec.n_fft / 2 + 1;
    const known = ["NA", "per_feature"].includes(spec.normalize) && spec.hop_samples < spec.win_samples - 1;
    if (!known || filterbank.length !== spec.n_mels * bins || !filterbank.every(Number.isFinite)) {
      throw new PageError("The front end cannot be computed.", {
        expected: `a finite filterbank of ${spec.n_mels} x ${bins}, normalised per feature or not at all`,
        found: `${filterbank.length} values, ${JSON.stringify(spec)}`,
        todo: "download the package again",
      });
    }
    this.spec = spec;
    this.spectrum = new PowerSpectrum(spec.n_fft);
    // The window is zero at both ends; without them a frame is final one sample earlier.
    this.window = hannWindow(spec.win_samples).subarray(1, spec.win_samples - 1);
    this.before = spec.n_fft / 2 - Math.floor((spec.n_fft - spec.win_samples) / 2) - 1;
    this.after = this.window.length - this.before; // frame f covers [hop f - before, hop f + after)
    this._bands = Array.from({ length: spec.n_mels }, (_, band) => {
      const row = filterbank.subarray(band * bins, (band + 1) * bins);
      const used = [...row.keys()].filter((k) => row[k] !== 0);
      const first = used.length ? used[0] : 0;
      return { first, weights: row.slice(first, used.length ? used.at(-1) + 1 : 1) };
    });
    this._frame = new Float64Array(this.window.length);
    this._power = new Float64Array(bins);
  }

  /** Filters f32 [1 + n] to f32 [n]. The first input is the sample before them. */
  preemphasis(samples) {
    const emphasis = fround(this.spec.preemphasis);
    const out = new Float32Array(samples.length - 1);
    for (let i = 0; i < out.length; i++) out[i] = samples[i + 1] - fround(emphasis * samples[i]);
    return out;
  }

  /** Computes `count` frames. signal: f32, after preemphasis, from `before` samples ahead of the first frame's centre. */
  frames(signal, count) {
    const { window, spec } = this;
    const guard = fround(spec.log_guard);
    return Array.from({ length: count }, (_, f) => {
      const at = f * spec.hop_samples;
      for (let i = 0; i < window.length; i++) this._frame[i] = fround(signal[at + i] * window[i]);
      this.spectrum.compute(this._frame, this._power);
      return Float32Array.from(this._bands, ({ first, weights }) => {
        let energy = 0;
        for (let k = 0; k < weights.length; k++) energy += this._power[first + k] * weights[k];
        return Math.log(fround(fround(energy) + guard));
      });
    });
  }

  /** Computes the frames of a whole recording, f32 [n]. */
  whole(samples) {
    const count = Math.floor(samples.length / this.spec.hop_samples);
    const before = new Float32Array(samples.length + 1);
    before.set(samples, 1);
    const signal = new Float32Array(this.before + samples.length + this.after);
    signal.set(this.preemphasis(before), this.before);
    const mel = this.frames(signal, count);
    return this.spec.normalize === "per_feature" && count ? perFeature(mel) : mel;
  }
}

/** Normalises each band to mean 0 and deviation 1, rounded as NeMo's normalize_batch of one utterance. */
export function perFeature(mel) {
  const count = mel.length;
  const row = new Float32Array(count + 1); // NeMo's extra frame is in its sums, as 0
  const out = mel.map((frame) => new Float32Array(frame.length));
  for (let band = 0; band < mel[0].length; band++) {
    for (let t = 0; t < count; t++) row[t] = mel[t][band];
    const mean = fround(torchSum(row) / count);
    for (let t = 0; t < count; t++) {
      out[t][band] = row[t] - mean;
      row[t] = fround(out[t][band] * out[t][band]);
    }
    const variance = fround(torchSum(row) / Math.max(count - 1, 1));
    const deviation = fround(fround(Math.sqrt(variance)) + fround(1e-5));
    for (let t = 0; t < count; t++) out[t][band] = out[t][band] / deviation;
  }
  return out;
}

/** Log-mel of one stream. The frames of all `feed` and of `finish` are those of `LogMel.whole`. */
export class LogMelStream {
  constructor(spec, filterbank) {
    this._mel = new LogMel(spec, filterbank);
    this._signal = new Float32Array(this._mel.before); // after preemphasis, from the next frame's start
    this._waiting = []; // packets since the last frame
    this._last = 0; // the sample before them
    this._samples = 0;
    this._frames = 0;
  }

  /** Takes samples, f32 [n], and returns the frames that became final. */
  feed(samples) {
    const { hop_samples: hop } = this._mel.spec;
    this._waiting.push(samples.slice());
    this._samples += samples.length;
    const needed = Math.max(this._mel.after, hop);
    return this._emit(Math.max(0, Math.floor((this._samples - needed) / hop) + 1 - this._frames), 0);
  }

  /** Returns the remaining frames, with zeros behind the signal. */
  finish() {
    return this._emit(Math.floor(this._samples / this._mel.spec.hop_samples) - this._frames, this._mel.after);
  }

  _emit(count, zeros) {
    if (count <= 0) return [];
    const samples = joined([Float32Array.of(this._last), ...this._waiting]);
    const signal = joined([this._signal, this._mel.preemphasis(samples), new Float32Array(zeros)]);
    this._signal = signal.slice(count * this._mel.spec.hop_samples);
    this._last = samples.at(-1);
    this._waiting = [];
    this._frames += count;
    return this._mel.frames(signal, count);
  }
}

/** Joins Float32Arrays. */
export function joined(parts) {
  const out = new Float32Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    out.set(part, at);
    at += part.length;
  }
  return out;
}
