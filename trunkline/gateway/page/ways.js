// The two ways of a call to the gateway: WebRTC (POST whip), and where that does not come through WS ws/audio
// (docs/webrtc.md). Both: `await open(token)` until the call is joined, then `told(event)`, and `lost()` once, should
// it break; `ask(message)`, `mute`, `leave()` to hang up, `close()` to let go.

const CONNECT_MS = 4000, GATHER_MS = 1500, ANSWER_MS = 5000, SHAKY_MS = 1500;
const BROKEN = 4000;  // closes a socket without hanging up
const UNSENT_BYTES = 64000;  // two seconds of audio that the network does not take

/** The gateway says no, for good: `message` is for people. */
export class Refused extends Error {
  constructor(code, message) { super(message); this.code = code; }
}

/** Not now: another try may help, after so many ms. */
export class Away extends Error {
  constructor(code = "", message = "", after_ms = 0) { super(message); this.code = code; this.after_ms = after_ms; }
}

/** WebRTC does not come through here: the other way may. */
export class NoWay extends Error {}

class Way {
  constructor(microphone, { told, lost, renewed }) {
    this.microphone = microphone;
    this.renewed = renewed;  // another token, in place of the one that was used
    this.listener = told;
    this.onlost = lost;
    this.closed = false;
    this.given_up = new AbortController();
    this.joined = new Promise((yes, no) => { this.yes = yes; this.no = no; });
    this.joined.catch(() => {});
  }

  told(event) {
    if (this.closed) return;
    if (event.type === "joined") {
      if (event.resume_token) this.renewed(event.resume_token);
      this.isJoined = true;
      this.ask({ type: "armed", by: "button" });
    }
    this.listener(event);
    if (event.type === "joined") this.yes();
  }

  close() {
    this.closed = true;
    this.given_up.abort();
    this.no(new Away());
  }

  lost() {
    if (this.closed) return;
    this.close();
    if (this.isJoined) this.onlost();
  }
}

export class Peer extends Way {
  async open(token) {
    const given = token ? { Authorization: `Bearer ${token}` } : {};
    const before = await this.asked("whip", { method: "OPTIONS", headers: given });
    if (before.status === 404) throw new NoWay("This gateway takes no WebRTC");
    if (before.status >= 400) throw await refusal(before);
    this.peer = new RTCPeerConnection({ iceServers: servers(before), bundlePolicy: "max-bundle" });
    this.events = this.peer.createDataChannel("events");
    this.events.onmessage = ({ data }) => this.told(JSON.parse(data));
    this.events.onclose = () => this.lost();
    for (const track of this.microphone.getTracks()) this.peer.addTrack(track, this.microphone);
    this.peer.ontrack = ({ streams }) => { document.getElementById("voice").srcObject = streams[0]; };
    this.peer.onconnectionstatechange = () => this.changed();
    await this.peer.setLocalDescription(await this.peer.createOffer());
    await gathered(this.peer);
    this.still();
    const { sdp } = this.peer.localDescription;
    if (!sdp.includes("a=candidate:")) throw new NoWay("UDP is blocked");  // and the token stays good
    const headers = { ...given, "Content-Type": "application/sdp" };
    const answer = await this.asked("whip", { method: "POST", headers, body: sdp });
    if (answer.status === 404) throw new NoWay("This gateway takes no WebRTC");
    if (answer.status !== 201) throw await refusal(answer);
    this.location = answer.headers.get("Location");
    const next = answer.headers.get("Resume-Token");
    if (next) this.renewed(next);
    this.still();
    await this.peer.setRemoteDescription({ type: "answer", sdp: await answer.text() });
    const late = setTimeout(() => this.no(new NoWay("UDP is blocked")), CONNECT_MS);
    await this.joined.finally(() => clearTimeout(late));
  }

  changed() {
    clearTimeout(this.shaky);
    const state = this.peer.connectionState;
    if (state === "failed" && !this.isJoined) this.no(new NoWay("UDP is blocked"));
    else if (state === "failed" || (state === "disconnected" && !navigator.onLine)) this.lost();
    else if (state === "disconnected") this.shaky = setTimeout(() => this.lost(), SHAKY_MS);
  }

  /** fetch, with a deadline: what does not answer is away. */
  async asked(where, how) {
    const late = setTimeout(() => this.given_up.abort(), ANSWER_MS);
    try {
      return await fetch(where, { ...how, signal: this.given_up.signal });
    } catch {
      throw new Away();
    } finally {
      clearTimeout(late);
    }
  }

  still() { if (this.closed) { this.leave(); throw new Away(); } }

  /** The network has changed: whether we are still there is not waited for. */
  hurry() { if (this.peer && this.peer.connectionState !== "connected") this.lost(); }

  ask(message) {
    if (this.events && this.events.readyState === "open") this.events.send(JSON.stringify(message));
  }

  async leave() {
    const location = this.location;
    this.location = null;
    this.close();
    if (!location) return;
    const signal = AbortSignal.timeout(2000);
    await fetch(location, { method: "DELETE", keepalive: true, signal }).catch(() => {});
  }

  close() {
    super.close();
    clearTimeout(this.shaky);
    if (this.peer) setTimeout(() => this.peer.close(), 400);  // the last word is still being played
  }
}

export class Socket extends Way {
  async open(token) {
    if (!window.AudioWorkletNode) throw new Refused("no_worklet", "This browser is too old for calls.");
    this.reported = this.clears = 0;
    this.sound = new AudioContext({ sampleRate: 16000, latencyHint: "interactive" });
    try {
      this.source = this.sound.createMediaStreamSource(this.microphone);
    } catch {
      throw new Refused("no_rate", "This browser cannot take the microphone at 16 kHz: use another, or another network.");
    }
    await this.sound.audioWorklet.addModule("sound.js").catch(() => { throw new Away(); });
    this.line = new AudioWorkletNode(this.sound, "line", { outputChannelCount: [1] });
    this.source.connect(this.line).connect(this.sound.destination);
    this.line.port.onmessage = ({ data }) => this.heard(data);
    await this.sound.resume();
    if (this.closed) { this.sound.close(); throw new Away(); }
    const url = new URL("ws/audio", location.href);
    url.protocol = url.protocol.replace("http", "ws");
    url.hash = "";
    this.socket = new WebSocket(url);
    this.socket.binaryType = "arraybuffer";
    const start = { type: "start", encoding: "pcm16", rate_hz: 16000, acks: true };
    this.socket.onopen = () => this.socket.send(JSON.stringify(token ? { ...start, token } : start));
    this.socket.onmessage = ({ data }) => this.came(data);
    this.socket.onclose = () => this.lost();
    const late = setTimeout(() => this.lost(), ANSWER_MS);
    await this.joined.finally(() => clearTimeout(late));
  }

  came(data) {
    if (this.closed) return;
    if (typeof data !== "string") { this.line.port.postMessage({ audio: data }, [data]); return; }
    const event = JSON.parse(data);
    if (event.type === "clear") {
      this.clears += 1;
      this.line.port.postMessage({ clear: event.sent_ms });
    } else if (event.type === "refused") {
      const { code, why, retry_after_s } = event;
      this.no(retry_after_s ? new Away(code, why, retry_after_s * 1000) : new Refused(code, why));
      this.close();
    } else this.told(event);
  }

  /** From the audio thread. What it has given out is in the ear a little later. */
  heard({ audio, reached, clears, cleared, played }) {
    if (this.closed || !this.isJoined) return;
    if (audio) {
      if (this.socket.bufferedAmount > UNSENT_BYTES) this.lost();
      else if (this.socket.readyState === WebSocket.OPEN) this.socket.send(audio);
    } else if (cleared !== undefined) {
      const ear = Math.max(this.reported, Math.round(played - this.latency_ms));
      this.reported = cleared;
      this.ask({ type: "cleared", sent_ms: cleared, played_ms: Math.min(ear, cleared) });
    } else {
      setTimeout(() => {
        if (this.closed || clears !== this.clears || reached <= this.reported) return;
        this.reported = reached;
        this.ask({ type: "played", ms: reached });
      }, this.latency_ms);
    }
  }

  get latency_ms() { return Math.min(500, 1000 * (this.sound.outputLatency || this.sound.baseLatency || 0)); }

  hurry() { if (this.socket && this.socket.readyState !== WebSocket.OPEN) this.lost(); }

  ask(message) {
    if (this.socket && this.socket.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify(message));
  }

  async leave() { this.close(1000); }

  close(code = BROKEN) {
    if (this.closed) return;
    super.close();
    if (this.socket) this.socket.close(code);
    if (this.sound) setTimeout(() => this.sound.close().catch(() => {}), 400);
  }
}

async function refusal(answer) {
  const told = await answer.json().catch(() => ({}));
  const why = told.detail || `The gateway has refused the call (${answer.status}).`;
  if (answer.status < 500) return new Refused(told.code || "", why);
  return new Away(told.code || "", why, 1000 * (Number(answer.headers.get("Retry-After")) || 0));
}

/** Of Link headers (RFC 9725 4.6). */
function servers(answer) {
  return (answer.headers.get("Link") || "").split(/,\s*(?=<)/).filter((link) => link.includes("ice-server"))
    .map((link) => {
      const of = (name) => (link.match(new RegExp(`${name}="([^"]*)"`)) || [])[1];
      const server = { urls: link.slice(1, link.indexOf(">")) };
      return of("username") ? { ...server, username: of("username"), credential: of("credential") } : server;
    });
}

function gathered(peer) {
  return new Promise((done) => {
    const check = () => { if (peer.iceGatheringState === "complete") done(); };
    peer.addEventListener("icegatheringstatechange", check);
    setTimeout(done, GATHER_MS);
    check();
  });
}
