// Recordings that are longer than one pass of an offline model: windows that overlap, merged where their tokens agree, as
// nemoport/long_audio.py. A part is { start, tokens: [{ token, frame, duration }] }, frames and start in seconds.

const SAME_TIME_S = 0.4; // two windows may put a token some frames apart

/** Returns [start, end] in samples of each window of a recording: the last one is as long as the others. */
export function windowsOf(count, size, overlap) {
  const windows = [];
  for (let start = 0; ; start += size - overlap) {
    if (start + size >= count) return [...windows, [Math.max(0, count - size), count]];
    windows.push([start, start + size]);
  }
}

/** Merges parts: [{ start, tokens: [{ token, seconds, ... }] }], times from the part's own start. */
export function merged(parts) {
  const [first, ...rest] = parts.map(({ start, tokens }) => ({
    start,
    tokens: tokens.map((one) => ({ ...one, seconds: one.seconds + start })),
  }));
  return rest.reduce((before, { start, tokens }) => {
    const [kept, skipped] = seam(before, tokens, start);
    return [...before.slice(0, kept), ...tokens.slice(skipped)];
  }, first.tokens);
}

function seam(before, after, start) {
  const place = (list, test) => (list.findIndex(test) < 0 ? list.length : list.findIndex(test));
  const first = place(before, ({ seconds }) => seconds >= start);
  const end = before.reduce((most, { seconds }) => Math.max(most, seconds), before.length ? -Infinity : start);
  const last = place(after, ({ seconds }) => seconds > end);
  const left = before.slice(first);
  const right = after.slice(0, last);
  let best = 0;
  let at = null;
  for (const [i, j, size] of matchingBlocks(left.map((one) => one.token), right.map((one) => one.token))) {
    const close = [];
    for (let k = 0; k < size; k++) if (Math.abs(left[i + k].seconds - right[j + k].seconds) <= SAME_TIME_S) close.push(k);
    if (close.length > best) {
      const middle = close[Math.floor(close.length / 2)];
      best = close.length;
      at = [first + i + middle, j + middle];
    }
  }
  if (at) return at;
  const middle = (start + end) / 2; // nothing in common: one of them is silent there, or they disagree
  const behind = ({ seconds }) => seconds >= middle;
  return [place(before, behind), place(after, behind)];
}

/** The blocks [i, j, size] that two arrays share, in order: those of Python's difflib.SequenceMatcher without its heuristic. */
export function matchingBlocks(a, b) {
  const places = new Map();
  b.forEach((token, j) => places.set(token, [...(places.get(token) ?? []), j]));
  const found = [];
  const waiting = [[0, a.length, 0, b.length]];
  while (waiting.length) {
    const [fromA, toA, fromB, toB] = waiting.pop();
    const [i, j, size] = longest(a, places, fromA, toA, fromB, toB);
    if (!size) continue;
    found.push([i, j, size]);
    if (fromA < i && fromB < j) waiting.push([fromA, i, fromB, j]);
    if (i + size < toA && j + size < toB) waiting.push([i + size, toA, j + size, toB]);
  }
  found.sort((one, other) => one[0] - other[0] || one[1] - other[1]);
  return found.reduce((joined, [i, j, size]) => {
    const before = joined.at(-1);
    if (before && before[0] + before[2] === i && before[1] + before[2] === j) before[2] += size;
    else joined.push([i, j, size]);
    return joined;
  }, []);
}

function longest(a, places, fromA, toA, fromB, toB) {
  let best = [fromA, fromB, 0];
  let lengths = new Map(); // of the matches that end at each place of b
  for (let i = fromA; i < toA; i++) {
    const next = new Map();
    for (const j of places.get(a[i]) ?? []) {
      if (j < fromB) continue;
      if (j >= toB) break;
      const size = (lengths.get(j - 1) ?? 0) + 1;
      next.set(j, size);
      if (size > best[2]) best = [i - size + 1, j - size + 1, size];
    }
    lengths = next;
  }
  return best;
}
