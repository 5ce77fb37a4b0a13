// Gives the page the microphone's samples as 16-bit integers, 100 ms at a time.
class Microphone extends AudioWorkletProcessor {
  constructor() {
    super();
    this.packet = new Int16Array(Math.round(sampleRate / 10));
    this.count = 0;
  }

  process([input]) {
    for (const sample of input[0] ?? []) {
      this.packet[this.count++] = Math.max(-1, Math.min(1, sample)) * 32767;
      if (this.count === this.packet.length) {
        this.port.postMessage(this.packet.slice().buffer);
        this.count = 0;
      }
    }
    return true;
  }
}
registerProcessor("microphone", Microphone);
