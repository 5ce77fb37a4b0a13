// The page: what was chosen goes to the worker, what it finds is shown.

import { joined } from "./asr/mel.js";
import { asSrt, asVtt } from "./asr/subtitles.js";
import { writeWav } from "./asr/wav.js";
import { Microphone, readRecording } from "./ui/audio.js";
import { Client } from "./ui/client.js";
import { attempt, element, options, showError, status } from "./ui/dom.js";
import { chosenFiles, droppedFiles, save } from "./ui/files.js";
import { loadModel, openModel, proposeVariant, settings, showKept, showMemory } from "./ui/model.js";
import { checkBrowser, devices, threadChoices } from "./ui/support.js";
import { Transcript } from "./ui/transcript.js";

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
let microphone = null;
let recorded = []; // packets of the microphone

async function transcribe(file) {
  const { samples, rate } = await readRecording(file);
  begin();
  status(`Transcribing ${file.name} …`);
  playback(file);
  element("cancel").hidden = false;
  try {
    end(await client.call("transcribe", { samples, rate, ...settings() }));
  } finally {
    element("cancel").hidden = true;
    element("recording").value = ""; // so that the same file can be chosen again
  }
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
  element("folder").onchange = () => attempt(() => openModel(client, { files: chosenFiles(element("folder")) }));
  element("address").onsubmit = (event) => {
    event.preventDefault();
    attempt(() => openModel(client, { url: element("url").value }));
  };
  // `nemoport package --layout web` names the package beside the page.
  const own = document.querySelector("meta[name=model]").content;
  element("own").hidden = !own;
  element("own").onclick = () => attempt(() => openModel(client, { url: new URL(own, location.href).href }));
  element("device").onchange = proposeVariant;
  element("loading").onsubmit = (event) => {
    event.preventDefault();
    attempt(() => loadModel(client));
  };
  element("recording").onchange = () => attempt(() => transcribe(element("recording").files[0]));
  element("cancel").onclick = () => client.call("cancel");
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
  client.addEventListener("words", ({ detail }) => {
    transcript.add(detail.words, detail.tentative);
    showFigures(detail);
  });
}

async function drop(files) {
  if (files.length === 1 && !element("speech").hidden) await transcribe(files[0].file);
  else await openModel(client, { files });
}

async function startPage() {
  checkBrowser();
  client = new Client();
  listen();
  const threads = threadChoices();
  options(element("threads"), threads.map((n) => [n, n]), Math.max(1, Math.min(4, threads.length - 1)));
  options(element("device"), Object.entries(await devices()), "wasm");
  const isolated = globalThis.crossOriginIsolated ? `up to ${threads.length} threads` : "one thread: this host sends no headers for more";
  element("browser").textContent = `onnxruntime-web, ${isolated}.`;
  await showKept(client);
  startServiceWorker();
}

startPage().catch(showError);
