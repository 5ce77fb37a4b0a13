// torch's float32 sum, rounding for rounding: see nemoport/torch_sum.py, which says why it matters and what the order is.

const { fround } = Math;
const LANES = 8;
const INTERLEAVED = 4;
const BLOCK = 16;
const LEVELS = 4;

/** Sums a row, f32 [k], as torch.sum does on an x86 CPU. */
export function torchSum(row) {
  const lanes = row.length >= LANES ? LANES : 1;
  const steps = Math.floor(row.length / lanes);
  const whole = Math.floor(steps / INTERLEAVED) * INTERLEAVED;
  const width = INTERLEAVED * lanes;
  const sums = cascade(row, whole / INTERLEAVED, width);
  const total = sums.slice(0, lanes);
  for (let step = whole; step < steps; step++) add(total, row, step * lanes);
  for (let i = 1; i < INTERLEAVED; i++) add(total, sums, i * lanes);
  let out = 0;
  for (let i = steps * lanes; i < row.length; i++) out = fround(out + row[i]);
  for (const lane of total) out = fround(out + lane);
  return out;
}

/** Sums `count` parts of `width` values, block by block. */
function cascade(row, count, width) {
  let parts = row;
  const rests = [];
  for (let level = 1; level < LEVELS; level++) {
    const blocks = Math.floor(count / BLOCK);
    const rest = new Float32Array(width);
    for (let part = blocks * BLOCK; part < count; part++) add(rest, parts, part * width);
    rests.push(rest);
    const sums = new Float32Array(blocks * width);
    for (let block = 0; block < blocks; block++) {
      const sum = sums.subarray(block * width, (block + 1) * width);
      for (let i = 0; i < BLOCK; i++) add(sum, parts, (block * BLOCK + i) * width);
    }
    parts = sums;
    count = blocks;
  }
  const top = new Float32Array(width);
  for (let part = 0; part < count; part++) add(top, parts, part * width);
  const total = new Float32Array(width);
  for (const one of [...rests, top]) add(total, one, 0);
  return total;
}

function add(total, values, at) {
  for (let i = 0; i < total.length; i++) total[i] += values[at + i];
}
