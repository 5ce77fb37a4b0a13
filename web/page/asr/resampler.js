// Resampling of a stream in packets: a windowed sinc in one filter for each phase. Linear phase; above 0.9 of the lower rate's
// half, the level falls; what would fold back is 100 dB down.

import { PageError } from "./errors.js";
import { joined } from "./mel.js";

const CROSSINGS = 48; // of the sinc, to each side
const ROLLOFF = 0.95;
const BETA = 11; // of the Kaiser window
const MOST_PHASES = 4096;

export class Resampler {
  constructor(rate, target) {
    const divisor = gcd(rate, target);
    this._up = target / divisor;
    this._down = rate / divisor;
    if (!Number.isInteger(rate) || this._up > MOST_PHASES) {
      throw new PageError("Audio of this rate cannot be resampled here.", {
        expected: `a whole number of samples a second, such as 48000`,
        found: String(rate),
        todo: `convert it to ${target} Hz`,
      });
    }
    const cutoff = rate === target ? 1 : ROLLOFF * Math.min(1, target / rate);
    this._half = Math.ceil(CROSSINGS / cutoff); // input samples that a filter reaches to each side
    this._filters = Array.from({ length: this._up }, (_, phase) => filterOf(phase / this._up, this._half, cutoff));
    this._held = new Float32Array(this._half - 1); // from input sample `_first` on; zeros ahead of the stream
    this._first = 1 - this._half;
    this._in = 0;
    this._out = 0;
  }

  /** Takes samples and returns those that became final. */
  feed(samples) {
    if (this._up === this._down) return samples;
    this._in += samples.length;
    this._held = joined([this._held, samples]);
    return this._emit(Infinity);
  }

  /** Returns the rest: ceil(n * target / rate) samples come of n. */
  finish() {
    if (this._up === this._down || !this._in) return new Float32Array(0);
    this._held = joined([this._held, new Float32Array(2 * this._half)]);
    return this._emit(Math.ceil((this._in * this._up) / this._down));
  }

  _emit(most) {
    const out = [];
    const end = this._first + this._held.length;
    for (; this._out < most; this._out++) {
      const place = this._out * this._down;
      const centre = Math.floor(place / this._up); // the sample before the new one
      if (centre + this._half >= end) break;
      const filter = this._filters[place % this._up];
      const at = centre - this._half + 1 - this._first;
      let sum = 0;
      for (let k = 0; k < filter.length; k++) sum += filter[k] * this._held[at + k];
      out.push(sum);
    }
    const needed = Math.floor((this._out * this._down) / this._up) - this._half + 1;
    this._held = this._held.slice(Math.max(0, needed - this._first));
    this._first = Math.max(this._first, needed);
    return Float32Array.from(out);
  }
}

/** Weights of the input samples from `half - 1` before to `half` behind the place `fraction` after a sample. */
function filterOf(fraction, half, cutoff) {
  const weights = Float64Array.from({ length: 2 * half }, (_, k) => {
    const x = k - half + 1 - fraction;
    const share = Math.min(1, Math.abs(x) / half);
    const sinc = x === 0 ? cutoff : Math.sin(Math.PI * cutoff * x) / (Math.PI * x);
    return (sinc * bessel(BETA * Math.sqrt(1 - share * share))) / bessel(BETA);
  });
  const sum = weights.reduce((a, b) => a + b);
  return weights.map((weight) => weight / sum); // a constant keeps its level in every phase
}

/** The modified Bessel function of the first kind and order 0. */
function bessel(x) {
  let term = 1;
  let sum = 1;
  for (let k = 1; term > sum * 1e-17; k++) {
    term *= (x / (2 * k)) ** 2;
    sum += term;
  }
  return sum;
}

function gcd(a, b) {
  return b ? gcd(b, a % b) : a;
}
