// Scores of a frame, or of frames.

/** Returns the place of the highest of `values` from `start` to `stop`, counted from `start`. */
export function argmax(values, start, stop) {
  let best = start;
  for (let i = start; i < stop; i++) if (values[i] > values[best]) best = i;
  return best - start;
}

/** Whether no value is NaN and the highest one is finite. */
export function isFinite(values) {
  let most = -Infinity;
  for (const value of values) {
    if (Number.isNaN(value)) return false;
    if (value > most) most = value;
  }
  return most > -Infinity && most < Infinity;
}
