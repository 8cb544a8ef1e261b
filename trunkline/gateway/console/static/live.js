// Live calls: what the gateway tells (server-sent events) goes into the page as text. After a connection that was lost,
// or news that were, the page's part is asked for again: it is never pieced together from what might be missing.
"use strict";

const MOST_HAPPENED = 100;
const words = new Map();

function clock(seconds) {
  const two = (number) => String(number).padStart(2, "0");
  const [hours, minutes, rest] = [Math.floor(seconds / 3600), Math.floor(seconds / 60) % 60, Math.floor(seconds % 60)];
  if (seconds < 60) return `${rest} s`;
  return hours ? `${hours}:${two(minutes)}:${two(rest)}` : `${minutes}:${two(rest)}`;
}

function tick() {
  for (const each of document.querySelectorAll("[data-since]:not([data-stopped])")) {
    const at = Date.parse(each.dataset.since);
    if (!Number.isNaN(at)) each.textContent = clock(Math.max(0, (Date.now() - at) / 1000));
  }
}

function put(root, name, text) {
  const place = root.querySelector(`[data-${name}]`);
  if (place && text != null) place.textContent = text;
  return place;
}

function node(name, text, kind) {
  const made = document.createElement(name);
  made.textContent = text;
  if (kind) made.className = kind;
  return made;
}

// How much was told so far. A page that was made before something was told may lack it: it is asked for again.
let told = 0;
const AGAIN_MOST = 5;

async function again(root) {
  for (let times = 1; ; times++) {
    const before = told;
    const fresh = await fetched(root);
    if (!fresh || before === told || times === AGAIN_MOST) return fresh;
  }
}

async function fetched(root) {
  const answer = await fetch(root.dataset.page, { headers: { Accept: "text/html" } });
  if (!answer.ok || answer.redirected) return false;
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  const fresh = page.querySelector(`[data-page="${CSS.escape(root.dataset.page)}"]`);
  return fresh || false;
}

function listen(source, kind, act) {
  source.addEventListener(kind, (event) => {
    told += 1;
    act(JSON.parse(event.data));
  });
}

// --- the list ---

function row(root, id) {
  return root.querySelector(`tr[data-call="${CSS.escape(id)}"]`);
}

function counted(root) {
  const count = root.querySelectorAll("tr[data-call]").length;
  put(document, "count", count);
  root.querySelector("[data-table]").hidden = !count;
  root.querySelector("[data-none]").hidden = Boolean(count);
}

function began(root, call) {
  if (row(root, call.id)) return;
  const made = document.getElementById("row").content.firstElementChild.cloneNode(true);
  made.dataset.call = call.id;
  put(made, "theirs", `${call.direction === "inbound" ? "↙" : "↗"} ${call.theirs}`).href = `${root.dataset.page}/${call.id}`;
  put(made, "ours", call.ours);
  put(made, "agent", call.agent);
  put(made, "state", call.state);
  made.querySelector("[data-since]").dataset.since = call.at;
  root.querySelector("tbody").prepend(made);
  tick();
  counted(root);
}

function lastWords(root, id, text) {
  if (!text) return;
  words.set(id, text);
  const there = row(root, id);
  if (there) put(there, "words", text);
}

function list(root, source) {
  const on = (kind, act) => listen(source, kind, act);
  on("call.started", (call) => began(root, call));
  on("call.event", (news) => {
    const there = row(root, news.id);
    if (there) put(there, "state", news.state);
  });
  on("call.turn", (turn) => {
    const there = row(root, turn.id);
    if (there) put(there, "state", turn.state);
    lastWords(root, turn.id, turn.agent_text || turn.caller_text);
  });
  on("call.ended", (news) => {
    words.delete(news.id);
    row(root, news.id)?.remove();
    counted(root);
  });
  const whole = async () => {
    const fresh = await again(root);
    if (!fresh) return;
    root.replaceChildren(...fresh.childNodes);
    for (const [id, text] of words) lastWords(root, id, text);
    counted(root);
    tick();
  };
  on("dropped", whole);
  return whole;
}

// --- one call ---

function said(root, turn) {
  const place = root.querySelector("[data-said]");
  if (!place || turn.agent_text === undefined) return;
  const made = document.createElement("li");
  made.dataset.turn = turn.index;
  const speaks = (who, kind, text) => {
    const line = node("p", "", kind);
    line.append(node("b", who, "hidden"), ` ${text}`);
    made.append(line);
    return line;
  };
  if (turn.caller_text) speaks("Caller:", "caller", turn.caller_text);
  if (turn.agent_text || turn.cut_text) {
    const line = speaks("Agent:", "agent", turn.agent_text);
    if (turn.cut_text) line.append(" ", node("del", turn.cut_text));
  }
  const there = place.querySelector(`[data-turn="${Number(turn.index)}"]`);
  if (there) there.replaceWith(made);
  else place.append(made);
  place.scrollTop = place.scrollHeight;
  const quiet = root.querySelector("[data-quiet]");
  if (quiet) quiet.hidden = true;
}

function happened(root, at, text) {
  const place = root.querySelector("[data-happened]");
  const line = document.createElement("li");
  const when = node("time", new Date(at).toLocaleTimeString([], kinds.time), "faint");
  when.dateTime = at;
  line.append(when, ` ${text}`);
  place.prepend(line);
  while (place.children.length > MOST_HAPPENED) place.lastElementChild.remove();
  root.querySelector("[data-hush]").hidden = true;
}

function over(root, why) {
  put(document, "state", "ended")?.classList.remove("good");
  put(document, "why", why);
  document.querySelector("[data-over]").hidden = false;
  for (const each of document.querySelectorAll("[data-hands]")) each.hidden = true;
  for (const each of document.querySelectorAll("[data-since]")) each.dataset.stopped = "";
  put(document, "connection", "");
}

function one(root, source) {
  const on = (kind, act) => listen(source, kind, act);
  on("call.event", (news) => {
    put(document, "state", news.state);
    happened(root, news.at, news.what);
  });
  on("call.turn", (turn) => {
    put(document, "state", turn.state);
    said(root, turn);
  });
  on("call.ended", (news) => {
    source.close();
    happened(root, news.at, `ended: ${news.why}`);
    over(root, `The call is over: ${news.why}.`);
  });
  const whole = async () => {
    const fresh = await again(root);
    if (!fresh) {
      source.close();
      over(root, "The call is over.");
      return;
    }
    const events = root.querySelector("[data-happened]");
    events.replaceChildren(...fresh.querySelector("[data-happened]").childNodes);
    root.querySelector("[data-hush]").hidden = events.children.length > 0;
    showTimes(events);
    const place = root.querySelector("[data-said]");
    const words = fresh.querySelector("[data-said]");
    if (place && words) {
      place.replaceChildren(...words.childNodes);
      root.querySelector("[data-quiet]").hidden = place.children.length > 0;
    }
  };
  on("dropped", whole);
  return whole;
}

document.addEventListener("DOMContentLoaded", () => {
  const root = document.querySelector("[data-live]");
  if (!root) return;
  const source = new EventSource(root.dataset.live);
  const whole = root.dataset.one ? one(root, source) : list(root, source);
  const shows = document.querySelector("[data-connection]");
  source.addEventListener("open", () => {
    shows.textContent = "● live";
    shows.className = "good";
    whole();
  });
  source.addEventListener("error", () => {
    if (!document.querySelector("[data-over]:not([hidden])")) {
      shows.textContent = "not connected: trying again";
      shows.className = "warn";
    }
  });
  setInterval(tick, 1000);
  tick();
});
