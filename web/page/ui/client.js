// Requests to the worker, and what it sends unasked.

import { PageError } from "../asr/errors.js";

export class Client extends EventTarget {
  constructor() {
    super();
    this._waiting = new Map();
    this._next = 0;
    this._begin();
  }

  /** Takes a new worker: onnxruntime-web neither changes its threads nor gives memory back. */
  restart() {
    this._worker.terminate();
    this._begin();
  }

  _begin() {
    this._worker = new Worker(new URL("../worker.js", import.meta.url), { type: "module" });
    this._worker.onmessage = ({ data }) => {
      if (data.event) {
        this.dispatchEvent(new CustomEvent(data.event, { detail: data }));
        return;
      }
      const { resolve, reject } = this._waiting.get(data.id);
      this._waiting.delete(data.id);
      if (data.error) reject(new Error(data.error));
      else resolve(data.result);
    };
    this._worker.onerror = (event) => {
      event.preventDefault();
      const error = new PageError("The page's worker has stopped.", {
        found: event.message || "no reason given",
        todo: "reload the page; take a smaller variant if it stays",
      });
      for (const { reject } of this._waiting.values()) reject(error);
      this._waiting.clear();
    };
  }

  /** Resolves to the result of a method of worker.js, or rejects with its message. */
  call(method, argument, transfer = []) {
    const id = this._next++;
    return new Promise((resolve, reject) => {
      this._waiting.set(id, { resolve, reject });
      this._worker.postMessage({ id, method, argument }, transfer);
    });
  }
}
