// The power spectrum of real frames in float64, by a radix-2 transform.

import { PageError } from "./errors.js";

export class PowerSpectrum {
  /** size: of the transform, a power of 2. */
  constructor(size) {
    if (size < 2 || size & (size - 1)) {
      throw new PageError("The front end cannot be computed here.", {
        expected: "an n_fft that is a power of 2",
        found: String(size),
        todo: "use nemoport transcribe, or another checkpoint",
      });
    }
    this.size = size;
    this.real = new Float64Array(size);
    this.imaginary = new Float64Array(size);
    const half = size / 2;
    this._cosine = Float64Array.from({ length: half }, (_, k) => Math.cos((2 * Math.PI * k) / size));
    this._sine = Float64Array.from({ length: half }, (_, k) => -Math.sin((2 * Math.PI * k) / size));
    const bits = Math.log2(size);
    this._reversed = Uint32Array.from({ length: size }, (_, i) => {
      let out = 0;
      for (let b = 0; b < bits; b++) out |= ((i >> b) & 1) << (bits - 1 - b);
      return out;
    });
  }

  /** samples: f64 [<= size], zeros behind. out: f64 [size / 2 + 1], the squared magnitudes. */
  compute(samples, out) {
    const { size, real, imaginary, _cosine: cosine, _sine: sine, _reversed: reversed } = this;
    for (let i = 0; i < size; i++) {
      real[reversed[i]] = i < samples.length ? samples[i] : 0;
      imaginary[i] = 0;
    }
    for (let length = 2; length <= size; length *= 2) {
      const half = length / 2;
      const step = size / length;
      for (let start = 0; start < size; start += length) {
        for (let k = 0; k < half; k++) {
          const a = start + k;
          const b = a + half;
          const c = cosine[k * step];
          const s = sine[k * step];
          const re = real[b] * c - imaginary[b] * s;
          const im = real[b] * s + imaginary[b] * c;
          real[b] = real[a] - re;
          imaginary[b] = imaginary[a] - im;
          real[a] += re;
          imaginary[a] += im;
        }
      }
    }
    for (let k = 0; k <= size / 2; k++) out[k] = real[k] * real[k] + imaginary[k] * imaginary[k];
  }
}
