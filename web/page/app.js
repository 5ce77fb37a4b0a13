// The page: what was chosen goes to the worker, what it finds is shown.

import { joined } from "./asr/mel.js";
import { asSrt, asVtt } from "./asr/subtitles.js";
import { writeWav } from "./asr/wav.js";
import { Microphone, readRecording } from "./ui/audio.js";
import { Client } from "./ui/client.js";
import { chosenFiles, droppedFiles, save } from "./ui/files.js";
import { checkBrowser, devices, threadChoices } from "./ui/support.js";
import { Transcript } from "./ui/transcript.js";

const element = (id) => document.getElementById(id);
const transcript = new Transcript({
  box: element("transcript"),
  final: element("final"),
  tentative: element("tentative"),
  spoken: element("spoken"),
  player: element("player"),
});
const formats = {
  txt: () => [`${transcript.text}\n`, "text/plain"],
  srt: () => [asSrt(transcript.words), "application/x-subrip"],
  vtt: () => [asVtt(transcript.words), "text/vtt"],
};
let client;
let config; // of the package that is open
let microphone = null;
let recorded = []; // packets of the microphone
let busy = false;

/** Runs what a control asks for, one at a time; an error is shown in one place. */
async function attempt(work) {
  if (busy) return;
  busy = true;
  document.body.setAttribute("aria-busy", "true");
  element("error").hidden = true;
  try {
    await work();
  } catch (error) {
    showError(error);
  } finally {
    busy = false;
    document.body.removeAttribute("aria-busy");
  }
}

function showError(error) {
  element("error").textContent = error.message ?? String(error);
  element("error").hidden = false;
}

function status(text) {
  element("status").textContent = text;
}

function options(select, choices, chosen) {
  select.replaceChildren(...choices.map(([value, text]) => new Option(text, value, false, String(value) === String(chosen))));
}

async function open(source) {
  status("Opening …");
  const found = await client.call("open", source);
  config = found.config;
  element("package").textContent = `${found.name}: ${config.spec.kind}`;
  options(element("variant"), found.variants.map(({ name, bytes }) => [name, `${name} (${megabytes(bytes)})`]), best(found.variants));
  element("loading").hidden = false;
  element("speech").hidden = true;
  status("Choose a variant and load it.");
  element("load").focus();
}

/** A variant of 8 bits in the fast cache layout where there is one: small, and near to fp32. */
function best(variants) {
  const names = variants.map(({ name }) => name);
  return ["kv-int8-weight", "int8-weight", "kv-int8-dynamic", "int8-dynamic"].find((name) => names.includes(name)) ?? names[0];
}

async function load() {
  const [variant, device, threads] = ["variant", "device", "threads"].map((id) => element(id).value);
  element("progress").hidden = false;
  element("load").disabled = true;
  status("Loading …");
  try {
    const { lookaheads } = await client.call("load", { variant, device, threads: Number(threads) });
    showModel(lookaheads);
  } finally {
    element("progress").hidden = true;
    element("load").disabled = false;
  }
  showKept();
  showMemory();
  status("Ready.");
}

function showModel(served) {
  const { encoder, prompt } = config;
  const languages = Object.keys(prompt?.languages ?? {});
  element("language-field").hidden = !languages.length;
  const spoken = navigator.language;
  const likely = languages.find((name) => name === spoken) ?? languages.find((name) => name.startsWith(spoken.slice(0, 2)));
  options(element("language"), languages.map((name) => [name, name]), languages.includes("auto") ? "auto" : likely);
  const chunks = Object.entries(encoder.chunks_by_lookahead ?? {})
    .filter(([lookahead]) => !served || served.includes(Number(lookahead)))
    .sort(([a], [b]) => a - b);
  element("lookahead-field").hidden = !chunks.length;
  const names = chunks.map(([lookahead, { latency_ms: delay }]) => [lookahead, `${delay} ms`]);
  options(element("lookahead"), names, encoder.default_lookahead);
  element("speech").hidden = false;
}

function settings() {
  const phrases = element("hotwords").value.split("\n").map((line) => line.trim());
  return {
    language: element("language-field").hidden ? null : element("language").value,
    lookahead: element("lookahead-field").hidden ? null : Number(element("lookahead").value),
    hotwords: phrases.filter(Boolean),
  };
}

async function transcribe(file) {
  const { samples, rate } = await readRecording(file);
  begin();
  status(`Transcribing ${file.name} …`);
  playback(file);
  end(await client.call("transcribe", { samples, rate, ...settings() }));
}

async function toggleMicrophone() {
  const button = element("microphone");
  if (!microphone) {
    begin();
    recorded = [];
    microphone = await Microphone.open((level, samples) => {
      element("level").value = Math.min(1, 3 * level);
      recorded.push(samples);
    });
    try {
      const { port1, port2 } = new MessageChannel();
      await client.call("start", { rate: microphone.rate, port: port1, ...settings() }, [port1]);
      await microphone.start(port2, () => attempt(stopMicrophone));
    } catch (error) {
      await stopMicrophone().catch(() => {});
      throw error;
    }
    button.textContent = "Stop";
    button.setAttribute("aria-pressed", "true");
    status("Listening …");
  } else {
    await stopMicrophone();
  }
}

async function stopMicrophone() {
  const { rate } = microphone;
  await microphone.stop();
  microphone = null;
  element("microphone").textContent = "Start the microphone";
  element("microphone").setAttribute("aria-pressed", "false");
  element("level").value = 0;
  const found = await client.call("finish");
  playback(writeWav(joined(recorded), rate));
  end(found);
}

function begin() {
  transcript.clear();
  element("save").hidden = true;
}

function end({ tokens }) {
  element("transcript").dataset.tokens = tokens.join(" "); // for whoever compares them with nemoport's
  element("save").hidden = !transcript.words.length;
  status(transcript.words.length ? "Done." : "Done. No words were found.");
  showMemory();
}

function playback(blob) {
  const player = element("player");
  if (player.src) URL.revokeObjectURL(player.src);
  player.src = URL.createObjectURL(blob);
  player.hidden = false;
}

function showFigures({ audio, work, waiting }) {
  element("seconds").textContent = `${audio.toFixed(1)} s`;
  element("speed").textContent = work ? `${(audio / work).toFixed(1)} × real time` : "–";
  element("behind").textContent = `${waiting.toFixed(1)} s`;
}

async function showMemory() {
  if (!performance.measureUserAgentSpecificMemory) return; // not in every browser
  const found = await performance.measureUserAgentSpecificMemory().catch(() => null);
  if (found) element("memory").textContent = megabytes(found.bytes);
}

function megabytes(bytes) {
  return `${(bytes / 1e6).toFixed(bytes < 1e7 ? 1 : 0)} MB`;
}

async function showKept() {
  const kept = await client.call("kept");
  element("kept").hidden = !kept.length;
  const rows = kept.map(({ name, digest }) => {
    const row = document.createElement("li");
    const title = document.createElement("span");
    title.textContent = name;
    const [use, remove] = ["Open", "Remove"].map((text) => {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = text;
      button.setAttribute("aria-label", `${text} ${name}`);
      return button;
    });
    use.onclick = () => attempt(() => open({ digest }));
    remove.onclick = () => attempt(async () => {
      await client.call("forget", digest);
      await showKept();
    });
    row.append(title, use, remove);
    return row;
  });
  element("kept-list").replaceChildren(...rows);
}

/** Keeps the page for use without a network; on a host that cannot send the headers for threads, the page is loaded once more. */
async function startServiceWorker() {
  if (!navigator.serviceWorker) return;
  await navigator.serviceWorker.register("sw.js").catch(() => {});
  await navigator.serviceWorker.ready;
  if (!globalThis.crossOriginIsolated && !sessionStorage.getItem("reloaded")) {
    sessionStorage.setItem("reloaded", "yes");
    location.reload();
  }
}

function listen() {
  element("folder").onchange = () => attempt(() => open({ files: chosenFiles(element("folder")) }));
  element("address").onsubmit = (event) => {
    event.preventDefault();
    attempt(() => open({ url: element("url").value }));
  };
  // `nemoport package --layout web` names the package beside the page.
  const own = document.querySelector("meta[name=model]").content;
  element("own").hidden = !own;
  element("own").onclick = () => attempt(() => open({ url: new URL(own, location.href).href }));
  element("loading").onsubmit = (event) => {
    event.preventDefault();
    attempt(load);
  };
  element("recording").onchange = () => attempt(() => transcribe(element("recording").files[0]));
  element("microphone").onclick = () => attempt(toggleMicrophone);
  for (const button of element("save").children) {
    const { format } = button.dataset;
    button.onclick = () => save(...formats[format](), `transcript.${format}`);
  }
  addEventListener("dragover", (event) => {
    event.preventDefault();
    document.body.classList.add("dropping");
  });
  for (const kind of ["dragleave", "drop"]) addEventListener(kind, () => document.body.classList.remove("dropping"));
  addEventListener("drop", (event) => {
    event.preventDefault();
    const files = droppedFiles(event.dataTransfer); // before the event is over
    attempt(async () => drop(await files));
  });
  client.addEventListener("progress", ({ detail }) => (element("progress").value = detail.bytes / detail.all));
  client.addEventListener("failed", ({ detail }) => showError(detail.error));
  client.addEventListener("words", ({ detail }) => {
    transcript.add(detail.words, detail.tentative);
    showFigures(detail);
  });
}

async function drop(files) {
  if (files.length === 1 && !element("speech").hidden) await transcribe(files[0].file);
  else await open({ files });
}

async function startPage() {
  checkBrowser();
  client = new Client();
  listen();
  const threads = threadChoices();
  options(element("threads"), threads.map((n) => [n, n]), Math.min(4, Math.ceil(threads.length / 2)));
  options(element("device"), Object.entries(await devices()), "wasm");
  const isolated = globalThis.crossOriginIsolated ? `up to ${threads.length} threads` : "one thread: this host sends no headers for more";
  element("browser").textContent = `onnxruntime-web, ${isolated}.`;
  await showKept();
  startServiceWorker();
}

startPage().catch(showError);
