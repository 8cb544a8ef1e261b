// The audio of a call over the WebSocket, in the browser's audio thread: frames of 20 ms at 16 kHz out of the
// microphone, and a queue of what is to be played. Positions are in samples of what was received, dropped ones included.
const FRAME = 320;
const AHEAD = 960;        // 60 ms to begin with, and whenever the queue has run dry
const PATIENCE = 1280;    // a short word begins without them
const MOST = 16000 * 30;  // the gateway is never so far ahead
const REPORT = 1600;

class Line extends AudioWorkletProcessor {
  constructor() {
    super();
    this.frame = new Int16Array(FRAME);
    this.filled = 0;
    this.queue = [];
    this.at = this.queued = this.received = this.played = this.reported = this.waited = this.clears = 0;
    this.flowing = false;
    this.port.onmessage = ({ data }) => (data.audio ? this.take(new Int16Array(data.audio)) : this.clear(data.clear));
  }

  take(samples) {
    this.received += samples.length;
    if (this.queued + samples.length > MOST) { this.played += samples.length; return; }
    this.queue.push(samples);
    this.queued += samples.length;
  }

  clear(sent) {  // in ms, as the gateway counts
    const played = this.played;
    this.queue = [];
    this.at = this.queued = 0;
    this.flowing = false;
    this.received = this.played = this.reported = sent * 16;
    this.clears += 1;
    this.port.postMessage({ cleared: sent, played: Math.floor(played / 16) });
  }

  process([input], [output]) {
    this.capture(input[0], output[0].length);
    this.play(output[0]);
    for (const other of output.slice(1)) other.set(output[0]);
    return true;
  }

  capture(samples, length) {
    for (let i = 0; i < length; i += 1) {
      const sample = samples ? Math.max(-1, Math.min(1, samples[i])) : 0;
      this.frame[this.filled] = sample * 32767;
      this.filled += 1;
      if (this.filled === FRAME) {
        this.port.postMessage({ audio: this.frame.buffer }, [this.frame.buffer]);
        this.frame = new Int16Array(FRAME);
        this.filled = 0;
      }
    }
  }

  play(out) {
    if (!this.flowing) {
      this.waited = this.queued ? this.waited + out.length : 0;
      this.flowing = this.queued >= AHEAD || this.waited >= PATIENCE;
      if (!this.flowing) return;
    }
    for (let i = 0; i < out.length && this.queue.length; i += 1) {
      out[i] = this.queue[0][this.at] / 32768;
      this.at += 1;
      this.played += 1;
      this.queued -= 1;
      if (this.at === this.queue[0].length) { this.queue.shift(); this.at = 0; }
    }
    if (!this.queue.length) { this.flowing = false; this.waited = 0; }
    if (this.played - this.reported >= REPORT || (!this.flowing && this.played > this.reported)) {
      this.reported = this.played;
      this.port.postMessage({ reached: Math.floor(this.played / 16), clears: this.clears });
    }
  }
}

registerProcessor("line", Line);
