// SPDX-License-Identifier: Apache-2.0
// Receives frames and draws them, away from the page, which may be busy. docs/VIEWER.md has the messages.
"use strict";

const PALETTE = [[79, 209, 197], [246, 173, 85], [159, 122, 234], [104, 211, 145], [252, 129, 129], [99, 179, 237], [246, 224, 94], [237, 100, 166]];
const HEAD = 24;
let canvas, context, mask, maskContext, url, socket;
let opacity = 0.45, boxes = true, paused = false, patience = 250;
let waiting = null, drawing = false, shown = null; // shown: what the canvas holds
let aspect = 1; // of a pixel
let clocks = []; // what pings said: how far the server's clock is before ours

const now = () => (performance.timeOrigin + performance.now()) / 1000;
const offset = () => (clocks.length ? clocks.reduce((a, b) => (b.trip < a.trip ? b : a)).offset : 0);

// COCO's compressed runs: of 0 and 1 in turn, down the columns.
function runs(text) {
  const out = [];
  for (let at = 0; at < text.length;) {
    let value = 0, k = 0, code;
    do {
      code = text.charCodeAt(at++) - 48;
      value |= (code & 31) << (5 * k++);
    } while (code & 32);
    if (code & 16) value |= -1 << (5 * k);
    if (out.length > 2) value += out[out.length - 2];
    out.push(value);
  }
  return out;
}

function paint(pixels, rle, colour) {
  const [height, width] = rle.size, word = (255 << 24) | (colour[2] << 16) | (colour[1] << 8) | colour[0];
  let x = 0, y = 0, on = false;
  for (let n of runs(rle.counts)) {
    while (n > 0) {
      const part = Math.min(n, height - y);
      if (on) for (let i = y; i < y + part; i++) pixels[i * width + x] = word;
      y += part;
      n -= part;
      if (y === height) { y = 0; x++; }
    }
    on = !on;
  }
}

function found(packet) {
  if (packet.objects && packet.objects.length) return packet.objects;
  return packet.box_xyxy || packet.mask ? [packet] : [];
}

function draw(frame) {
  const { packet, bitmap } = frame;
  const first = found(packet).find((o) => o.mask);
  const width = bitmap ? bitmap.width : first ? first.mask.size[1] : canvas.width;
  const height = bitmap ? bitmap.height : first ? first.mask.size[0] : canvas.height;
  const [across, down] = packet.spacing_mm ?? [1, 1];
  if (canvas.width !== width || canvas.height !== height || across / down !== aspect || !mask) {
    aspect = across / down;
    canvas.width = width;
    canvas.height = height;
    mask = new OffscreenCanvas(width, height);
    maskContext = mask.getContext("2d", { willReadFrequently: true });
    frame.overlay = null;
    postMessage({ size: [width, height], aspect });
  }
  if (bitmap) context.drawImage(bitmap, 0, 0);
  else context.clearRect(0, 0, width, height);
  const objects = found(packet);
  if (objects.some((o) => o.mask)) {
    if (!frame.overlay) {
      frame.overlay = new ImageData(width, height);
      const pixels = new Uint32Array(frame.overlay.data.buffer);
      for (let i = objects.length - 1; i >= 0; i--) // where several overlap, the best
        if (objects[i].mask) paint(pixels, objects[i].mask, PALETTE[i % PALETTE.length]);
    }
    maskContext.putImageData(frame.overlay, 0, 0);
    context.globalAlpha = opacity;
    context.drawImage(mask, 0, 0);
    context.globalAlpha = 1;
  }
  if (!boxes) return;
  const unit = Math.max(1, width / 420);
  context.lineWidth = 1.5 * unit;
  if (packet.crop) { // what the networks looked at
    context.strokeStyle = "rgb(110, 110, 120)";
    context.strokeRect(...packet.crop);
  }
  context.font = `${12 * unit}px system-ui, sans-serif`;
  objects.forEach((o, i) => {
    if (!o.box_xyxy) return;
    const [x0, y0, x1, y1] = o.box_xyxy, colour = `rgb(${PALETTE[i % PALETTE.length]})`;
    context.strokeStyle = colour;
    context.strokeRect(x0, y0, x1 - x0, y1 - y0);
    // A name of any script and length leaves the score as it is: isolated, and cut.
    const name = [...(o.name ?? `class ${o.label}`)], short = name.length > 40 ? [...name.slice(0, 39), "…"] : name;
    const text = `\u2068${short.join("")}\u2069 ${o.score.toFixed(2)}`, high = 16 * unit;
    const wide = Math.min(context.measureText(text).width + 6 * unit, width);
    const x = Math.max(0, Math.min(x0, width - wide)), above = y0 - high, y = above >= 0 ? above : Math.min(y1, height - high);
    context.fillStyle = "rgba(0, 0, 0, 0.65)"; // to be read on bright images, too
    context.fillRect(x, y, wide, high);
    context.fillStyle = colour;
    context.fillText(text, x + 3 * unit, y + 12 * unit, wide - 6 * unit);
  });
}

// What the page shows of a packet; the runs of a mask are long, and drawn already.
function told(packet) {
  const short = (o) => ({ ...o, mask: o.mask && { size: o.mask.size } });
  return { ...short(packet), objects: (packet.objects ?? []).map(short) };
}

async function work() {
  if (drawing) return;
  drawing = true;
  while (waiting) {
    const data = waiting;
    waiting = null;
    try {
      const view = new DataView(data);
      const text = view.getUint32(4, true), bytes = view.getUint32(8, true), sent = view.getFloat64(16, true);
      const line = new TextDecoder().decode(new Uint8Array(data, HEAD, text));
      const packet = JSON.parse(line);
      const bitmap = bytes ? await createImageBitmap(new Blob([new Uint8Array(data, HEAD + text, bytes)], { type: "image/jpeg" })) : null;
      shown?.bitmap?.close();
      shown = { packet, line, bitmap, overlay: null };
      draw(shown);
      const drawn = now() + offset() - sent;
      postMessage({ packet: told(packet) });
      // The browser takes the canvas over when this task ends, and shows it with its next frame.
      requestAnimationFrame(() => postMessage({ lag: { drawn: drawn * 1e3, shown: (now() + offset() - sent) * 1e3 } }));
    } catch (error) {
      postMessage({ problem: String(error) });
    }
  }
  drawing = false;
}

function ping() {
  if (socket?.readyState === WebSocket.OPEN) socket.send(JSON.stringify({ ping: now() }));
}

function connect() {
  socket = new WebSocket(url);
  socket.binaryType = "arraybuffer";
  socket.onopen = () => {
    patience = 250;
    clocks = [];
    if (paused) socket.send('{"stream":false}');
    ping();
    postMessage({ link: "live" });
  };
  socket.onmessage = ({ data }) => {
    if (data instanceof ArrayBuffer) {
      if (paused) return;
      waiting = data; // the newest wins
      work();
      return;
    }
    const message = JSON.parse(data);
    if ("ping" in message) {
      const trip = now() - message.ping;
      clocks.push({ trip, offset: message.clock - message.ping - trip / 2 });
      clocks = clocks.slice(-12);
    } else {
      postMessage({ stats: message });
    }
  };
  socket.onclose = () => {
    postMessage({ link: "lost" });
    setTimeout(connect, patience);
    patience = Math.min(patience * 2, 5000);
  };
}

async function snapshot() {
  if (!shown) return postMessage({ snapshot: null });
  draw(shown); // the bitmap of an OffscreenCanvas may have been handed to the page
  const line = shown.line, blob = await canvas.convertToBlob({ type: "image/png" });
  postMessage({ snapshot: { line, blob } });
}

onmessage = ({ data }) => {
  if (data.canvas) {
    canvas = data.canvas;
    context = canvas.getContext("2d", { alpha: false, desynchronized: true });
    url = data.url;
    connect();
    setInterval(ping, 5000);
  }
  if ("opacity" in data) opacity = data.opacity;
  if ("boxes" in data) boxes = data.boxes;
  if (("opacity" in data || "boxes" in data) && shown) draw(shown);
  if ("paused" in data) {
    paused = data.paused;
    if (socket?.readyState === WebSocket.OPEN) socket.send(JSON.stringify({ stream: !paused }));
  }
  if (data.snapshot) snapshot();
};
