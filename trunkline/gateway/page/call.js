// The call page: WebRTC to POST whip, the call's events over the data channel "events" (docs/webrtc.md).
const $ = (id) => document.getElementById(id);
const given = new URLSearchParams(location.hash.slice(1));
const CONNECT_MS = 12000;

const STATES = {
  off: "Press call, and talk.", asking: "Waiting for the microphone…", connecting: "Connecting…",
  idle: "Connected.", listening: "Listening.", thinking: "One moment…", speaking: "Speaking. You may interrupt.",
  interrupted: "Go on, I am listening.",
};
const ENDED = {
  agent_hung_up: "The agent has hung up.", caller_hung_up: "You have hung up.", no_input: "Nothing was said for too long.",
  max_duration: "The call's time is up.", transferred: "You were put through.", refused: "The call was refused.",
  error: "The call has failed. Please try again.", media_lost: "The connection was lost.",
};
const REFUSED = {
  no_token: "This page needs an invitation: open it with the link you were given.",
  token_expired: "This invitation has expired. Ask for a new one.",
  token_used: "This invitation has been used. Ask for a new one.",
  overloaded: "All lines are busy. Please try again in a moment.",
  draining: "This gateway is being restarted. Please try again in a moment.",
  agent_away: "The agent is not there right now. Please try again in a moment.",
  over_budget: "The budget of this line is used up.",
  origin: "Calls from this site are not allowed (devices.origins).",
};

let call = null;
let token = given.get("token") || "";  // good for one call; the call itself gives the next

class Call {
  constructor() { this.partial = this.answer = null; this.over = false; }

  async begin() {
    show("asking");
    this.microphone = await microphone();
    if (this.over) return this.release();
    show("connecting");
    this.peer = new RTCPeerConnection({ iceServers: [], bundlePolicy: "max-bundle" });
    this.events = this.peer.createDataChannel("events");
    this.events.onmessage = ({ data }) => this.told(JSON.parse(data));
    this.events.onclose = () => this.end(ENDED.media_lost);
    for (const track of this.microphone.getTracks()) this.peer.addTrack(track, this.microphone);
    this.peer.ontrack = ({ streams }) => { $("voice").srcObject = streams[0]; };
    this.peer.onconnectionstatechange = () => {
      if (this.peer.connectionState === "connected") this.connected = true;
      if (this.peer.connectionState === "failed") {
        this.end(this.connected ? ENDED.media_lost
          : "No way through for audio: this network blocks UDP. Try another network.");
      }
    };
    await this.peer.setLocalDescription(await this.peer.createOffer());
    await gathered(this.peer);
    if (this.over) return;
    const headers = { "Content-Type": "application/sdp" };
    if (token) headers.Authorization = `Bearer ${token}`;
    const answer = await fetch("whip", { method: "POST", headers, body: this.peer.localDescription.sdp });
    if (answer.status !== 201) throw new Refused(await reason(answer));
    this.location = answer.headers.get("Location");
    if (this.over) return this.leave();
    await this.peer.setRemoteDescription({ type: "answer", sdp: await answer.text() });
    this.timer = setTimeout(() => {
      if (!this.connected) this.end("No way through for audio: this network seems to block UDP.");
    }, CONNECT_MS);
  }

  told(event) {
    if (event.type === "joined") {
      $("agent").textContent = event.agent || "Call";
      if (event.resume_token) token = event.resume_token;
      for (const id of ["mute", "keypad", "write"]) $(id).hidden = false;
    } else if (event.type === "state") {
      show(event.state);
      $("stop").hidden = event.state !== "speaking";
    } else if (event.type === "heard") this.heard(event);
    else if (event.type === "saying") this.saying(event);
    else if (event.type === "tool") line("tool", `⚙ ${event.name}`);
    else if (event.type === "turn") this.turn(event);
    else if (event.type === "ended") this.end(ENDED[event.reason] || `The call has ended (${event.reason}).`, true);
    else if (event.type === "mistake") line("tool", event.why);
  }

  heard({ text, final, understood }) {
    this.partial = this.partial || line("caller partial");
    this.partial.textContent = understood === false ? `${text} (?)` : text;
    if (final) { this.partial.classList.remove("partial"); this.partial = null; }
    else this.partial.classList.add("partial");
    scroll();
  }

  saying({ text, heard_characters, over, cut }) {
    this.answer = this.answer || line("agent");
    const whole = this.answer.dataset.whole || "";
    this.answer.dataset.whole = whole.length > text.length ? whole : text;
    const said = document.createTextNode(text.slice(0, heard_characters));
    const rest = document.createElement(cut ? "s" : "span");
    rest.className = "ahead";
    rest.textContent = cut && whole.startsWith(text) ? whole.slice(text.length) : text.slice(heard_characters);
    this.answer.replaceChildren(said, rest);
    if (cut) note(this.answer, "interrupted");
    if (over) { this.last = this.answer; this.answer = null; }
    scroll();
  }

  turn({ total_ms, endpointing_ms, stt_ms, llm_ms, tts_ms }) {
    if (total_ms === null || !this.last) return;
    const parts = [["end of turn", endpointing_ms], ["ears", stt_ms], ["mind", llm_ms], ["voice", tts_ms]]
      .filter(([, ms]) => ms !== null).map(([what, ms]) => `${what} ${Math.round(ms)}`).join(" · ");
    note(this.last, `${Math.round(total_ms)} ms${parts ? ` (${parts})` : ""}`);
  }

  ask(message) {
    if (this.events && this.events.readyState === "open") this.events.send(JSON.stringify(message));
  }

  mute(on) { for (const track of this.microphone.getTracks()) track.enabled = !on; }

  leave() {
    if (this.location) fetch(this.location, { method: "DELETE", keepalive: true }).catch(() => {});
    this.location = null;
  }

  hangUp() {
    this.leave();
    this.end(ENDED.caller_hung_up, true);
  }

  end(why, inOrder = false) {
    if (this.over) return;
    this.over = true;
    this.release();
    off(inOrder ? why : STATES.off);
    if (!inOrder) problem(why);
  }

  release() {
    clearTimeout(this.timer);
    if (this.microphone) for (const track of this.microphone.getTracks()) track.stop();
    if (this.peer) setTimeout(() => this.peer.close(), 400);  // the last word is still being played
  }
}

class Refused extends Error {}

async function microphone() {
  if (!window.isSecureContext || !navigator.mediaDevices) {
    throw new Refused("The microphone needs HTTPS: open this page with https://, or on the gateway's own machine.");
  }
  try {
    return await navigator.mediaDevices.getUserMedia({
      audio: { echoCancellation: true, noiseSuppression: true, autoGainControl: true, channelCount: 1 },
    });
  } catch (error) {
    throw new Refused({
      NotAllowedError: "The microphone is not allowed. Allow it for this page in the browser's address bar.",
      NotFoundError: "There is no microphone on this device.",
      NotReadableError: "The microphone is in use by another program.",
    }[error.name] || `The microphone cannot be used (${error.name}).`);
  }
}

function gathered(peer) {
  return new Promise((done) => {
    const check = () => { if (peer.iceGatheringState === "complete") done(); };
    peer.addEventListener("icegatheringstatechange", check);
    setTimeout(done, 1500);
    check();
  });
}

async function reason(answer) {
  if (answer.status === 404) return "This gateway takes no calls over WebRTC (its extra `webrtc` is not installed).";
  const told = await answer.json().catch(() => ({}));
  return REFUSED[told.code] || told.detail || `The gateway has refused the call (${answer.status}).`;
}

function show(state) {
  $("state").dataset.state = state;
  $("state").textContent = STATES[state] || state;
}

function line(kind, text = "") {
  const item = document.createElement("li");
  item.className = kind;
  item.textContent = text;
  $("talk").append(item);
  scroll();
  return item;
}

function note(item, text) {
  const small = document.createElement("small");
  small.textContent = text;
  item.append(small);
  scroll();
}

function scroll() { $("talk").scrollTop = $("talk").scrollHeight; }

function problem(text) {
  $("problem").textContent = text;
  $("problem").hidden = !text;
}

function off(text) {
  call = null;
  $("call").textContent = "Call";
  $("call").classList.remove("on");
  $("mute").setAttribute("aria-pressed", "false");
  $("mute").textContent = "Mute";
  for (const id of ["mute", "keypad", "write", "keys", "stop"]) $(id).hidden = true;
  $("state").dataset.state = "off";
  $("state").textContent = text;
}

$("call").onclick = async () => {
  if (call) return call.hangUp();
  problem("");
  $("talk").replaceChildren();
  const mine = call = new Call();
  $("call").textContent = "Hang up";
  $("call").classList.add("on");
  try {
    await mine.begin();
  } catch (error) {
    mine.leave();
    mine.end(error instanceof Refused ? error.message : "The gateway cannot be reached. Please try again.");
  }
};

$("mute").onclick = () => {
  const on = $("mute").getAttribute("aria-pressed") !== "true";
  $("mute").setAttribute("aria-pressed", String(on));
  $("mute").textContent = on ? "Muted" : "Mute";
  if (call) call.mute(on);
};

$("keypad").onclick = () => {
  $("keys").hidden = !$("keys").hidden;
  $("keypad").setAttribute("aria-expanded", String(!$("keys").hidden));
};

$("stop").onclick = () => call && call.ask({ type: "flush" });

$("write").onsubmit = (event) => {
  event.preventDefault();
  const text = $("words").value.trim();
  if (text && call) call.ask({ type: "text", text });
  $("words").value = "";
};

for (const key of "123456789*0#") {
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = key;
  button.onclick = () => call && call.ask({ type: "dtmf", digits: key });
  $("keys").append(button);
}

addEventListener("pagehide", () => call && call.hangUp());
