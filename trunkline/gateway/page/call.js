// The call page: what is seen of a call, and who keeps it up (docs/webrtc.md). How it reaches the gateway: ways.js.
import { NoWay, Peer, Refused, Socket } from "./ways.js";

const $ = (id) => document.getElementById(id);
const given = new URLSearchParams(location.hash.slice(1));
const RETURN_MS = 60000;

const STATES = {
  off: "Press call, and talk.", asking: "Waiting for the microphone…", connecting: "Connecting…",
  returning: "The connection was lost. Trying to come back…",
  idle: "Connected.", listening: "Listening.", thinking: "One moment…", speaking: "Speaking. You may interrupt.",
  interrupted: "Go on, I am listening.",
};
const ENDED = {
  agent_hung_up: "The agent has hung up.", caller_hung_up: "You have hung up.", no_input: "Nothing was said for too long.",
  max_duration: "The call's time is up.", transferred: "You were put through.", refused: "The call was refused.",
  error: "The call has failed. Please try again.", drained: "The gateway is being restarted. Please call again.",
  overloaded: "All lines are busy. Please try again in a moment.", media_lost: "The connection was lost.",
};
const REFUSED = {
  no_token: "This page needs an invitation: open it with the link you were given.",
  token_expired: "This invitation has expired. Ask for a new one.",
  token_used: "This invitation has been used. Ask for a new one.",
  session_over: "This conversation is over. Ask for a new invitation.",
  token_malformed: "This invitation is damaged. Open the whole link you were given.",
  token_forged: "This invitation is not for this gateway.",
  no_sessions: "This gateway takes no invitations.",
  sessions_away: "The gateway is having trouble. Please try again in a moment.",
  no_path: "The gateway cannot be reached over WebRTC just now. Please try again in a moment.",
  overloaded: "All lines are busy. Please try again in a moment.",
  draining: "This gateway is being restarted. Please try again in a moment.",
  agent_away: "The agent is not there right now. Please try again in a moment.",
  origin: "Calls from this site are not allowed (devices.origins).",
};

const LOST = {
  token_used: "The connection was lost, and the conversation goes on elsewhere.",
  token_expired: "The connection was lost for too long to go on.",
  session_over: "The connection was lost, and the conversation is over.",
};

let call = null;
let token = given.get("token") || "";  // good for one call; the call itself gives the next

class Call {
  constructor() {
    this.partial = this.answer = null;
    this.over = this.around = this.returning = false;
  }

  async begin() {
    show("asking");
    this.microphone = await microphone();
    if (this.over) return this.release();
    show("connecting");
    await this.connect();
  }

  /** Raises Refused, and Away where another try may help. */
  async connect() {
    if (!this.around) {
      try {
        if (!window.RTCPeerConnection) throw new NoWay("This browser has no WebRTC");
        return await this.go(Peer);
      } catch (error) {
        if (!(error instanceof NoWay)) throw error;
        if (this.over) return;
        this.around = true;
        line("tool", `${error.message}: going over the WebSocket.`);
      }
    }
    await this.go(Socket);
  }

  async go(Kind) {
    const way = this.way = new Kind(this.microphone, {
      told: (event) => this.told(event),
      lost: () => this.comeBack(),
      renewed: (next) => { token = next; },
    });
    try {
      await way.open(token);
    } catch (error) {
      await way.leave();
      throw error;
    }
    if (this.over) way.leave();
  }

  /** The connection is lost; the conversation goes on where it was when there is one again. */
  async comeBack() {
    if (this.over) return;
    if (this.partial) this.partial.remove();
    if (this.answer) note(this.answer, "the connection was lost");
    this.partial = this.answer = null;
    $("stop").hidden = true;
    if (!token) return this.end(ENDED.media_lost);
    this.returning = true;
    show("returning");
    const until = Date.now() + RETURN_MS;
    for (let wait = 500, asked = 0; !this.over; wait = Math.min(2 * wait, 4000)) {
      if (await this.pause(Math.max(wait, asked))) wait = 250;
      if (this.over) return;
      try {
        return await this.connect();
      } catch (error) {
        if (error instanceof Refused) return this.end(LOST[error.code] || said(error));
        asked = error.after_ms || 0;
        if (Date.now() > until) return this.end("The connection was lost, and did not come back.");
      }
    }
  }

  /** True: the network has just come back. */
  pause(ms) {
    return new Promise((done) => {
      const timer = setTimeout(() => done(false), ms);
      this.wake = () => { clearTimeout(timer); done(true); };
    });
  }

  online() {
    if (this.wake) this.wake();
    if (this.way) this.way.hurry();
  }

  told(event) {
    if (event.type === "joined") {
      $("agent").textContent = event.agent || "Call";
      for (const id of ["mute", "keypad", "write"]) $(id).hidden = false;
      show("idle");
      if (this.returning) line("tool", event.resumed ? "Connected again: resumed." : "Connected again: from the beginning.");
      this.returning = false;
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
    if (!text) {  // it was nothing after all
      if (this.partial) this.partial.remove();
      this.partial = null;
      return;
    }
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

  ask(message) { if (this.way) this.way.ask(message); }

  mute(on) { for (const track of this.microphone.getTracks()) track.enabled = !on; }

  hangUp() {
    if (this.way) this.way.leave();
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
    if (this.wake) this.wake();
    if (this.microphone) for (const track of this.microphone.getTracks()) track.stop();
    if (this.way) this.way.close();
  }
}

/** Of an error, for people. */
function said(error) {
  if (error instanceof NoMicrophone) return error.message;
  if (error instanceof Refused || error.code) return REFUSED[error.code] || error.message;
  if (call && call.around) return "No way through for audio: this network blocks UDP, and the WebSocket does not open.";
  return "The gateway cannot be reached. Please try again.";
}

class NoMicrophone extends Error {}

async function microphone() {
  if (!window.isSecureContext || !navigator.mediaDevices) {
    throw new NoMicrophone("The microphone needs HTTPS: open this page with https://, or on the gateway's own machine.");
  }
  try {
    return await navigator.mediaDevices.getUserMedia({
      audio: { echoCancellation: true, noiseSuppression: true, autoGainControl: true, channelCount: 1 },
    });
  } catch (error) {
    throw new NoMicrophone({
      NotAllowedError: "The microphone is not allowed. Allow it for this page in the browser's address bar.",
      NotFoundError: "There is no microphone on this device.",
      NotReadableError: "The microphone is in use by another program.",
    }[error.name] || `The microphone cannot be used (${error.name}).`);
  }
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
    mine.end(said(error));
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

addEventListener("online", () => call && call.online());
addEventListener("pagehide", () => call && call.hangUp());
