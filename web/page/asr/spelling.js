// Token ids become text, as nemoport/tokens.py.

import { PageError } from "./errors.js";
import { Utf8Decoder } from "./utf8.js";

export const WORD_START = "\u2581"; // SentencePiece writes a leading space as this
export const LANGUAGE_TAG = /\s*<([a-z]{2}-[A-Z]{2})>/gu; // what NeMo removes from its text
const BYTE_PIECE = /^<0x([0-9A-Fa-f]{2})>$/u;
const BEFORE_TAG = /\s*(<[A-Za-z-]{0,5})?$/u; // the end of a text that a tag may follow or complete
const SPECIAL_PIECE = /^(\s*<.+>|\[.+\])$/u;
const USUAL = { silent: [], events: [], plain: [], unknown: "<unk>", unknown_text: " \u2047 ", leading_spaces: "all" };

/** Reads tokens.txt and, of a model that spells in its own way, spelling.json: { pieces, rule }. */
export function readPieces(tokens, spelling = null) {
  const pieces = tokens
    .split("\n")
    .filter((line) => line)
    .map((line, i) => {
      const space = line.lastIndexOf(" ");
      if (space < 1 || line.slice(space + 1) !== String(i)) {
        throw new PageError(`tokens.txt, line ${i + 1} is not a token.`, {
          expected: `a piece, a space and ${i}`,
          found: line.slice(0, 40),
          todo: "download the package again",
        });
      }
      return line.slice(0, space);
    });
  return { pieces, rule: { ...USUAL, ...(spelling ? JSON.parse(spelling) : {}) } };
}

/** The byte that a piece stands for; null for any other piece. */
export function byteOf(piece) {
  const found = BYTE_PIECE.exec(piece);
  return found ? parseInt(found[1], 16) : null;
}

/** Whether a piece is no text but a sign of its own: <unk>, a language tag, a byte piece. */
export function isSpecial(piece) {
  return SPECIAL_PIECE.test(piece.replace(new RegExp(`^${WORD_START}+`, "u"), ""));
}

/** Spells the tokens of a stream as they come. All that `feed` and `finish` return is the text. */
export class Spelling {
  /** vocabulary: of readPieces; withTags: whether language tags stay. */
  constructor({ pieces, rule }, { withTags = true } = {}) {
    this._pieces = pieces;
    this._rule = rule;
    this._withTags = withTags;
    this._silent = new Set(rule.silent);
    this._events = new Set(rule.events);
    this._plain = new Set(rule.plain);
    this._decoder = new Utf8Decoder();
    this._keepsSpace = rule.leading_spaces === "none";
    this._spelledAny = false;
    this._ended = false; // whether an event stands behind the text so far
    this._held = ""; // may become a tag, or stand before one
  }

  /** Takes tokens and returns the text that later ones cannot change. */
  feed(ids) {
    let text = this._held + Array.from(ids, (id) => this._spelled(id)).join("");
    if (this._withTags) return text;
    text = text.replace(LANGUAGE_TAG, "");
    const kept = text.length - BEFORE_TAG.exec(text)[0].length;
    this._held = text.slice(kept);
    return text.slice(0, kept);
  }

  finish() {
    return this._held + this._apart(this._decoder.finish());
  }

  _spelled(id) {
    const piece = this._pieces[id];
    if (this._events.has(id)) {
      const rest = this._apart(this._decoder.finish());
      this._keepsSpace = this._rule.leading_spaces === "none";
      this._ended = this._spelledAny;
      return rest;
    }
    const byte = this._plain.has(id) ? null : byteOf(piece);
    if (byte !== null) {
      this._keepsSpace = true;
      return this._apart(this._decoder.feed(byte));
    }
    const rest = this._apart(this._decoder.finish()); // a character's bytes stand side by side
    return this._silent.has(id) ? rest : rest + this._apart(this._piece(piece));
  }

  _piece(piece) {
    const { unknown, unknown_text: unknownText, leading_spaces: leading } = this._rule;
    const bare = !this._keepsSpace && piece.startsWith(WORD_START) ? piece.slice(1) : piece;
    const text = piece === unknown ? unknownText : bare.replaceAll(WORD_START, " ");
    this._keepsSpace = this._keepsSpace || Boolean(text) || leading === "one";
    return text;
  }

  _apart(text) {
    if (!text) return "";
    const space = this._ended && !text.startsWith(" ") ? " " : "";
    this._spelledAny = true;
    this._ended = false;
    return space + text;
  }
}
