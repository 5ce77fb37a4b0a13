// SubRip and WebVTT, as nemoport/formats.py.

import { segmentsOf } from "./words.js";

// Of a cue: two lines of 42 characters, for seven seconds at most, as broadcasters ask for.
const LINE_CHARACTERS = 42;
const LINES = 2;
const LONGEST_S = 7;
const SHORTEST_S = 1;
const PAUSE_S = 1;

/** words: of words.js. */
export function asSrt(words) {
  const blocks = cues(words).map(
    ({ start, end, text }, i) => `${i + 1}\n${clock(start, ",")} --> ${clock(end, ",")}\n${wrapped(text).join("\n")}\n`,
  );
  return blocks.join("\n");
}

export function asVtt(words) {
  const blocks = cues(words).map(
    ({ start, end, text }) => `${clock(start, ".")} --> ${clock(end, ".")}\n${escaped(wrapped(text).join("\n"))}\n`,
  );
  return ["WEBVTT\n", ...blocks].join("\n");
}

/** Divides words into subtitles: at sentences, pauses and events, and where one would be too long. */
export function cues(words) {
  const parts = segmentsOf(words, PAUSE_S).flatMap(divided);
  return parts.map((part, i) => {
    const start = part[0].start;
    const least = Math.max(part.at(-1).end, start + SHORTEST_S);
    const following = parts[i + 1];
    const end = following ? Math.max(start, Math.min(least, following[0].start)) : least;
    return { start, end, text: textOf(part) };
  });
}

function textOf(words) {
  return words.map(({ text }) => text).join(" ");
}

function divided(words) {
  const parts = [[]];
  for (const word of words) {
    const part = parts.at(-1);
    const full = wrapped(textOf([...part, word])).length > LINES;
    if (part.length && (full || word.end - part[0].start > LONGEST_S)) parts.push([]);
    parts.at(-1).push(word);
  }
  return parts;
}

/** Breaks a text into lines as Python's textwrap.fill does: between words, and within those that are longer than a line. Lengths
 * are in code points. */
function wrapped(text) {
  const chunks = (text.match(/[\t\n\v\f\r ]+|[^\t\n\v\f\r ]+/gu) ?? []).map((chunk) => [...chunk]);
  const isBlank = (chunk) => chunk.join("").trim() === "";
  const lines = [];
  while (chunks.length) {
    if (lines.length && isBlank(chunks[0])) chunks.shift();
    const line = [];
    let room = LINE_CHARACTERS;
    while (chunks.length && chunks[0].length <= room) {
      room -= chunks[0].length;
      line.push(chunks.shift());
    }
    if (chunks.length && chunks[0].length > LINE_CHARACTERS) line.push(chunks[0].splice(0, room));
    if (line.length && isBlank(line.at(-1))) line.pop();
    if (line.length) lines.push(line.flat().join(""));
  }
  return lines;
}

function escaped(text) {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
}

function clock(seconds, point) {
  const milliseconds = roundHalfEven(seconds * 1000);
  const parts = [milliseconds / 3_600_000, (milliseconds / 60_000) % 60, (milliseconds / 1000) % 60];
  const [hours, minutes, rest] = parts.map((part) => String(Math.floor(part)).padStart(2, "0"));
  return `${hours}:${minutes}:${rest}${point}${String(milliseconds % 1000).padStart(3, "0")}`;
}

function roundHalfEven(value) {
  const down = Math.floor(value);
  return value - down === 0.5 ? down + (down % 2) : Math.round(value);
}
