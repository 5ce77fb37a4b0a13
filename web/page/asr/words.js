// Words with their times, as nemoport/words.py. A word is { text, start, end, isLast }, times in seconds; isLast: whether an event
// of the model's ended the utterance behind it.

import { LANGUAGE_TAG, Spelling, WORD_START } from "./spelling.js";

const NOT_TEXT = /^(\[.*\]|<.*>|##.*|\u2581.*|\s*)$/u; // pieces that no punctuation is taken from
const SENTENCE_ENDS = [".", "?", "!"];

/** Returns the marks that belong to the word before them. */
export function punctuationOf(pieces) {
  const marks = pieces.filter((piece) => !NOT_TEXT.test(piece)).flatMap((piece) => [...piece]);
  return new Set(marks.filter((char) => /^\p{P}$/u.test(char) && !/^[\p{Ps}\p{Pi}\u00bf\u00a1]$/u.test(char)));
}

/** Puts the tokens of one stream together to words, as they come. */
export class WordTimes {
  /** vocabulary: of readPieces; config: config.json. */
  constructor(vocabulary, config) {
    this._pieces = vocabulary.pieces;
    this._punctuation = punctuationOf(vocabulary.pieces);
    this._events = new Set(Object.values(config.events?.tokens ?? {}));
    this._frame = config.frame_seconds;
    this._lasting = Boolean(config.decoder?.durations?.length) || Boolean(config.ctc);
    this._prompt = Boolean(config.prompt);
    this._spelling = new Spelling(vocabulary);
    this._lastEnd = 0; // of the token before
    this._word = null; // not complete
  }

  /** Text of the last word, which may go on. */
  get incomplete() {
    return this._word ? this._text(this._word.text) : "";
  }

  /** Takes a token, its first encoder frame and how many frames it lasts, and returns the words that it completes. */
  feed(token, frame, duration) {
    const words = [];
    const { _pieces: pieces } = this;
    const piece = pieces[token].startsWith(WORD_START) ? pieces[token].slice(1) : pieces[token];
    let start = frame * this._frame;
    let lasts = duration * this._frame;
    let text = this._spelling.feed([token]);
    if (this._events.has(token)) {
      this._complete(words, text, true);
      return words;
    }
    if (this._prompt && new RegExp(`^${LANGUAGE_TAG.source}$`, "u").test(piece)) {
      text = text.replace(LANGUAGE_TAG, "");
      if (!text) return words;
    } else if (count(text, " ") < count(pieces[token], WORD_START)) {
      text = ` ${text}`; // the text's first spaces go, but a word begins
    }
    let parts = text.split(" "); // each behind the first begins a word
    const mark = this._punctuation.has(piece);
    if (mark && this._lasting && this._word) {
      start = this._lastEnd;
      lasts = 0;
    }
    const end = (this._lastEnd = start + (this._lasting ? lasts : this._frame));
    if (this._word && mark && this._word.text) parts = [parts.join("")];
    const goesOn = this._word && (parts[0] || parts.length === 1);
    const begins = this._word ? parts.slice(1) : parts;
    if (goesOn) this._word = { text: this._word.text + parts[0], start: this._word.start, end };
    for (const part of begins) {
      this._complete(words, "", false);
      this._word = { text: part, start, end };
    }
    return words;
  }

  /** Returns the last word, if there is one. */
  finish() {
    const words = [];
    this._complete(words, this._spelling.finish(), false);
    return words;
  }

  _complete(words, rest, isLast) {
    const text = this._word ? this._text(this._word.text + rest) : "";
    if (text) words.push({ ...this._word, text, isLast });
    this._word = null;
  }

  _text(text) {
    return this._prompt ? text.replace(LANGUAGE_TAG, "") : text;
  }
}

function count(text, char) {
  return text.split(char).length - 1;
}

/** Joins words to segments: one ends with a sentence, behind an event, and before a pause of `pause` seconds. */
export function segmentsOf(words, pause = Infinity) {
  const segments = [];
  words.forEach((word, i) => {
    const before = words[i - 1];
    const begins =
      !before || before.isLast || SENTENCE_ENDS.includes(before.text.at(-1)) || word.start - before.end >= pause;
    if (begins) segments.push([]);
    segments.at(-1).push(word);
  });
  return segments;
}
