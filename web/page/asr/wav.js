// WAV files: read without the browser, which would resample them, and written for playback.

const FORMATS = {
  "1/8": [1, (view, at) => (view.getUint8(at) - 128) / 128],
  "1/16": [2, (view, at) => view.getInt16(at, true) / 32768],
  "1/24": [3, (view, at) => ((view.getInt8(at + 2) << 16) | view.getUint16(at, true)) / 8388608],
  "1/32": [4, (view, at) => view.getInt32(at, true) / 2147483648],
  "3/32": [4, (view, at) => view.getFloat32(at, true)],
};
const EXTENSIBLE = 0xfffe;

/** Returns { samples: f32 [n], the mean of all channels, rate } of a WAV file, an ArrayBuffer; null for any other file. */
export function readWav(buffer) {
  const view = new DataView(buffer);
  const name = (at) => (at + 4 <= view.byteLength ? String.fromCharCode(...new Uint8Array(buffer, at, 4)) : "");
  if (name(0) !== "RIFF" || name(8) !== "WAVE") return null;
  let format = null;
  for (let at = 12; at + 8 <= view.byteLength; ) {
    const size = view.getUint32(at + 4, true);
    if (name(at) === "fmt " && at + 8 + 16 <= view.byteLength) {
      const tag = view.getUint16(at + 8, true);
      const own = tag === EXTENSIBLE && size >= 26 ? view.getUint16(at + 32, true) : tag;
      const reader = FORMATS[`${own}/${view.getUint16(at + 22, true)}`];
      if (!reader) return null;
      format = { channels: view.getUint16(at + 10, true), rate: view.getUint32(at + 12, true), reader };
    } else if (name(at) === "data" && format) {
      return samplesOf(view, at + 8, Math.min(size, view.byteLength - at - 8), format);
    }
    at += 8 + size + (size % 2);
  }
  return null;
}

function samplesOf(view, start, size, { channels, rate, reader: [width, read] }) {
  if (!channels || !rate) return null;
  const samples = new Float32Array(Math.floor(size / (width * channels)));
  for (let i = 0; i < samples.length; i++) {
    let sum = 0;
    for (let c = 0; c < channels; c++) sum += read(view, start + (i * channels + c) * width);
    samples[i] = sum / channels;
  }
  return { samples, rate };
}

/** Returns a 16-bit WAV file of samples, f32 [n]. */
export function writeWav(samples, rate) {
  const view = new DataView(new ArrayBuffer(44 + 2 * samples.length));
  const text = (at, value) => [...value].forEach((char, i) => view.setUint8(at + i, char.charCodeAt(0)));
  text(0, "RIFF");
  view.setUint32(4, 36 + 2 * samples.length, true);
  text(8, "WAVEfmt ");
  view.setUint32(16, 16, true);
  view.setUint16(20, 1, true);
  view.setUint16(22, 1, true);
  view.setUint32(24, rate, true);
  view.setUint32(28, 2 * rate, true);
  view.setUint16(32, 2, true);
  view.setUint16(34, 16, true);
  text(36, "data");
  view.setUint32(40, 2 * samples.length, true);
  samples.forEach((sample, i) => view.setInt16(44 + 2 * i, Math.max(-1, Math.min(1, sample)) * 32767, true));
  return new Blob([view], { type: "audio/wav" });
}
