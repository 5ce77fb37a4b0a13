// AudioWorklet: passes the microphone's samples on, the mean of its channels, with their level.

const PACKET = 2048; // samples

class Capture extends AudioWorkletProcessor {
  constructor() {
    super();
    this._packet = new Float32Array(PACKET);
    this._count = 0;
    this._to = null; // the port of the worker
    this.port.onmessage = ({ data }) => {
      if (data.to) this._to = data.to;
      if (data.end) {
        this._send();
        this._to?.postMessage({ end: true });
        this._ended = true;
        this.port.postMessage({ ended: true });
      }
    };
  }

  process([channels]) {
    if (this._ended) return false;
    for (let i = 0; i < (channels[0]?.length ?? 0); i++) {
      let sum = 0;
      for (const channel of channels) sum += channel[i];
      this._packet[this._count++] = sum / channels.length;
      if (this._count === PACKET) this._send();
    }
    return true;
  }

  _send() {
    const samples = this._packet.slice(0, this._count);
    this._count = 0;
    const level = Math.sqrt(samples.reduce((sum, x) => sum + x * x, 0) / Math.max(samples.length, 1));
    this.port.postMessage({ level, samples: samples.slice() });
    this._to?.postMessage({ samples }, [samples.buffer]);
  }
}

registerProcessor("capture", Capture);
