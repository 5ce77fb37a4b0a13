// Hotwords in greedy decoding, as nemoport/hotwords.py: phrases that are favoured, matched on the text that the tokens spell.

import { PageError } from "./errors.js";
import { byteOf, isSpecial, WORD_START } from "./spelling.js";

export const DEFAULT_BOOST = 1.5; // log score a token
const REACH = 6; // a boost lifts no token that is less likely than the best one by more
const SPACE = 0x20;
const encoder = new TextEncoder();

export class Hotwords {
  /** pieces: of tokens.txt, by id. A match is an array of nodes of the prefix tree, those that the end of the text matches. */
  constructor(pieces, phrases, boost = DEFAULT_BOOST) {
    this.start = [];
    this._spelled = pieces.map(spelled);
    this._children = [new Map()];
    this._value = [0];
    this._whole = new Set(); // nodes at which a phrase is complete
    const known = new Set(this._spelled.map(String));
    const longest = Math.max(...this._spelled.map((bytes) => bytes.length));
    for (const phrase of phrases) {
      const text = encoder.encode(` ${phrase.normalize("NFKC").toLowerCase().split(/\s+/u).filter(Boolean).join(" ")}`);
      const fewest = fewestPieces(text, known, longest);
      if (text.length === 1 || fewest.at(-1) === null) {
        throw new PageError(`This model's vocabulary cannot spell the hotword "${phrase}".`, {
          expected: "characters of its tokens (tokens.txt)",
          todo: "spell the phrase as the model would write it",
        });
      }
      this._add(text, fewest, boost);
    }
  }

  _add(text, fewest, boost) {
    let node = 0;
    text.forEach((byte, i) => {
      if (!this._children[node].has(byte)) {
        this._children[node].set(byte, this._children.length);
        this._children.push(new Map());
        this._value.push(0);
      }
      node = this._children[node].get(byte);
      // A beginning that needs many pieces has no more than the phrase that it becomes. A space alone begins any word.
      const least = i > 0 ? Math.min(...fewest.slice(i + 1).filter((count) => count !== null)) : 0;
      this._value[node] = Math.max(this._value[node], boost * least);
    });
    this._whole.add(node);
  }

  /** Returns the match after one more token. */
  advance(match, token) {
    let now = match;
    for (const byte of this._spelled[token]) now = this._read(now, byte);
    return now;
  }

  /** Returns the token that is emitted where blank is not the best, of scores f32 [V]: the best one, with the boost of what
   * continues a hotword. What breaks a phrase off costs nothing: greedy decoding takes nothing back. */
  choose(match, scores) {
    let most = -Infinity;
    for (const score of scores) if (score > most) most = score;
    const before = this._pending(match);
    let best = 0;
    let highest = -Infinity;
    scores.forEach((score, token) => {
      const gain = score >= Math.fround(most - REACH) ? Math.max(this._gain(match, before, token), 0) : 0;
      if (score + gain > highest) {
        highest = score + gain;
        best = token;
      }
    });
    return best;
  }

  /** What a token adds to the score: as far as it goes on in a phrase, what was pending counts once; phrases that end in it keep
   * theirs. */
  _gain(match, before, token) {
    const bytes = this._spelled[token];
    if (!bytes.length) return 0;
    let now = match;
    let kept = 0;
    for (const byte of bytes) {
      if (this._ends(byte)) kept += this._kept(now);
      now = this._read(now, byte);
    }
    return kept + this._pending(now) - before;
  }

  _read(match, byte) {
    const nodes = byte === SPACE ? [...match, 0] : match;
    return nodes.flatMap((node) => this._children[node].get(byte) ?? []);
  }

  _ends(byte) {
    return byte < 0x80 && !/[0-9A-Za-z]/u.test(String.fromCharCode(byte));
  }

  _pending(match) {
    return match.reduce((most, node) => Math.max(most, this._value[node]), 0);
  }

  _kept(match) {
    return match.reduce((most, node) => Math.max(most, this._whole.has(node) ? this._value[node] : 0), 0);
  }
}

/** Returns the bytes that a piece spells, in lower case. Tags and the unknown piece are a byte that no phrase has. */
function spelled(piece) {
  const byte = byteOf(piece);
  if (byte !== null) return Uint8Array.of(byte);
  return isSpecial(piece) ? Uint8Array.of(0) : encoder.encode(piece.replaceAll(WORD_START, " ").toLowerCase());
}

/** Returns the least number of pieces that spell each beginning of the text, by its length; null where no piece ends. */
function fewestPieces(text, known, longest) {
  const fewest = [0];
  for (let end = 1; end <= text.length; end++) {
    let least = null;
    for (let start = Math.max(0, end - longest); start < end; start++) {
      const before = fewest[start];
      if (before === null || !known.has(String(text.subarray(start, end)))) continue;
      if (least === null || before + 1 < least) least = before + 1;
    }
    fewest.push(least);
  }
  return fewest;
}
