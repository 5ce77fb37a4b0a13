// UTF-8 bytes that come one at a time. As Python's decoder with "surrogateescape": each byte that is part of no character becomes
// one U+FFFD.

export class Utf8Decoder {
  constructor() {
    this._bytes = [];
  }

  /** Takes a byte and returns the characters that became certain. */
  feed(byte) {
    this._bytes.push(byte);
    return this._read(false);
  }

  /** Returns what is left. */
  finish() {
    return this._read(true);
  }

  _read(final) {
    let out = "";
    while (this._bytes.length) {
      const size = wellFormed(this._bytes);
      if (size === 0) {
        if (!final) break;
        out += "\ufffd";
        this._bytes.shift();
      } else if (size < 0) {
        out += "\ufffd";
        this._bytes.shift();
      } else {
        out += new TextDecoder().decode(Uint8Array.from(this._bytes.splice(0, size)));
      }
    }
    return out;
  }
}

/** Returns the length of the character that the bytes begin with; 0 where more bytes could complete one; -1 where none can. */
function wellFormed(bytes) {
  const [first, second] = bytes;
  if (first < 0x80) return 1;
  const size = first >= 0xc2 && first < 0xe0 ? 2 : first >= 0xe0 && first < 0xf0 ? 3 : first >= 0xf0 && first < 0xf5 ? 4 : -1;
  if (size < 0) return -1;
  const low = { 0xe0: 0xa0, 0xf0: 0x90 }[first] ?? 0x80;
  const high = { 0xed: 0x9f, 0xf4: 0x8f }[first] ?? 0xbf;
  if (bytes.length > 1 && (second < low || second > high)) return -1;
  for (let i = 2; i < Math.min(size, bytes.length); i++) if ((bytes[i] & 0xc0) !== 0x80) return -1;
  return bytes.length >= size ? size : 0;
}
