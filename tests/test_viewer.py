#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The viewer's page in a browser (Chromium; without one the tests are skipped).

    test_viewer.py COMMAND [TEST...]
    test_viewer.py COMMAND --measure      from packet to pixel at 30 and 60 frames a second, and 20 viewers; JSON lines
    test_viewer.py COMMAND --screenshots FOLDER
"""

import base64
import contextlib
import json
import re
import struct
import subprocess
import sys
import threading
import time
import zlib
from pathlib import Path

import browser
from command import COMMAND, Skip, main, test
from served import Run, frame_of
from websocket import WebSocket

SWEEP = "phantom:seed=900001,frames=200,empty=0"
FULL = ["--det-size", "256", "--sam-size", "256"]  # as the shipped model wants it; tests of the server do with less
FIRST = (79, 209, 197)        # colour of the first object


def opened(**how):
    if not browser.PROGRAM:
        raise Skip("no chromium (Debian's package chromium)")
    return browser.Browser(**how)


def runs(text):
    """COCO's compressed runs, read as pycocotools does."""
    out, at = [], 0
    while at < len(text):
        value, k, more = 0, 0, True
        while more:
            code = ord(text[at]) - 48
            at += 1
            value |= (code & 31) << 5 * k
            more, k = code & 32, k + 1
            if not more and code & 16:
                value |= -1 << 5 * k
        out.append(value + (out[-2] if len(out) > 2 else 0))
    return out


def mask_of(rle):
    """Rows of 0 and 1."""
    height, width = rle["size"]
    flat, value = bytearray(), 0
    for n in runs(rle["counts"]):
        flat += bytes([value]) * n
        value ^= 1
    assert len(flat) == width * height
    return [[flat[x * height + y] for x in range(width)] for y in range(height)]


def pixels_of(png):
    """Rows of (r, g, b) of a PNG of 8 bits, with or without alpha."""
    at, data = 8, b""
    while at < len(png):
        size, kind = struct.unpack(">I4s", png[at:at + 8])
        if kind == b"IHDR":
            width, height, depth, colour = struct.unpack(">IIBB", png[at + 8:at + 18])
        elif kind == b"IDAT":
            data += png[at + 8:at + 8 + size]
        at += 12 + size
    assert depth == 8 and colour in (2, 6)
    step = 3 if colour == 2 else 4
    data, rows, above = zlib.decompress(data), [], bytes(width * step)
    for y in range(height):
        kind, row = data[y * (width * step + 1)], bytearray(data[y * (width * step + 1) + 1:(y + 1) * (width * step + 1)])
        for i in range(len(row)):
            a, b, c = row[i - step] if i >= step else 0, above[i], above[i - step] if i >= step else 0
            near = min((abs(b - c), 0, a), (abs(a - c), 1, b), (abs(a + b - 2 * c), 2, c))[2]
            row[i] = (row[i] + (0, a, b, (a + b) // 2, near)[kind]) & 255
        rows.append([tuple(row[x * step:x * step + 3]) for x in range(width)])
        above = row
    return rows


def snapshot(page):
    """The image as it is shown, and its packet."""
    taken = page.run("""(async () => {
        const { line, blob } = await ultramotion.snapshot();
        const bytes = new Uint8Array(await blob.arrayBuffer());
        let text = "";
        for (let i = 0; i < bytes.length; i += 4096) text += String.fromCharCode(...bytes.subarray(i, i + 4096));
        return { line, png: btoa(text) };
    })()""")
    return json.loads(taken["line"]), base64.b64decode(taken["png"])


def set_opacity(page, percent):
    page.run(f"""(() => {{ const o = document.getElementById("opacity"); o.value = {percent}; o.dispatchEvent(new Event("input")); }})()""")


@test
def page_loads_without_a_network_and_frames_move(tmp):
    with opened() as page, Run(source=[SWEEP, "--loop"], command="serve") as run:
        page.go(f"http://127.0.0.1:{run.port}/")
        page.wait("ultramotion.packets >= 5 && ultramotion.stats")
        first = page.run("ultramotion.packet.frame_id")
        page.wait(f"ultramotion.packet.frame_id > {first} + 3")
        assert page.run("document.getElementById('state').textContent").split(" · ")[0] in ("VISIBLE", "RELOCALIZING", "LOST")
        assert page.run("document.querySelectorAll('#stages tbody tr').length") == 7
        assert page.run("document.getElementById('drops').children.length") == 2 * page.run("Object.keys(ultramotion.stats.drops).length")
        asked = page.asked_for()
        assert asked and all(url.startswith((f"http://127.0.0.1:{run.port}/", "about:", "data:", "blob:")) for url in asked), asked
        assert not page.complaints(), page.complaints()
        # paused: nothing is sent, nor made
        page.run("document.getElementById('pause').click()")
        time.sleep(0.5)
        before, encoded = page.run("ultramotion.packets"), run.counts()["encoded"]
        time.sleep(1)
        assert page.run("ultramotion.packets") == before and run.counts()["encoded"] == encoded
        page.run("document.getElementById('pause').click()")
        page.wait(f"ultramotion.packets > {before} + 2")


@test
def overlay_is_the_packets_mask(tmp):
    with opened() as page, Run(sizes=FULL, source=[SWEEP, "--loop"], command="serve") as run:
        page.go(f"http://127.0.0.1:{run.port}/")
        page.wait("ultramotion.packets >= 2 && ultramotion.packet.mask_area_px > 2000", 60)
        page.run("document.getElementById('pause').click()")
        page.run("document.getElementById('boxes').click()")
        set_opacity(page, 100)
        packet, png = snapshot(page)
        shown, mask = pixels_of(png), mask_of(packet["mask"])
        assert (len(shown), len(shown[0])) == tuple(packet["mask"]["size"])
        covered = sum(map(sum, mask))
        assert covered == packet["mask_area_px"]
        wrong = sum((shown[y][x] == FIRST) != bool(mask[y][x]) for y in range(len(mask)) for x in range(len(mask[0])))
        assert wrong == 0, f"{wrong} of {covered} pixels"
        set_opacity(page, 0)
        plain = pixels_of(snapshot(page)[1])
        assert all(len(set(p)) == 1 for row in plain for p in row)  # gray, as it came


@test
def what_was_looked_at_is_framed(tmp):
    with opened() as page, Run(source=["phantom:screen=1,seed=4", "--loop", "--crop", "auto"], command="serve") as run:
        page.go(f"http://127.0.0.1:{run.port}/")
        page.wait("ultramotion.packets >= 2 && ultramotion.packet.crop", 60)
        packet, png = snapshot(page)
        (x, y, w, h), shown = packet["crop"], pixels_of(png)
        assert (len(shown[0]), len(shown)) == (1280, 960)
        assert {shown[y + h - 1][x + k] for k in range(60, 90)} == {(110, 110, 120)}, shown[y + h - 1][x + 60:x + 90]


@test
def numbers_are_those_of_metrics(tmp):
    with opened() as page, Run("-o", "null:") as run:
        page.go(f"http://127.0.0.1:{run.port}/")
        page.wait("ultramotion.stats")
        run.push(6)
        page.wait("ultramotion.stats.frames.out == 6 && ultramotion.stats.sinks.every((s) => s.written == 6)")
        text = run.ask("/metrics").decode()
        stats = page.run("ultramotion.stats")

        def metric(name):
            return float(next(line for line in text.splitlines() if line.startswith(f"ultramotion_{name} ")).split()[-1])

        assert metric("packets_total") == 6 and metric('packets_by_state_total{state="LOST"}') == stats["frames"]["lost"]
        for stage, t in stats["stages_ms"].items():
            assert metric(f'stage_seconds_count{{stage="{stage}"}}') == t["count"]
        shown = page.run("Object.fromEntries([...document.querySelectorAll('#rates dt, #device dt')].map((d) => [d.textContent, d.nextSibling.textContent]))")
        assert shown["frames in / out"] == f"{int(metric('frames_in_total'))} / {int(metric('packets_total'))}"
        assert shown["copies_total"] == str(int(metric("copies_total")))
        assert shown["device_memory_bytes"] == f"{metric('device_memory_bytes') / 2**20:.1f} MB"
        p95 = metric('stage_quantile_seconds{stage="total",quantile="0.95"}') * 1e3
        row = page.run("[...[...document.querySelectorAll('#stages tbody tr')].find((r) => r.cells[0].textContent == 'total').cells].map((c) => c.textContent)")
        assert abs(float(row[2]) - p95) < 0.051, (row, p95)
        # a second's mean is over the packets that have the number
        page.run("[null, 0.9].forEach((s4) => onPacket({ ...ultramotion.packet, state: 'VISIBLE', scores: { s4 } }))")
        assert page.run("seconds[seconds.length - 1].scores.s4") == 0.9
        # nor do the charts stand still when the clock is set back
        page.run("(() => { const now = Date.now; Date.now = () => now() + 3.6e6; second(); Date.now = now; onPacket(ultramotion.packet); })()")
        assert page.run("Math.abs(seconds[seconds.length - 1].at - Date.now() / 1000)") < 3
        run.end()


@test
def control_and_token_work_from_the_page(tmp):
    with opened(size=(820, 1180), dark=True) as page, Run(sink="web:0.0.0.0:0") as run:
        page.go(f"http://127.0.0.1:{run.port}/#token={run.token}")
        page.wait("ultramotion.stats")
        assert page.run("document.documentElement.dataset.theme") == "dark"
        assert page.run("document.documentElement.scrollWidth <= innerWidth")  # a tablet, upright
        for conf, answer in (("1.5", "conf"), ("0.123", "done"), ("1", "done")):  # the server says what may be
            page.run(f"document.getElementById('conf').value = '{conf}'; document.getElementById('control').requestSubmit()")
            page.wait(f"document.getElementById('control-answer').textContent.includes('{answer}')")
            page.run("document.getElementById('control-answer').textContent = ''")
        run.push()
        page.wait("ultramotion.packet && ultramotion.packet.state == 'LOST'")
        assert page.run("document.getElementById('state').textContent") == "LOST"
        run.end()


@test
def page_comes_back_when_the_server_does(tmp):
    with opened() as page, Run() as run:
        port = run.port
        page.go(f"http://127.0.0.1:{port}/")
        page.wait("ultramotion.stats")
        run.push()
        page.wait("ultramotion.packet")
        run.process.kill()
        page.wait("ultramotion.link == 'lost'")
        page.wait("document.getElementById('link').textContent == 'no connection'")
        page.wait("document.getElementById('numbers').className == 'old'")
        with Run(sink=f"web::{port}") as again:
            page.wait("ultramotion.link == 'live'")
            again.push(2)
            page.wait("ultramotion.stats.frames.out == 2 && document.getElementById('numbers').className != 'old'")


@test
def what_is_old_does_not_pass_for_live(tmp):
    state, old = "document.getElementById('state')", "document.querySelector('.old')"
    with opened() as page, Run() as run:
        page.go(f"http://127.0.0.1:{run.port}/")
        page.wait("ultramotion.stats")
        run.push()
        page.wait(f"ultramotion.packet && {state}.textContent == ultramotion.packet.state && !{old}")
        page.wait(f"/ [2-9] s ago$/.test({state}.textContent) && {state}.className == 'badge off' && {old}")  # no other frame came
        run.push()
        page.wait(f"ultramotion.packets == 2 && {state}.textContent == ultramotion.packet.state && !{old}")
        page.run("document.getElementById('pause').click()")  # who pauses knows
        time.sleep(3)
        assert page.run(f"{state}.textContent == ultramotion.packet.state && !{old}")
        run.end()


@test
def who_may_not_look_is_told_why(tmp):
    with opened() as page, Run(sink="web:0.0.0.0:0") as run:
        page.go(f"http://127.0.0.1:{run.port}/")
        page.wait("document.getElementById('what').textContent.includes('want the token')")
        run.end(1)  # no frame came
    with opened() as page, Run(sink="web::0?viewers=1") as run:
        first = run.live()
        page.go(f"http://127.0.0.1:{run.port}/")
        page.wait("document.getElementById('what').textContent.includes('too many viewers')")
        first.close()
        page.wait("ultramotion.link == 'live' && document.getElementById('what').textContent == '-'")
        run.end(1)


# ---- measuring ----


class Feed:
    """Frames at a steady rate without a network's time, into a viewer's server."""

    def __init__(self, fps, seconds):
        self.process = subprocess.Popen([Path(COMMAND).parent / "web_feed", "web::0", str(fps), str(seconds)], text=True,
                                        stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.port = int(re.search(r":(\d+)/", self.process.stderr.readline())[1])
        self.fps, self.seconds = fps, seconds

    def end(self):
        return json.loads(self.process.communicate(timeout=120)[0])


def lags(fps):
    with opened() as page:
        feed = Feed(fps, 25)
        page.go(f"http://127.0.0.1:{feed.port}/")
        page.wait("ultramotion.lags.length > 30", 60)
        page.run("ultramotion.lags.length = 0")
        time.sleep(12)
        got = page.run("ultramotion.lags")
        counts = feed.end()
        out = {"measured": "packet to pixel, ms", "fps": fps, "frames": len(got), "skipped": counts["skipped"]}
        for what in ("drawn", "shown"):
            values = sorted(lag[what] for lag in got)
            out[what] = {f"p{q}": round(values[-(-q * len(values) // 100) - 1], 1) for q in (50, 95, 99)}
        print(json.dumps(out), flush=True)


def crowd(fps, n):
    feed = Feed(fps, 15)
    got = [0] * n

    def read(i, viewer):
        with contextlib.suppress(EOFError, ConnectionResetError):
            while True:
                frame_of(viewer)
                got[i] += 1

    readers = [threading.Thread(target=read, args=(i, WebSocket(feed.port, "/live"))) for i in range(n)]
    for reader in readers:
        reader.start()
    counts = feed.end()
    for reader in readers:
        reader.join()
    cpu = {what: round(counts[f"{what}_cpu_us"] / 1e6 / feed.seconds, 4) for what in ("server", "encoding")}
    print(json.dumps({"measured": "share of one core", "viewers": n, "fps": fps, **cpu, "frames": counts["encoded"], "least": min(got),
                      "skipped": counts["skipped"]}), flush=True)


def measure():
    lags(30)
    lags(60)
    crowd(30, 1)
    crowd(30, 20)


def screenshots(folder):
    """Of five minutes of simulated sweeps that arrive over OpenIGTLink."""
    models = Path(__file__).parents[1] / "models"
    bundled = ["--detector", models / "dfine_n_bone_320.safetensors", "--segmenter", models / "mobile_sam_bone_384.safetensors"]
    plus = subprocess.Popen([COMMAND, "igtl", "fake-plus", ":0", "phantom:seed=900001,sweep=1,frames=0", "--fps", "20"], stderr=subprocess.PIPE, text=True)
    try:
        port = re.search(r"port (\d+)", plus.stderr.readline())[1]
        with Run("--precision", "int8", *bundled, sizes=[], source=[f"igtl://127.0.0.1:{port}"], command="serve") as run:
            time.sleep(300)
            for name, dark in (("viewer", False), ("viewer_dark", True)):
                with opened(size=(1366, 860), dark=dark) as page:
                    page.go(f"http://127.0.0.1:{run.port}/")
                    page.wait("ultramotion.packets > 100 && ultramotion.packet.state == 'VISIBLE' && ultramotion.packet.mask_area_px > 3000", 120)
                    page.run("document.getElementById('pause').click()")
                    time.sleep(1)
                    page.shot(folder / f"{name}.png")
    finally:
        plus.kill()
        plus.communicate()


if __name__ == "__main__":
    if "--measure" in sys.argv:
        measure()
    elif "--screenshots" in sys.argv:
        screenshots(Path(sys.argv[-1]))
    else:
        main()
