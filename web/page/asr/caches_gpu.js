// The fast cache layout on a GPU: what a chunk adds is put behind each cache there, and no cache comes back.

import { addedName } from "./caches.js";

const F32_BYTES = 4;

export class GpuKvCaches {
  /** gpu: the GPUDevice that onnxruntime-web uses. */
  constructor(ort, encoder, gpu) {
    this._ort = ort;
    this._gpu = gpu;
    this._caches = Object.entries(encoder.kv_cache_shapes)
      .filter(([name]) => name !== "cache_len")
      .map(([name, dims]) => {
        const bytes = F32_BYTES * dims.reduce((a, b) => a * b);
        return { name, added: addedName(name), dims, bytes, now: this._buffer(bytes), next: this._buffer(bytes) };
      });
    this.outputs = this._caches.map((cache) => cache.added);
    this._length = 0;
    this._most = encoder.kv_cache_shapes.cache_key_0[0];
  }

  /** A buffer of zeros. */
  _buffer(size) {
    return this._gpu.createBuffer({ size, usage: GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_SRC | GPUBufferUsage.COPY_DST });
  }

  feeds() {
    const held = this._caches.map(({ name, dims, now }) => {
      return [name, this._ort.Tensor.fromGpuBuffer(now, { dataType: "float32", dims })];
    });
    const length = new this._ort.Tensor("int64", BigInt64Array.of(BigInt(this._length)), [1]);
    return { ...Object.fromEntries(held), cache_len: length };
  }

  advance(found) {
    const commands = this._gpu.createCommandEncoder();
    for (const cache of this._caches) {
      const added = found[cache.added];
      const bytes = F32_BYTES * added.dims.reduce((a, b) => a * b);
      const kept = Math.min(bytes, cache.bytes);
      if (kept < cache.bytes) commands.copyBufferToBuffer(cache.now, kept, cache.next, 0, cache.bytes - kept);
      commands.copyBufferToBuffer(added.gpuBuffer, bytes - kept, cache.next, cache.bytes - kept, kept);
      [cache.now, cache.next] = [cache.next, cache.now];
    }
    this._gpu.queue.submit([commands.finish()]);
    this._length = Math.min(this._length + found[this.outputs[0]].dims[0], this._most);
    for (const name of this.outputs) found[name].dispose();
  }

  /** Gives the memory back. */
  release() {
    for (const { now, next } of this._caches) {
      now.destroy();
      next.destroy();
    }
  }
}
