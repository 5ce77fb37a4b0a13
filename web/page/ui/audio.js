// Recordings and the microphone.

import { PageError } from "../asr/errors.js";
import { readWav } from "../asr/wav.js";
import { checkMicrophone } from "./support.js";

const DECODED_HZ = 16000; // of what the browser decodes: it resamples by itself

/** Resolves to { samples: f32 [n], rate } of an audio file. */
export async function readRecording(file) {
  const buffer = await file.arrayBuffer();
  const wav = readWav(buffer);
  if (wav) return wav;
  try {
    const context = new OfflineAudioContext(1, 1, DECODED_HZ);
    const decoded = await context.decodeAudioData(buffer);
    const samples = new Float32Array(decoded.length);
    for (let c = 0; c < decoded.numberOfChannels; c++) {
      decoded.getChannelData(c).forEach((x, i) => (samples[i] += x / decoded.numberOfChannels));
    }
    return { samples, rate: decoded.sampleRate };
  } catch (error) {
    throw new PageError(`${file.name} cannot be read.`, {
      expected: "audio that this browser plays: WAV, FLAC, MP3, Ogg, M4A",
      found: String(error.message ?? error),
      todo: "convert it to WAV",
    });
  }
}

export class Microphone {
  /** Opens the microphone. heard(level, samples) is called with each packet. */
  static async open(heard) {
    checkMicrophone();
    let media;
    try {
      const audio = { echoCancellation: false, noiseSuppression: false, autoGainControl: false };
      media = await navigator.mediaDevices.getUserMedia({ audio });
    } catch (error) {
      const refused = error.name === "NotAllowedError";
      throw new PageError(refused ? "The microphone was refused." : "There is no microphone.", {
        expected: "one that this page may use",
        found: `${error.name}: ${error.message}`,
        todo: refused ? "allow it in the browser's settings of this page" : "plug one in, or transcribe a file",
      });
    }
    const context = new AudioContext();
    await context.audioWorklet.addModule(new URL("../capture.js", import.meta.url));
    const node = new AudioWorkletNode(context, "capture", { numberOfOutputs: 0 });
    return new Microphone(media, context, node, heard);
  }

  constructor(media, context, node, heard) {
    Object.assign(this, { _media: media, _context: context, _node: node, rate: context.sampleRate });
    this._ended = new Promise((resolve) => {
      node.port.onmessage = ({ data }) => {
        if (data.ended) resolve();
        else heard(data.level, data.samples);
      };
    });
  }

  /** Begins to send packets to a MessagePort, and calls lost() if the device goes. */
  async start(port, lost) {
    this._node.port.postMessage({ to: port }, [port]);
    this._media.getAudioTracks()[0].addEventListener("ended", lost);
    this._context.createMediaStreamSource(this._media).connect(this._node);
    await this._context.resume();
  }

  /** Sends what is left, and gives the device back. */
  async stop() {
    this._node.port.postMessage({ end: true });
    await this._ended;
    for (const track of this._media.getTracks()) track.stop();
    await this._context.close();
  }
}
