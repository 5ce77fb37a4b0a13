// The microphone to /v1/stream, its events to the page.
const at = (id) => document.getElementById(id);
let models = [];
let running = null;

function state(text, isError = false) {
  at("state").textContent = text;
  at("state").className = isError ? "error" : "";
}

function options(select, values, label = (value) => value) {
  select.replaceChildren(...values.map((value) => new Option(label(value), value)));
  select.disabled = values.length === 0;
}

function showModel() {
  const model = models.find((one) => one.id === at("model").value);
  options(at("language"), model?.languages ?? []);
  if (model?.languages.includes("auto")) at("language").value = "auto";
  options(at("lookahead"), model?.lookaheads ?? [], (r) => `${80 * (r + 1)} ms`);
  const usual = (model?.chunk_ms ?? 0) / 80 - 1;
  if (model?.lookaheads.includes(usual)) at("lookahead").value = usual;
}

async function load() {
  const token = at("token").value;
  const answer = await fetch("/v1/models", { headers: token ? { authorization: `Bearer ${token}` } : {} });
  if (!answer.ok) return state((await answer.json()).error.message, true);
  models = (await answer.json()).data.filter((one) => one.is_live);
  options(at("model"), models.map((one) => one.id));
  showModel();
  state(models.length ? "Ready." : "No model of this server takes live streams.");
}

function show(event) {
  if (event.type === "update") {
    at("final").textContent = event.text;
    at("tentative").textContent = event.tentative;
  } else if (event.type === "utterance") {
    const line = document.createElement("p");
    line.textContent = event.text;
    line.title = `${event.start.toFixed(1)} to ${event.end.toFixed(1)} s`;
    at("text").append(line);
    at("final").textContent = at("tentative").textContent = "";
  } else if (event.type === "error") {
    state([event.message, event.expected && `Expected: ${event.expected}`, event.todo].filter(Boolean).join("\n"), true);
  } else if (event.type === "started") {
    state(`${event.model}, ${event.chunk_ms} ms a chunk`);
  }
}

async function start() {
  const context = new AudioContext();
  const microphone = await navigator.mediaDevices.getUserMedia({ audio: { channelCount: 1 } });
  await context.audioWorklet.addModule("/worklet.js");
  const token = at("token").value;
  const address = `${location.origin.replace(/^http/, "ws")}/v1/stream`;
  const socket = new WebSocket(address, token ? ["nemoport", `openai-insecure-api-key.${token}`] : ["nemoport"]);
  const node = new AudioWorkletNode(context, "microphone");
  const message = { type: "start", model: at("model").value, sample_rate: context.sampleRate };
  if (at("language").value) message.language = at("language").value;
  if (at("lookahead").value) message.lookahead = Number(at("lookahead").value);
  socket.onopen = () => {
    socket.send(JSON.stringify(message));
    node.port.onmessage = ({ data }) => socket.readyState === WebSocket.OPEN && socket.send(data);
    context.createMediaStreamSource(microphone).connect(node);
  };
  socket.onmessage = ({ data }) => show(JSON.parse(data));
  socket.onclose = ({ code, wasClean }) => {
    microphone.getTracks().forEach((track) => track.stop());
    context.close();
    running = null;
    at("start").textContent = "Start";
    if (!at("state").classList.contains("error")) state(wasClean ? "Ended." : `The connection ended (${code}).`, !wasClean);
  };
  running = {
    stop() {
      node.port.onmessage = null;
      socket.send(JSON.stringify({ type: "end" }));
    },
  };
  at("start").textContent = "Stop";
}

at("settings").addEventListener("submit", async (event) => {
  event.preventDefault();
  try {
    if (running) return running.stop();
    if (!models.length) await load();
    if (models.length) await start();
  } catch (error) {
    state(`The microphone cannot be used: ${error.message}`, true);
  }
});
at("model").addEventListener("change", showModel);
load();
