// SPDX-License-Identifier: Apache-2.0
"use strict";

const $ = (id) => document.getElementById(id);
const KEPT = 300; // seconds of history that the charts show
const token = new URLSearchParams(location.hash.slice(1)).get("token") ?? ""; // behind #, so that no log has it
const authorized = token ? { Authorization: `Bearer ${token}` } : {};
const STATE_COLOURS = { VISIBLE: "--good", RELOCALIZING: "--warn", LOST: "--bad" };
const SCORE_COLOURS = ["--out", "--in", "--warn", "--bad", "--soft"];

// One a second: frames out, in, and means of the packets that came.
const seconds = [];
// For scripts too: the last of everything.
const viewer = (window.ultramotion = { packet: null, stats: null, lags: [], packets: 0, link: "connecting" });
let heard = 0, pace = 0, paused = false; // when the last packet came, how long after the one before; ms

if (!$("image").transferControlToOffscreen) $("what").textContent = "this page needs a browser of 2023 or later (OffscreenCanvas)";
const worker = new Worker("/worker.js");
const offscreen = $("image").transferControlToOffscreen();
const socket = `${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/live${token ? `?token=${encodeURIComponent(token)}` : ""}`;
worker.postMessage({ canvas: offscreen, url: socket }, [offscreen]);

let snapshots = [];
worker.onmessage = ({ data }) => {
  if (data.packet) onPacket(data.packet);
  if (data.stats) onStats(data.stats);
  if (data.lag) {
    viewer.lags.push(data.lag);
    if (viewer.lags.length > 2000) viewer.lags.splice(0, 1000);
  }
  if (data.link) {
    viewer.link = data.link;
    $("link").textContent = data.link === "live" ? "live" : "no connection";
    $("link").className = `badge ${data.link === "live" ? "good" : "off"}`;
    $("numbers").classList.toggle("old", data.link !== "live");
    refused = data.link === "live" ? 0 : refused + 1;
    if (data.link === "live") loadHistory();
    else whyNot();
    showState();
  }
  if (data.size) {
    const [w, h] = data.size;
    $("image").style.aspectRatio = `${w * data.aspect} / ${h}`;
    $("image").style.width = `${Math.round(w * data.aspect)}px`;
  }
  if ("snapshot" in data) snapshots.splice(0).forEach((resolve) => resolve(data.snapshot));
  if (data.problem) console.warn(data.problem);
};

// Of a connection that ends or is refused a page hears no reason; of a question it does. Where that is answered, /live alone is not, if it was
// tried again since.
let refused = 0;

async function whyNot() {
  try {
    const answer = await fetch("/stats", { headers: authorized });
    if (answer.ok && refused < 2) return;
    const why = answer.ok ? "no live connection: too many viewers, or a proxy that does not pass on Upgrade" : (await answer.json()).error;
    if (viewer.link !== "live") $("what").textContent = $("what").title = why;
  } catch { /* nobody is there */ }
}

// ---- history ----

const blank = (at) => ({ at, frames: 0, in: null, out: null, score: null, total: null, latency: null, state: null, scores: {}, counts: {}, n: 0 });

function second() {
  const at = Math.floor(Date.now() / 1000);
  while (seconds.length && seconds[seconds.length - 1].at > at) seconds.pop(); // the clock was set back
  while (!seconds.length || seconds[seconds.length - 1].at < at) {
    const last = seconds.length ? seconds[seconds.length - 1].at : at - 1;
    seconds.push(blank(Math.max(last + 1, at - KEPT)));
  }
  while (seconds.length > KEPT) seconds.shift();
  return seconds[seconds.length - 1];
}

async function loadHistory() {
  try {
    const answer = await fetch("/history", { headers: authorized });
    if (!answer.ok) return;
    const { rows } = await answer.json();
    const end = Math.floor(Date.now() / 1000);
    const old = rows.slice(-KEPT).map(([, frames, visible, lost, score, total, , latency], i, all) => ({
      ...blank(end - all.length + i), frames, out: frames, score, total, latency, n: frames ? 1 : 0,
      state: frames ? (2 * visible >= frames ? "VISIBLE" : 2 * lost >= frames ? "LOST" : "RELOCALIZING") : null,
    }));
    const known = new Map(seconds.filter((s) => s.n).map((s) => [s.at, s]));
    const merged = old.map((s) => ({ ...s, ...(known.get(s.at) ?? {}) }));
    seconds.splice(0, seconds.length, ...merged, ...seconds.filter((s) => !merged.length || s.at > merged[merged.length - 1].at));
  } catch { /* the next connection asks again */ }
}

// Of the numbers that there were: a score may be undefined in some packets of a second.
const mean = (s, name, old, value) => {
  if (!Number.isFinite(value)) return old;
  const n = s.counts[name] = (s.counts[name] ?? 0) + 1;
  return ((old ?? 0) * (n - 1) + value) / n;
};

// Every number that a packet calls a score: score itself, and what `scores` holds.
function scoresOf(packet) {
  const out = { score: packet.score };
  for (const [name, value] of Object.entries(packet.scores ?? {})) if (typeof value === "number") out[name] = value;
  return out;
}

function onPacket(packet) {
  const s = second();
  viewer.packet = packet;
  viewer.packets++;
  for (const [name, value] of Object.entries(scoresOf(packet))) s.scores[name] = mean(s, name, s.scores[name], value);
  s.score = s.scores.score;
  s.total = mean(s, "total", s.total, packet.stages_ms?.total);
  s.state = packet.state;
  s.n++;
  pace = heard ? performance.now() - heard : 0;
  heard = performance.now();
  showState();
}

// A frame that is not followed by another does not pass for what is there now.
function showState() {
  const packet = viewer.packet, state = $("state");
  if (!packet) return;
  const age = performance.now() - heard, old = !paused && (viewer.link !== "live" || age > Math.max(2000, 3 * pace));
  const tag = packet.tag && packet.tag !== "fresh" ? ` · ${packet.tag}` : "";
  state.textContent = old ? `${packet.state} ${Math.round(age / 1000)} s ago` : packet.state + tag;
  state.className = `badge ${old || packet.state === "LOST" ? "off" : packet.state === "VISIBLE" ? "good" : "warn"}`;
  $("stage").classList.toggle("old", old);
}

// ---- numbers ----

const number = (v, digits = 1) => (Number.isFinite(v) ? v.toFixed(digits) : "–");
const whole = (v) => (Number.isFinite(v) ? v.toLocaleString("en") : "–");
function bytes(v) {
  const units = ["B", "KB", "MB", "GB"];
  let i = 0;
  for (; v >= 1024 && i < 3; i++) v /= 1024;
  return `${number(v, i ? 1 : 0)} ${units[i]}`;
}

function list(id, rows) {
  const dl = $(id);
  while (dl.children.length > 2 * rows.length) dl.lastChild.remove();
  rows.forEach(([name, value, bad], i) => {
    if (!dl.children[2 * i]) dl.append(document.createElement("dt"), document.createElement("dd"));
    dl.children[2 * i].textContent = name;
    dl.children[2 * i + 1].textContent = value;
    dl.children[2 * i + 1].className = bad ? "bad" : "";
  });
}

function table(id, rows) {
  const body = $(id).tBodies[0];
  while (body.rows.length > rows.length) body.deleteRow(-1);
  rows.forEach((row, i) => {
    const tr = body.rows[i] ?? body.insertRow();
    row.forEach((text, k) => { (tr.cells[k] ?? tr.insertCell()).textContent = text; });
  });
}

function quantile(values, q) {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted.length ? sorted[Math.ceil(q * sorted.length) - 1] : NaN;
}

function onStats(stats) {
  const s = second();
  viewer.stats = stats;
  s.in = stats.fps_in;
  s.out = stats.fps_out;
  s.latency = stats.recent_ms.latency.p50;
  const lag = viewer.lags.slice(-300).map((l) => l.drawn);
  $("what").textContent = stats.source;
  $("what").title = stats.source;
  list("rates", [
    ["frames in / out", `${whole(stats.frames.in)} / ${whole(stats.frames.out)}`],
    ["fps in / out", `${number(stats.fps_in)} / ${number(stats.fps_out)}`],
    ["latency p50 / p95", `${number(stats.recent_ms.latency.p50)} / ${number(stats.recent_ms.latency.p95)} ms`],
    ["packet to screen p95", `${number(quantile(lag, 0.95))} ms`],
    ["last packet", `${number(stats.last_packet_age_s, 2)} s ago`, stats.last_packet_age_s > 1],
    ["age of data", stats.data_age_s === null ? "–" : `${number(stats.data_age_s * 1e3, 0)} ms`],
  ]);
  const t = stats.transfers;
  list("device", [
    ["device", `${stats.device} ${stats.precision}`],
    ["device load", `${number(stats.device_load * 100, 0)} %`],
    ["device_memory_bytes", bytes(stats.device_memory_bytes)],
    ["copies per frame, up / down", t.shared ? "shared memory" : `${t.up} / ${t.down}`],
    ["copies_total", whole(t.copies_total)],
    ["memory of the process", bytes(stats.process.resident_bytes)],
  ]);
  list("drops", Object.entries(stats.drops).map(([cause, n]) => [cause, whole(n), n > 0]));
  table("queues", [["frames for the pipeline", stats.queues.frames_waiting, "", ""], ["in flight", stats.queues.in_flight, "", ""],
    ...stats.sinks.map((q) => [q.failed ? `${q.name} (failed)` : q.name, `${q.waiting}/${q.capacity}`, whole(q.written), whole(q.dropped)])]);
  table("stages", Object.entries(stats.recent_ms).map(([name, v]) => [name, number(v.p50), number(v.p95), number(v.p99), number(v.max)]));
  list("counts", Object.entries(stats.counts).flatMap(([who, all]) => Object.entries(all).filter(([, n]) => n).map(([name, n]) => [`${who} ${name}`, whole(n)])));
  const choice = $("histogram-stage");
  if (!choice.options.length) {
    for (const name of Object.keys(stats.recent_ms)) choice.add(new Option(name));
    choice.value = "total";
  }
}

// ---- charts ----

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name);

function surface(id) {
  const canvas = $(id), height = Number(canvas.dataset.height), ratio = devicePixelRatio || 1, width = canvas.clientWidth;
  if (canvas.width !== Math.round(width * ratio)) {
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
    canvas.style.height = `${height}px`;
  }
  const c = canvas.getContext("2d");
  c.setTransform(ratio, 0, 0, ratio, 0, 0);
  c.clearRect(0, 0, width, height);
  c.setLineDash([]);
  c.font = "11px system-ui, sans-serif";
  return { c, width, height };
}

function lines(id, series, top, strip) {
  const { c, width, height } = surface(id), end = seconds.length ? seconds[seconds.length - 1].at : 0, low = height - (strip ? 14 : 4);
  const x = (s) => width - ((end - s.at + 0.5) / KEPT) * width, y = (v) => low - (Math.min(v, top) / top) * (low - 12);
  c.fillStyle = colour("--soft");
  c.strokeStyle = colour("--line");
  for (const v of [0, top / 2, top]) {
    c.beginPath();
    c.moveTo(0, y(v));
    c.lineTo(width, y(v));
    c.stroke();
  }
  c.fillText(number(top, top > 3 ? 0 : 1), 2, 10);
  if (strip) for (const s of seconds) if (s.state) {
    c.fillStyle = colour(STATE_COLOURS[s.state] ?? "--warn");
    c.fillRect(x(s) - width / KEPT / 2, height - 9, Math.max(1, width / KEPT), 9);
  }
  series.forEach(({ of, name, again }) => {
    let open = false;
    c.strokeStyle = colour(name);
    c.setLineDash(again ? [4, 3] : []);
    c.lineWidth = 1.6;
    c.beginPath();
    for (const s of seconds) {
      const v = of(s);
      if (!Number.isFinite(v)) { open = false; continue; }
      open ? c.lineTo(x(s), y(v)) : c.moveTo(x(s), y(v));
      open = true;
    }
    c.stroke();
  });
}

const greatest = (...of) => Math.max(1, ...seconds.flatMap((s) => of.map((f) => f(s)).filter(Number.isFinite)));
const round = (v) => { const ten = 10 ** Math.floor(Math.log10(v)); return [1, 2, 5, 10].find((k) => k * ten >= v) * ten; };

function histogram() {
  const { c, width, height } = surface("histogram"), all = viewer.stats?.histogram, stage = $("histogram-stage").value;
  if (!all || !all[stage]) return;
  const count = viewer.stats.stages_ms[stage].count, each = [...all[stage], count].map((v, i, a) => v - (i ? a[i - 1] : 0));
  const most = Math.max(1, ...each), step = width / each.length;
  each.forEach((n, i) => {
    const h = (n / most) * (height - 30);
    c.fillStyle = colour("--bar");
    c.fillRect(i * step + 1, height - 14 - h, step - 2, h);
    c.fillStyle = colour("--soft");
    c.textAlign = "center";
    c.fillText(i < all.edges_ms.length ? all.edges_ms[i] : "more", i * step + step / 2, height - 3);
    if (n) c.fillText(n, i * step + step / 2, height - 17 - h);
  });
  c.textAlign = "left";
}

function redraw() {
  if (document.hidden) return;
  showState();
  second();
  const names = [...new Set(seconds.flatMap((s) => Object.keys(s.scores)))];
  if (!names.length) names.push("score");
  const looks = names.map((_, i) => ({ name: SCORE_COLOURS[i % SCORE_COLOURS.length], again: i >= SCORE_COLOURS.length })); // dashed the second time
  const legend = $("legend"), key = names.join();
  if (legend.dataset.key !== key) {
    legend.dataset.key = key;
    legend.replaceChildren(...names.map((name) => Object.assign(document.createElement("i"), { textContent: name })));
    [...legend.children].forEach((item, i) => {
      item.style.setProperty("color", `var(${looks[i].name})`);
      item.classList.toggle("again", looks[i].again);
    });
  }
  lines("scores", names.map((name, i) => ({ of: (s) => s.scores[name] ?? (name === "score" ? s.score : null), ...looks[i] })), 1, true);
  lines("fps", [{ of: (s) => s.in, name: "--in" }, { of: (s) => s.out, name: "--out" }], round(greatest((s) => s.in, (s) => s.out)));
  lines("times", [{ of: (s) => s.latency, name: "--in" }, { of: (s) => s.total, name: "--out" }], round(greatest((s) => s.latency, (s) => s.total)));
  histogram();
}
setInterval(redraw, 500);
addEventListener("resize", redraw);

// ---- control ----

function showOpacity() {
  $("opacity-value").textContent = `${$("opacity").value} %`;
  worker.postMessage({ opacity: $("opacity").value / 100 });
}
$("opacity").addEventListener("input", showOpacity);
$("boxes").addEventListener("change", () => worker.postMessage({ boxes: $("boxes").checked }));
$("histogram-stage").addEventListener("change", redraw);

$("pause").addEventListener("click", () => {
  paused = !paused;
  heard = performance.now();
  $("pause").setAttribute("aria-pressed", paused);
  $("pause").textContent = paused ? "Go on" : "Pause";
  worker.postMessage({ paused });
});

// The image as it is shown, and the packet's own line.
viewer.snapshot = () => new Promise((resolve) => {
  snapshots.push(resolve);
  worker.postMessage({ snapshot: true });
});
function save(blob, name) {
  const a = Object.assign(document.createElement("a"), { href: URL.createObjectURL(blob), download: name });
  a.click();
  setTimeout(() => URL.revokeObjectURL(a.href), 10000);
}
$("snapshot").addEventListener("click", async () => {
  const taken = await viewer.snapshot();
  if (!taken) return;
  const name = `frame_${String(JSON.parse(taken.line).frame_id).padStart(5, "0")}`;
  save(taken.blob, `${name}.png`);
  save(new Blob([taken.line, "\n"], { type: "application/json" }), `${name}.json`);
});

let fading; // of the last answer
$("control").addEventListener("submit", async (event) => {
  event.preventDefault();
  const want = {};
  for (const key of ["conf", "objects"]) if ($(key).value !== "") want[key] = Number($(key).value);
  const answer = $("control-answer");
  if (!Object.keys(want).length) return;
  try {
    const got = await fetch("/control", { method: "POST", headers: { ...authorized, "Content-Type": "application/json" }, body: JSON.stringify(want) });
    answer.textContent = got.ok ? "done" : (await got.json()).error;
  } catch (error) {
    answer.textContent = String(error);
  }
  clearTimeout(fading);
  fading = setTimeout(() => { answer.textContent = ""; }, 6000);
});

const wished = localStorage.getItem("theme");
document.documentElement.dataset.theme = wished ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
$("theme").addEventListener("click", () => {
  const theme = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
  document.documentElement.dataset.theme = theme;
  localStorage.setItem("theme", theme);
  redraw();
});
