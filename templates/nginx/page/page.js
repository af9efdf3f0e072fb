// The status page: asks the gateway how everything is, and one model for an answer. What comes from outside becomes text only.
"use strict";

const EVERY = 2000; // milliseconds between two looks, while somebody sees the page
const SLOWEST = 30000; // after failures
const WINDOW = 30; // seconds that rates are taken over
const STATES = { up: "ready", starting: "starting", down: "not answering" };
const KEY = "llm-appliance-key";

const find = (id) => document.getElementById(id);
const list = (value) => (Array.isArray(value) ? value : []); // the gateway's JSON has {} for a list of nothing

function make(tag, name, ...children) {
  const element = document.createElement(tag);
  if (name) element.className = name;
  element.append(...children);
  return element;
}

// Only what differs is written: focus, selections and open parts of the page stay as they are.
function put(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

function number(value, digits = 0) {
  return value.toLocaleString("en", { maximumFractionDigits: digits, minimumFractionDigits: 0 });
}
const rate = (value) => number(value, value < 10 ? 2 : value < 100 ? 1 : 0);
const gib = (bytes) => number(bytes / 2 ** 30, 1);
const time = (seconds) => (seconds < 1 ? `${number(seconds * 1000)} ms` : `${number(seconds, 2)} s`);
function lasted(seconds) {
  if (seconds < 90) return `${seconds} s`;
  return seconds < 5400 ? `${Math.round(seconds / 60)} min` : `${Math.round(seconds / 3600)} h`;
}

// ---------------------------------------------------------------------------------------------------- the key

const key = () => sessionStorage.getItem(KEY) || "";
const headers = () => (key() ? { Authorization: `Bearer ${key()}` } : {});

function showKey(open) {
  find("key-form").hidden = !open;
  find("key-button").setAttribute("aria-expanded", String(open));
  put(find("key-button"), key() ? "Key ✓" : "Key");
  find("forget").hidden = !key();
}

function problem(text) {
  put(find("problem"), text);
  find("problem").hidden = !text;
}

async function refusal(answer) {
  try {
    return (await answer.json()).error.message;
  } catch {
    return `the gateway answers ${answer.status}`;
  }
}

// ---------------------------------------------------------------------------------------------------- rates

const seen = []; // { time, models: name -> [requests, tokens] }, oldest first

function sums(counters) {
  const replicas = list(counters && counters.replicas);
  const sum = (what) => replicas.reduce((total, one) => total + (one[what] || 0), 0);
  return { requests: sum("requests"), tokens: sum("output_tokens"), flight: sum("in_flight"), waiting: (counters && counters.queue) || 0 };
}

// Requests and tokens a second of the models that have these names.
function rates(names, last = seen.length - 1) {
  const now = seen[last];
  const then = seen.find((one) => now && now.time - one.time <= WINDOW) || now;
  if (!now || now.time <= then.time) return { requests: 0, tokens: 0 };
  const each = (at) => names.reduce((sum, name) => sum + Math.max(0, (now.models[name] || [0, 0])[at] - (then.models[name] || now.models[name] || [0, 0])[at]), 0);
  return { requests: each(0) / (now.time - then.time), tokens: each(1) / (now.time - then.time) };
}

function note(told) {
  const models = Object.fromEntries(list(told.models).filter((one) => one.counters).map((one) => {
    const { requests, tokens } = sums(one.counters);
    return [one.name, [requests, tokens]];
  }));
  seen.push({ time: told.time, models });
  while (seen[0].time < told.time - 3 * WINDOW) seen.shift();
}

// Time to the first piece of an answer, mean over all that were served.
function firstPiece(models) {
  let total = 0, weight = 0;
  for (const replica of models.flatMap((one) => list(one.counters && one.counters.replicas))) {
    if (typeof replica.ttft === "number") {
      total += replica.ttft * replica.requests;
      weight += replica.requests;
    }
  }
  return weight ? time(total / weight) : "–";
}

function spark(values) {
  const most = Math.max(...values, 1e-9), step = 100 / Math.max(1, values.length - 1);
  const points = values.map((value, n) => `${(n * step).toFixed(1)},${(38 - (34 * value) / most).toFixed(1)}`);
  return values.length > 2 && most > 1e-9 ? `M0,40 L${points.join(" L")} L100,40 Z` : "";
}

const tiles = {};
function tile(title, value, unit, line) {
  if (!tiles[title]) {
    const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
    svg.setAttribute("viewBox", "0 0 100 40");
    svg.setAttribute("preserveAspectRatio", "none");
    svg.setAttribute("aria-hidden", "true");
    path.setAttribute("fill", "currentColor");
    svg.append(path);
    const parts = { value: make("span", ""), unit: make("small", ""), path };
    find("rates").append(make("div", "tile", svg, make("dt", "", title), make("dd", "", parts.value, " ", parts.unit)));
    tiles[title] = parts;
  }
  put(tiles[title].value, value);
  put(tiles[title].unit, unit || "");
  tiles[title].path.setAttribute("d", line ? spark(line) : "");
}

function showRates(models) {
  const names = models.map((one) => one.name), { requests, tokens } = rates(names);
  const past = seen.map((_, place) => rates(names, place));
  const all = models.map((one) => sums(one.counters));
  const waiting = all.reduce((sum, one) => sum + one.waiting, 0);
  tile("Requests", rate(requests), "/s", past.map((one) => one.requests));
  tile("Tokens", rate(tokens), "/s", past.map((one) => one.tokens));
  tile("In flight", number(all.reduce((sum, one) => sum + one.flight, 0)), waiting ? `+ ${number(waiting)} waiting` : "");
  tile("First byte, mean", ...firstPiece(models).split(" "));
}

// ---------------------------------------------------------------------------------------------------- models

const cards = new Map();

function command(name, task) {
  const guard = key() ? ' \\\n  -H "Authorization: Bearer $LLM_KEY"' : "";
  const bodies = { embed: ["embeddings", `"input": "Hello!"`], rerank: ["rerank", `"query": "Hello!", "documents": ["Hi.", "Bye."]`] };
  const [path, body] = bodies[task] || ["chat/completions", `"messages": [{"role": "user", "content": "Hello!"}]`];
  return `curl ${location.origin}/v1/${path}${guard} \\\n  -d '{"model": "${name}", ${body}}'`;
}

async function copy(button, element) {
  const text = element.textContent;
  try {
    await navigator.clipboard.writeText(text); // not there on plain http, but from this machine
    put(button, "Copied");
  } catch {
    getSelection().selectAllChildren(element);
    put(button, document.execCommand("copy") ? "Copied" : "Selected");
  }
  setTimeout(() => put(button, "Copy"), 1500);
}

function card(name) {
  const parts = { title: make("h3", "", name), state: make("span", "state"), about: make("p", "quiet"), figures: make("dl", "figures"), replicas: make("ul", "replicas"), curl: make("pre", "") };
  const button = make("button", "small", "Copy");
  button.type = "button";
  button.setAttribute("aria-label", `Copy the command for ${name}`);
  button.addEventListener("click", () => copy(button, parts.curl));
  const use = make("details", "", make("summary", "", "How to ask it"), make("div", "use", parts.curl, button));
  parts.root = make("li", "model", make("div", "head", make("span", "dot"), parts.title, parts.state), parts.about, parts.figures, parts.replicas, use);
  return parts;
}

function figures(parts, rows) {
  const text = JSON.stringify(rows);
  if (parts.shown === text) return;
  parts.shown = text;
  parts.figures.replaceChildren(...rows.map(([title, value]) => make("div", "", make("dt", "", title), make("dd", "", value))));
}

function showReplicas(parts, replicas) {
  const text = JSON.stringify(replicas.map((one) => [one.name, one.state, one.in_flight, one.limit]));
  if (parts.listed === text) return;
  parts.listed = text;
  parts.replicas.replaceChildren(...(replicas.length < 2 ? [] : replicas).map((one) => {
    const flight = `${one.in_flight}${one.limit ? ` of ${one.limit}` : ""} in flight`;
    return make("li", one.state, make("span", "dot"), make("span", "name", one.name), make("span", "quiet", one.state === "up" ? flight : STATES[one.state] || one.state));
  }));
}

function showModel(one, aliases) {
  const parts = cards.get(one.name) || card(one.name);
  if (!cards.has(one.name)) cards.set(one.name, parts);
  parts.root.className = `model ${one.state}`;
  put(parts.state, (STATES[one.state] || one.state) + (one.state === "starting" && one.seconds > 1 ? `, ${lasted(one.seconds)}` : ""));
  const about = [one.engine, one.split && "shared between models", one.of && `another name of ${one.of}`, one.task && one.task !== "chat" && one.task, one.context > 0 && `${number(one.context)} tokens of context`, aliases.length && `also ${aliases.join(", ")}`];
  put(parts.about, about.filter(Boolean).join(" · "));
  put(parts.curl, command(one.name, one.task));
  const told = sums(one.counters), now = rates([one.name]);
  figures(parts, told.requests || told.flight || told.waiting ? [["requests/s", rate(now.requests)], ["tokens/s", rate(now.tokens)], ["in flight", number(told.flight) + (told.waiting ? ` + ${number(told.waiting)} waiting` : "")], ["first byte", firstPiece([one])], ["served", number(told.requests)]] : []);
  showReplicas(parts, list(one.counters && one.counters.replicas));
  return parts.root;
}

function showModels(told) {
  const names = new Set(told.map((one) => one.name));
  const own = told.filter((one) => !names.has(one.of));
  const roots = own.map((one) => showModel(one, told.filter((other) => other.of === one.name).map((other) => other.name)));
  for (const [name, parts] of cards) {
    if (!own.some((one) => one.name === name)) {
      parts.root.remove();
      cards.delete(name);
    }
  }
  roots.forEach((root, place) => {
    if (find("models").children[place] !== root) find("models").insertBefore(root, find("models").children[place] || null);
  });
  const ready = own.filter((one) => one.state === "up").length;
  const words = own.length ? `${ready} of ${own.length} ${own.length === 1 ? "model" : "models"} ready` : "no model yet: llm-appliance add-model NAME";
  put(find("summary"), words);
  document.title = own.length ? `${ready}/${own.length} ready · LLM appliance` : "LLM appliance";
  offer(own.filter((one) => !one.task || one.task === "chat"));
  return own;
}

function showDevices(devices, models) {
  const taken = devices.map((device) => ({ ...device, parts: models.map((one, shade) => ({ name: one.name, shade: shade % 8, bytes: Object.values(one.loads || {}).reduce((sum, loads) => sum + (loads[device.device] || 0), 0) })).filter((part) => part.bytes) }));
  const text = JSON.stringify(taken);
  if (find("devices").dataset.shown === text) return;
  find("devices").dataset.shown = text;
  find("devices").replaceChildren(...taken.map((device) => {
    const planned = device.parts.reduce((sum, part) => sum + part.bytes, 0);
    const bar = make("div", "bar"), rest = make("span", "");
    for (const part of device.parts) {
      const piece = make("span", `part shade-${part.shade}`);
      piece.style.flex = `${part.bytes} 0 0`;
      bar.append(piece);
    }
    rest.style.flex = `${Math.max(0, device.memory - planned)} 0 0`;
    bar.append(rest);
    const title = device.device === "ram" ? "RAM" : `${device.device}  ${device.name}`;
    const parts = device.parts.map((part) => make("span", `shade-${part.shade}`, make("span", "dot"), `${part.name} ${gib(part.bytes)}`));
    return make("li", "", make("div", "device", title, make("span", "quiet", `${gib(planned)} of ${device.memory ? gib(device.memory) : "?"} GiB`)), bar, make("div", "parts", ...parts));
  }));
}

// ---------------------------------------------------------------------------------------------------- looking

let timer = 0, wait = EVERY, looks = 0;

function show(told) {
  const models = showModels(list(told.models));
  find("rates").hidden = find("memory").hidden = !told.counters;
  find("no-counters").hidden = told.counters;
  if (told.counters) {
    note(told);
    showRates(models);
    showDevices(list(told.devices), models);
  }
}

async function look() {
  clearTimeout(timer);
  const turn = ++looks;
  try {
    const answer = await fetch("/gateway/page", { headers: headers(), cache: "no-store", redirect: "error", signal: AbortSignal.timeout(10000) });
    if (turn !== looks) return;
    if (!answer.ok) {
      const message = await refusal(answer);
      if (answer.status === 401 && find("key-form").hidden) showKey(true);
      problem(answer.status === 401 && !key() ? "" : `The gateway says: ${message}`);
      put(find("summary"), answer.status === 401 ? "a key is needed" : "no answer");
      wait = answer.status === 401 ? SLOWEST : Math.min(SLOWEST, wait * 2);
    } else {
      const told = await answer.json();
      show(told);
      problem("");
      wait = EVERY * Math.max(1, Math.ceil(list(told.models).length / 100));
    }
  } catch {
    if (turn !== looks) return;
    problem("The gateway does not answer; trying again.");
    wait = Math.min(SLOWEST, wait * 2);
  }
  clearTimeout(timer);
  if (!document.hidden) timer = setTimeout(look, wait);
}

// ---------------------------------------------------------------------------------------------------- chat

let messages = [], asking = null;

function offer(models) {
  const text = JSON.stringify(models.map((one) => [one.name, one.state]));
  const select = find("model");
  if (select.dataset.shown === text) return;
  select.dataset.shown = text;
  const before = select.value;
  select.replaceChildren(...models.map((one) => {
    const option = make("option", "", one.name + (one.state === "up" ? "" : ` (${STATES[one.state]})`));
    option.value = one.name;
    return option;
  }));
  const ready = models.find((one) => one.state === "up");
  select.value = models.some((one) => one.name === before) ? before : (ready || models[0] || { name: "" }).name;
  find("send").disabled = !models.length;
}

function say(kind, text) {
  const parts = { thought: make("span", "thought"), text: make("span", "text", text), note: make("span", "note quiet") };
  parts.root = make("div", `said ${kind}`, ...(kind === "user" ? [parts.text] : [parts.thought, parts.text, parts.note]));
  find("answers").append(parts.root);
  find("answers").scrollTop = find("answers").scrollHeight;
  return parts;
}

// The data of each event of a stream, decoded.
async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    const lines = (rest + (value || "")).split(/\r?\n/);
    rest = done ? "" : lines.pop();
    for (const line of lines) {
      const data = line.startsWith("data:") ? line.slice(5).trim() : "";
      if (data && data !== "[DONE]") yield JSON.parse(data);
    }
    if (done) return;
  }
}

function write(bubble, event) {
  const delta = ((event.choices || [])[0] || {}).delta || {};
  const answers = find("answers");
  const below = answers.scrollHeight - answers.scrollTop - answers.clientHeight < 60;
  bubble.thought.append(delta.reasoning_content || delta.reasoning || "");
  bubble.text.append(delta.content || "");
  if (below) answers.scrollTop = answers.scrollHeight;
  return Boolean(delta.content || delta.reasoning_content || delta.reasoning);
}

function summary(began, first, pieces, usage) {
  const tokens = (usage && usage.completion_tokens) || pieces, spent = (performance.now() - first) / 1000;
  const speed = tokens > 1 && spent > 0.2 ? ` · ${rate((tokens - 1) / spent)} tokens/s` : "";
  return `${number(tokens)} tokens · first after ${time((first - began) / 1000)}${speed}`;
}

async function answerTo(bubble, signal) {
  const began = performance.now();
  let first = 0, pieces = 0, usage = null;
  const body = JSON.stringify({ model: find("model").value, messages, stream: true, stream_options: { include_usage: true } });
  const answer = await fetch("/v1/chat/completions", { method: "POST", headers: { ...headers(), "Content-Type": "application/json" }, body, signal, redirect: "error" });
  if (!answer.ok) {
    if (answer.status === 401) showKey(true);
    throw new Error(await refusal(answer));
  }
  for await (const event of events(answer.body)) {
    if (event.error) throw new Error(event.error.message || "the answer broke off");
    if (write(bubble, event)) {
      pieces += 1;
      first = first || performance.now();
    }
    usage = event.usage || usage;
  }
  put(bubble.note, first ? summary(began, first, pieces, usage) : "an empty answer");
}

function busy(on) {
  find("send").hidden = on;
  find("stop").hidden = !on;
  find("answers").setAttribute("aria-busy", String(on));
}

async function ask() {
  const text = find("prompt").value.trim();
  if (!text || asking || !find("model").value) return;
  asking = new AbortController();
  const mine = asking, turn = messages;
  find("prompt").value = "";
  say("user", text);
  turn.push({ role: "user", content: text });
  const bubble = say("assistant waiting", "");
  busy(true);
  try {
    await answerTo(bubble, mine.signal);
  } catch (error) {
    const stopped = mine.signal.aborted;
    bubble.note.className = stopped ? "note quiet" : "note failed";
    put(bubble.note, stopped ? "stopped" : error.message);
  }
  bubble.root.classList.remove("waiting");
  if (bubble.text.textContent) turn.push({ role: "assistant", content: bubble.text.textContent });
  else turn.pop();
  if (asking === mine) {
    asking = null;
    busy(false);
    find("prompt").focus();
  }
}

function stop() {
  if (asking) asking.abort();
}

// ---------------------------------------------------------------------------------------------------- what a person does

function forgetTalk() {
  stop();
  messages = [];
  find("answers").replaceChildren();
  find("prompt").focus();
}

find("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  ask();
});
find("prompt").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    ask();
  }
});
document.addEventListener("keydown", (event) => event.key === "Escape" && stop());
find("stop").addEventListener("click", stop);
find("clear").addEventListener("click", forgetTalk);
find("copy-base").addEventListener("click", () => copy(find("copy-base"), find("base")));
find("key-button").addEventListener("click", () => {
  showKey(find("key-form").hidden);
  if (!find("key-form").hidden) find("key").focus();
});
find("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  if (find("key").value.trim()) sessionStorage.setItem(KEY, find("key").value.trim());
  find("key").value = "";
  showKey(false);
  look();
});
find("forget").addEventListener("click", () => {
  sessionStorage.removeItem(KEY);
  location.reload();
});
document.addEventListener("visibilitychange", () => {
  clearTimeout(timer);
  if (!document.hidden) look();
});

put(find("base"), `${location.origin}/v1`);
showKey(false);
look();
