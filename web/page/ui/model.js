// The choice of a package, of its variant, and of what a stream needs to know.

import { attempt, element, megabytes, options, status } from "./dom.js";

// Of 8 bits in the fast cache layout where there is one: small, and near to fp32. WebAssembly has no integer product for weights in
// blocks: they become floats anew with every chunk, which at 0.6B takes longer than the audio.
const BLOCKS = ["kv-int8-weight", "int8-weight"];
const WHOLE = ["kv-int8-dynamic", "int8-dynamic"];
const PREFERRED = { wasm: [...WHOLE, ...BLOCKS], webgpu: [...BLOCKS, ...WHOLE] };

/** Returns the variant that is proposed for a device. names: those of a package. */
export function preferred(names, device) {
  return PREFERRED[device].find((name) => names.includes(name)) ?? names[0];
}

let config = null; // of the package that is open
let opened = null; // where it is, as `openModel` was given it
let loaded = false; // whether the worker holds a model

/** source: of the worker's method `open`. */
export async function openModel(client, source) {
  status("Opening …");
  const found = await client.call("open", source);
  config = found.config;
  opened = source;
  const names = found.variants.map(({ name }) => name);
  element("package").textContent = `${found.name}: ${config.spec.kind}`;
  const choices = found.variants.map(({ name, bytes }) => [name, `${name} (${megabytes(bytes)})`]);
  options(element("variant"), choices, preferred(names, element("device").value));
  element("loading").hidden = false;
  element("speech").hidden = true;
  status("Choose a variant and load it.");
  element("load").focus();
}

/** Proposes a variant for the device that was chosen. */
export function proposeVariant() {
  const names = Array.from(element("variant").options, ({ value }) => value);
  element("variant").value = preferred(names, element("device").value);
}

export async function loadModel(client) {
  const [variant, device, threads] = ["variant", "device", "threads"].map((id) => element(id).value);
  element("progress").hidden = false;
  element("load").disabled = true;
  status("Loading …");
  try {
    if (loaded) {
      client.restart();
      await client.call("open", opened);
    }
    loaded = true;
    await client.call("load", { variant, device, threads: Number(threads) });
  } finally {
    element("progress").hidden = true;
    element("load").disabled = false;
  }
  showSettings();
  element("model").open = false; // so that a phone shows what is next
  await showKept(client);
  showMemory();
  status("Ready.");
}

function showSettings() {
  const { encoder, prompt } = config;
  const languages = Object.keys(prompt?.languages ?? {});
  element("language-field").hidden = !languages.length;
  const spoken = navigator.language;
  const likely = languages.find((name) => name === spoken) ?? languages.find((name) => name.startsWith(spoken.slice(0, 2)));
  options(element("language"), languages.map((name) => [name, name]), languages.includes("auto") ? "auto" : likely);
  const chunks = Object.entries(encoder.chunks_by_lookahead ?? {}).sort(([a], [b]) => a - b);
  element("lookahead-field").hidden = !chunks.length;
  const delays = chunks.map(([lookahead, { latency_ms: delay }]) => [lookahead, `${delay} ms`]);
  options(element("lookahead"), delays, encoder.default_lookahead);
  element("speech").hidden = false;
}

/** What the next stream is started with. */
export function settings() {
  const phrases = element("hotwords").value.split("\n").map((line) => line.trim());
  return {
    language: element("language-field").hidden ? null : element("language").value,
    lookahead: element("lookahead-field").hidden ? null : Number(element("lookahead").value),
    hotwords: phrases.filter(Boolean),
  };
}

export async function showMemory() {
  if (!performance.measureUserAgentSpecificMemory) return; // not in every browser
  const found = await performance.measureUserAgentSpecificMemory().catch(() => null);
  if (found) element("memory").textContent = megabytes(found.bytes);
}

/** Lists the packages that this browser keeps. */
export async function showKept(client) {
  const kept = await client.call("kept");
  element("kept").hidden = !kept.length;
  const rows = kept.map(({ name, digest }) => {
    const row = document.createElement("li");
    const title = document.createElement("span");
    title.textContent = name;
    const open = button("Open", name, () => openModel(client, { digest }));
    const remove = button("Remove", name, async () => {
      await client.call("forget", digest);
      await showKept(client);
    });
    row.append(title, open, remove);
    return row;
  });
  element("kept-list").replaceChildren(...rows);
}

function button(text, name, work) {
  const made = document.createElement("button");
  made.type = "button";
  made.textContent = text;
  made.setAttribute("aria-label", `${text} ${name}`);
  made.onclick = () => attempt(work);
  return made;
}
