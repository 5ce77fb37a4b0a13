// What a stream's encoder keeps from chunk to chunk, in the layouts of nemoport/caches.py. `feeds` gives the inputs of the next
// chunk, `advance` takes the outputs of this one.

export class NoCaches {
  outputs = [];
  feeds() {
    return {};
  }
  advance() {}
}

/** NeMo's own layout: whole caches come back, and are fed as they are. On a GPU they stay there. */
export class NemoCaches {
  constructor(ort, encoder) {
    const shapes = Object.entries(encoder.cache_shapes);
    this._held = Object.fromEntries(shapes.map(([name, dims]) => [name, zeros(ort, name.endsWith("_len"), dims)]));
    this._next = Object.fromEntries(shapes.map(([name]) => [name, nextName(name)]));
    this.outputs = Object.values(this._next);
  }

  feeds() {
    return this._held;
  }

  advance(found) {
    for (const [name, next] of Object.entries(this._next)) {
      if (this._held[name].location === "gpu-buffer") this._held[name].dispose();
      this._held[name] = found[next];
    }
  }

  /** Gives memory of a GPU back. */
  release() {
    for (const held of Object.values(this._held)) if (held.location === "gpu-buffer") held.dispose();
  }
}

function nextName(name) {
  return name.endsWith("_len") ? `${name.slice(0, -4)}_next_len` : `${name}_next`;
}

const SPARE = 4; // a cache lies in a buffer so many times as long, and is moved only at the buffer's end

/** The fast layout: the graph returns what a chunk adds, frames first; a cache is a window that slides over a longer buffer. */
export class KvCaches {
  constructor(ort, encoder) {
    this._ort = ort;
    this._caches = Object.entries(encoder.kv_cache_shapes)
      .filter(([name]) => name !== "cache_len")
      .map(([name, dims]) => {
        const frame = dims.slice(1).reduce((a, b) => a * b);
        const buffer = new Float32Array(SPARE * dims[0] * frame);
        return { name, added: addedName(name), dims, buffer, at: 0, size: dims[0] * frame };
      });
    this.outputs = this._caches.map((cache) => cache.added);
    this._length = 0;
    this._most = encoder.kv_cache_shapes.cache_key_0[0];
  }

  feeds() {
    const views = this._caches.map(({ name, dims, buffer, at, size }) => {
      return [name, new this._ort.Tensor("float32", buffer.subarray(at, at + size), dims)];
    });
    const length = new this._ort.Tensor("int64", BigInt64Array.of(BigInt(this._length)), [1]);
    return { ...Object.fromEntries(views), cache_len: length };
  }

  advance(found) {
    for (const cache of this._caches) {
      const added = found[cache.added].data;
      const kept = added.subarray(Math.max(0, added.length - cache.size));
      if (cache.at + cache.size + kept.length > cache.buffer.length) {
        cache.buffer.copyWithin(0, cache.at, cache.at + cache.size);
        cache.at = 0;
      }
      cache.buffer.set(kept, cache.at + cache.size);
      cache.at += kept.length;
    }
    this._length = Math.min(this._length + found[this.outputs[0]].dims[0], this._most);
  }
}

/** Name of the output that has what a chunk adds to a cache: key_new_0 of cache_key_0. */
export function addedName(name) {
  const [, kind, layer] = name.split("_");
  return `${kind}_new_${layer}`;
}

/** A tensor of zeros: i64 for a length, else f32. */
export function zeros(ort, isLength, dims) {
  const size = dims.reduce((a, b) => a * b);
  return isLength
    ? new ort.Tensor("int64", new BigInt64Array(size), dims)
    : new ort.Tensor("float32", new Float32Array(size), dims);
}
