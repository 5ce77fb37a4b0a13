// What the browser has of what the page needs.

import { PageError } from "../asr/errors.js";

// The smallest module that uses a vector instruction.
const SIMD = [0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 10, 1, 8, 0, 65, 0, 253, 15, 253, 98, 11];
const ENOUGH = "Chrome or Edge 102, Firefox 114, Safari 16.4, or a newer one";

/** Throws PageError where the page cannot work at all. */
export function checkBrowser() {
  const lacking = [];
  if (!globalThis.isSecureContext) lacking.push("a secure page (https, or localhost)");
  if (!globalThis.WebAssembly || !WebAssembly.validate(Uint8Array.from(SIMD))) lacking.push("WebAssembly with SIMD");
  if (!globalThis.Worker) lacking.push("workers");
  if (!globalThis.BigInt64Array) lacking.push("64-bit integers");
  if (!lacking.length) return;
  throw new PageError("This browser cannot run the page.", {
    expected: lacking.join(", "),
    found: navigator.userAgent,
    todo: `open the page over https or on localhost, in ${ENOUGH}`,
  });
}

/** Throws PageError where there is no microphone to ask for. */
export function checkMicrophone() {
  if (navigator.mediaDevices?.getUserMedia && globalThis.AudioWorkletNode) return;
  throw new PageError("This browser gives no microphone here.", {
    expected: "getUserMedia and AudioWorklet, on a secure page",
    found: globalThis.isSecureContext ? navigator.userAgent : "a page without https",
    todo: `use ${ENOUGH}, over https or on localhost; or transcribe a file`,
  });
}

/** The threads that can be chosen; one alone without the headers that shared memory asks for. */
export function threadChoices() {
  if (!globalThis.crossOriginIsolated) return [1];
  const most = Math.min(navigator.hardwareConcurrency || 1, 16);
  return Array.from({ length: most }, (_, i) => i + 1);
}

/** Names of the devices that can be chosen. */
export async function devices() {
  const adapter = await navigator.gpu?.requestAdapter().catch(() => null);
  return adapter ? { wasm: "processor (WASM)", webgpu: "graphics (WebGPU)" } : { wasm: "processor (WASM)" };
}
