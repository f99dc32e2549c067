#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The viewer's server from outside (sockets, HTTP, WebSocket), and what a run tells of itself.

    test_web.py COMMAND [TEST...]
"""

import contextlib
import fcntl
import json
import os
import re
import resource
import signal
import socket
import struct
import subprocess
import time

from command import COMMAND, ENVIRONMENT, lines, main, test, um
from served import FRAME, HEIGHT, SMALL, STDIN, WIDTH, Run, frame_of
from websocket import Refused

JSON = {"Content-Type": "application/json"}


def metrics(text):
    """Prometheus' format, checked line by line."""
    values, types = {}, {}
    for line in text.decode().splitlines():
        if line.startswith("# TYPE "):
            _, _, name, kind = line.split()
            assert name not in types, f"{name} twice"
            types[name] = kind
        elif not line.startswith("# HELP "):
            found = re.fullmatch(r'([a-z_]+)(\{(?:[a-z]+="(?:[^"\\]|\\.)*",?)*\})? (NaN|[-+0-9.e]+)', line)
            assert found, line
            base = re.sub(r"_(bucket|sum|count)$", "", found[1])
            assert found[1] in types or types.get(base) == "histogram", line
            key = found[1] + (found[2] or "")
            assert key not in values, f"{key} twice"
            values[key] = float(found[3])
    return values


@test
def page_lies_in_the_program(tmp):
    with Run() as run:
        page = run.ask("/").decode()
        policy = run.headers["content-security-policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy and "frame-ancestors 'none'" in policy
        assert run.headers["x-content-type-options"] == "nosniff" and run.headers["cache-control"] == "no-store"
        assert "access-control-allow-origin" not in run.headers
        for path in ("/viewer.css", "/viewer.js", "/worker.js", "/icon.svg"):
            assert path in page or path == "/worker.js", path
            text = run.ask(path).decode()
            assert not re.search(r"(https?:)?//(?!www\.w3\.org/2000/svg)[a-z0-9-]+\.[a-z]", re.sub(r"^\s*// .*$", "", text, flags=re.M)), path
        assert not re.search(r"https?://", page)
        for path in ("/nothing", "/../etc/passwd", "/viewer.js/", "/%2e%2e/%2e%2e/etc/passwd", "/" + "a" * 200):
            run.ask(path, code=404)
        run.end(1)  # no frame came


@test
def one_set_of_numbers(tmp):
    with Run("-o", f"jsonl:{tmp}/p", "-o", "null:", "-o", "null:", "-o", f"jsonl:{tmp}/雪", "-o", f"jsonl:{tmp}/月") as run:
        run.push(7)
        run.wait(lambda s: s["frames"]["out"] == 7 and all(q["written"] == 7 for q in s["sinks"]))
        stats, prometheus = run.stats(), metrics(run.ask("/metrics"))
        assert run.headers["content-type"].startswith("text/plain; version=0.0.4")
        name = "ultramotion_"
        assert prometheus[name + "packets_total"] == 7 == stats["frames"]["in"] == prometheus[name + "frames_in_total"]
        for state in ("visible", "lost", "relocalizing"):
            assert prometheus[f'{name}packets_by_state_total{{state="{state.upper()}"}}'] == stats["frames"][state]
        for cause, n in stats["drops"].items():
            assert prometheus[f'{name}drops_total{{cause="{cause}"}}'] == n == 0
        for stage, t in stats["stages_ms"].items():
            label = f'{{stage="{stage}"}}'
            assert prometheus[name + "stage_seconds_count" + label] == t["count"]
            assert abs(prometheus[name + "stage_seconds_sum" + label] * 1e3 - t["sum"]) <= 1e-6 * t["sum"]
            buckets = [prometheus[f'{name}stage_seconds_bucket{{stage="{stage}",le="{edge / 1e3:g}"}}'] for edge in stats["histogram"]["edges_ms"]]
            assert buckets == stats["histogram"][stage] and buckets == sorted(buckets) and buckets[-1] <= t["count"]
            assert prometheus[f'{name}stage_seconds_bucket{{stage="{stage}",le="+Inf"}}'] == t["count"]
            for q in (50, 95, 99):
                assert abs(prometheus[f'{name}stage_quantile_seconds{{stage="{stage}",quantile="{q / 100:g}"}}'] * 1e3 -
                           stats["recent_ms"][stage][f"p{q}"]) < 1e-4 + 1e-6 * t["max"]
        assert prometheus[name + "device_memory_bytes"] == stats["device_memory_bytes"] > 1e6
        assert prometheus[name + "copies_total"] == stats["transfers"]["copies_total"] == 0
        assert [q["name"] for q in stats["sinks"]][2:4] == ["null:", "null:#2"]
        assert all(prometheus[f'{name}sink_written_total{{sink="jsonl:{tmp}/{file}"}}'] == 7 for file in "p雪月")
        assert prometheus[name + 'sink_written_total{sink="null:"}'] == prometheus[name + 'sink_written_total{sink="null:#2"}'] == 7
        # The packets themselves say the same.
        packets = lines((tmp / "p").read_text())
        total = [p["stages_ms"]["total"] for p in packets]
        assert abs(stats["stages_ms"]["total"]["sum"] - sum(total)) < 1e-3 * sum(total)
        assert abs(stats["recent_ms"]["total"]["max"] - max(total)) < 1e-3 * max(total)
        history = json.loads(run.ask("/history"))
        run.wait(lambda s: s["uptime_s"] > 0 and sum(r[1] for r in json.loads(run.ask("/history"))["rows"]) == 7)
        assert history["columns"][:4] == ["second", "frames", "visible", "lost"]
        _, err = run.end()
        assert re.search(r"frames +7: %d VISIBLE" % stats["frames"]["visible"], err), err
        p50 = float(re.search(r"total +\S+ +(\S+)", err)[1])
        assert abs(p50 - stats["stages_ms"]["total"]["p50"]) < 0.011, err


@test
def transfers_are_counted(tmp):
    with Run("--device", "guard", "-o", f"jsonl:{tmp}/p") as run:
        run.push(5)
        stats = run.wait(lambda s: s["frames"]["out"] == 5)
        run.end()
        packets = lines((tmp / "p").read_text())
        assert stats["transfers"]["copies_total"] == sum(p["transfers"]["up"] + p["transfers"]["down"] for p in packets) == 10
        assert stats["transfers"]["up_bytes_total"] == sum(p["transfers"]["up_bytes"] for p in packets) > 0
        assert stats["transfers"]["up"] == stats["transfers"]["down"] == 1 and not stats["transfers"]["shared"]


@test
def health_says_why(tmp):
    with Run() as run:
        run.ask("/healthz")
        answer = json.loads(run.ask("/readyz", code=503))
        assert answer["status"] == "unavailable" and answer["reason"] == "no packet yet", answer
        run.push()
        run.wait(lambda s: s["frames"]["out"] == 1)
        assert json.loads(run.ask("/readyz"))["status"] == "ok"
        time.sleep(5.2)
        assert "old" in json.loads(run.ask("/readyz", code=503))["reason"]
        run.ask("/healthz")
        run.end()


@test
def frames_come_live(tmp):
    with Run("-o", f"jsonl:{tmp}/p", sink="web::0?max-fps=0") as run:  # a quick machine must not pass one over
        run.push(2)
        counts = run.wait(lambda s: s["counts"][run.name]["unseen"] == 2)["counts"]  # nobody looks; packets come before sinks have them
        assert counts[run.name]["encoded"] == 0
        viewer = run.live()
        run.wait(lambda s: s["counts"][run.name]["connected"] == 1)
        got = []
        for _ in range(3):
            run.push()
            got.append(frame_of(viewer))
        run.wait(lambda s: all(q["written"] == 5 for q in s["sinks"]))
        for i, (sent, line, image) in enumerate(got):
            assert line == (tmp / "p").read_text().splitlines()[2 + i]  # the packet's own line
            assert json.loads(line)["frame_id"] == 2 + i and abs(time.time() - sent) < 20
            assert image[:2] == b"\xff\xd8" and image[-2:] == b"\xff\xd9"
            height, width = struct.unpack(">HH", image[image.index(b"\xff\xc0") + 5:][:4])
            assert (width, height) == (WIDTH, HEIGHT)
        text = viewer.receive()
        while not isinstance(text, str):
            text = viewer.receive()
        assert json.loads(text)["frames"]["out"] >= 2  # the numbers, twice a second
        viewer.send('{"ping":12.25}')
        answer = {}
        while "ping" not in answer:
            text = viewer.receive()
            answer = json.loads(text) if isinstance(text, str) else {}
        assert answer["ping"] == 12.25 and abs(answer["clock"] - time.time()) < 20
        viewer.send('{"stream":false}')
        run.wait(lambda s: True)
        time.sleep(0.2)
        before = run.counts()
        run.push(2)
        run.wait(lambda s: s["frames"]["out"] == 7)
        after = run.wait(lambda s: s["counts"][run.name]["frames"] == 7)["counts"][run.name]
        assert after["encoded"] == before["encoded"] == 3 and after["unseen"] == before["unseen"] + 2
        viewer.send('{"stream":true}')
        time.sleep(0.2)
        run.push()
        assert json.loads(frame_of(viewer)[1])["frame_id"] == 7
        viewer.close()
        run.wait(lambda s: s["counts"][run.name]["connected"] == 0)
        run.end()


@test
def control_changes_the_run(tmp):
    with Run("--objects", 3, "-o", f"jsonl:{tmp}/p") as run:
        run.push()
        run.wait(lambda s: s["frames"]["out"] == 1)
        run.ask("/control", "POST", '{"conf": 1}', JSON)
        run.push()
        run.wait(lambda s: s["frames"]["out"] == 2)
        run.ask("/control", "POST", '{"conf": 0, "objects": 2}', {"Content-Type": "application/json; charset=utf-8"})
        run.push()
        run.wait(lambda s: s["frames"]["out"] == 3)
        for bad in ('{"conf": 2}', '{"conf": "1"}', '{"conf": NaN}', '{"objects": 4}', '{"objects": 1.5}', '{"label": 7}', '{"gain": 1}', "{}",
                    "[]", "1", "", '{"conf":0.1}x', '{"conf":0.1,"conf":0.2}', '{"conf":1e999}', '{"conf":0.1}\0'):
            assert "error" in json.loads(run.ask("/control", "POST", bad, JSON, code=400)), bad
        assert b"objects: 1.5, want a whole number" in run.ask("/control", "POST", '{"objects": 1.5}', JSON, code=400)
        for bad in ('{"conf": 1, "objects": 4}', '{"objects": 1, "label": 7}'):  # all of it or nothing
            assert "error" in json.loads(run.ask("/control", "POST", bad, JSON, code=400)), bad
        run.ask("/control?conf=1", code=405)  # GET changes nothing
        for method in ("PUT", "DELETE", "PATCH"):
            run.ask("/control", method, '{"conf":1}', JSON, code=405)
        for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""):
            run.ask("/control", "POST", '{"conf":1}', {"Content-Type": kind}, code=415)
        run.ask("/control", "POST", '{"conf":0.1' + " " * 5000 + "}", JSON, code=413)
        run.push()
        run.wait(lambda s: s["frames"]["out"] == 4)
        run.end()
        packets = lines((tmp / "p").read_text())
        assert packets[1]["state"] == "LOST"
        assert packets[2]["state"] == packets[3]["state"] == "VISIBLE" and len(packets[2]["objects"]) == len(packets[3]["objects"]) == 2


@test
def strangers_are_refused(tmp):
    with Run(sink="web::0?host=probe.ward,host=other") as run:
        local = f"127.0.0.1:{run.port}"
        for host in (local, "localhost", f"LOCALHOST:{run.port}", "10.0.0.7:99", "[::1]:8080", "probe.ward", "Other:80"):
            run.ask("/stats", headers={"Host": host})
        for host in ("evil.example", f"evil.example:{run.port}", "127.0.0.1.evil.example", "1.2.3", "1.2.3.4.5", "1.2.3.456", "localhost.evil.example",
                     "[evil]", "[::1]x", "localhost:", "localhost:x", "probe.wards", "pro", "127.0.0.1:1:1", "127.0.0.1 evil", "0x7f000001"):
            run.ask("/stats", headers={"Host": host}, code=403)
            run.ask("/", headers={"Host": host}, code=403)
        good = f"http://{local}"
        for origin in ("http://evil.example", "null", "http://127.0.0.1", f"http://localhost:{run.port}", "file://", f"{good}.evil.example", f"{good}/"):
            run.ask("/control", "POST", '{"conf":0.9}', {**JSON, "Origin": origin}, code=403)
            try:
                run.live(headers={"Origin": origin})
                raise AssertionError(origin)
            except Refused as refused:
                assert refused.code == 403
        run.ask("/control", "POST", '{"conf":0.9}', {**JSON, "Origin": good})
        run.live(headers={"Origin": good}).close()
        try:
            run.live(headers={"Host": f"evil.example:{run.port}"})
            raise AssertionError("rebinding")
        except Refused as refused:
            assert refused.code == 403
        for path in ("/", "/stats", "/live/", "/control"):
            try:
                run.live(path)
                raise AssertionError(path)
            except Refused:
                pass
        assert run.counts()["forbidden"] == 2 * 16 + 2 * 7 + 1
        run.end(1)


@test
def others_need_the_token(tmp):
    with Run(sink="web:0.0.0.0:0") as run:
        assert not run.host.startswith("127.") and re.fullmatch("[0-9a-f]{32}", run.token), run.err  # an address that others can open
        bearer = {"Authorization": f"Bearer {run.token}"}
        for path in ("/", "/viewer.js", "/healthz"):  # nothing of the run is in them
            run.ask(path)
        run.ask("/readyz", code=503)
        for path in ("/stats", "/metrics", "/history", "/control"):
            run.ask(path, code=401)
            assert run.headers["www-authenticate"] == "Bearer"
            for wrong in (run.token[:-1], run.token + "0", run.token[::-1], "", "0" * 32):
                run.ask(path, headers={"Authorization": f"Bearer {wrong}"}, code=401)
                run.ask(f"{path}?token={wrong}", code=401)
            run.ask(path, headers=bearer, code=405 if path == "/control" else 200)
        run.ask(f"/stats?token={run.token}")
        run.ask("/control", "POST", '{"conf":0.9}', JSON, code=401)
        run.ask("/control", "POST", '{"conf":0.9}', {**JSON, **bearer})
        for path, headers in (("/live", {}), ("/live?token=no", {}), (f"/live?token={run.token}", {"Origin": "http://evil.example"})):
            try:
                run.live(path, headers=headers)
                raise AssertionError(path)
            except Refused as refused:
                assert refused.code in (401, 403)
        run.live(f"/live?token={run.token}").close()
        run.live(headers=bearer).close()
        run.end(1)
    (tmp / "token").write_text("secret-word_1\n")
    with Run(sink=f"web::0?token-file={tmp}/token") as run:
        assert "secret" not in run.err
        run.ask("/stats", code=401)
        run.ask("/stats", headers={"Authorization": "Bearer secret-word_1"})
        run.end(1)
    (tmp / "bad").write_text("short\n")
    for sink, says in ((f"web::0?token-file={tmp}/none", "none"), (f"web::0?token-file={tmp}/bad", "want a token")):
        assert says in um("run", *STDIN, "-o", sink, *SMALL, code=1, stdin=b"")[1]
    far = tmp / ("d" * 200)
    far.mkdir()
    (tmp / "token").rename(far / "token")
    with Run(sink=f"web::0?token-file={far}/token") as run:
        run.ask("/stats", headers={"Authorization": "Bearer secret-word_1"})
        run.end(1)
    assert "token-file: a value of 1024 bytes" in um("run", *STDIN, "-o", f"web::0?token-file={'x' * 1024}", *SMALL, code=2, stdin=b"")[1]
    assert "token-file" in um("run", *STDIN, "-q", "-o", "web:0.0.0.0:0", *SMALL, code=2, stdin=b"")[1]
    for sink in ("web:", "web:8080", "web::x", "web::70000", "web::0?viewers=0", "web::0?viewers=2.5", "web::0?nothing=1", "web::0?quality=101"):
        um("run", *STDIN, "-o", sink, *SMALL, code=2, stdin=b"")


@test
def a_port_that_is_taken_is_named(tmp):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        err = um("run", *STDIN, "-o", f"web::{port}", *SMALL, code=1, stdin=b"")[1]
        assert f"127.0.0.1:{port}" in err, err
    err = um("run", *STDIN, "-o", f"web:{'x' * 64}:0", *SMALL, code=1, stdin=b"")[1]  # a name may be known later: services try again
    assert "xxx" in err, err


@test
def few_descriptors_open_no_other_address(tmp):
    listened = set()
    for most in range(6, 16):
        limit = lambda most=most: resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
        process = subprocess.Popen([COMMAND, "run", *STDIN, "-o", "web::0", *SMALL], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
                                   stderr=subprocess.PIPE, env=ENVIRONMENT, preexec_fn=limit)
        line = process.stderr.readline().decode()
        found = re.search(r"open http://127.0.0.1:(\d+)/", line)
        assert found or "Too many open files" in line, f"{most}: {line}"
        listened.add(bool(found))
        if found:
            assert found[1] != "0"
            with contextlib.suppress(ConnectionRefusedError):
                socket.create_connection(("127.0.0.2", int(found[1])), timeout=5)
                raise AssertionError(f"{most}: it listens on all addresses")
        process.communicate(timeout=60)
    assert listened == {False, True}


@test
def nothing_comes_behind_a_close(tmp):
    with Run() as run:
        viewer, ends = run.live(), []
        viewer.send("hello")
        while len(ends) < 2:  # it does not answer, and is given 5 s for that
            try:
                text = viewer.receive()
                assert not ends, text[:100]
            except EOFError as end:
                ends += end.args
        assert ends == [1008, "closed"]
        assert run.counts()["connected"] == 0
        run.end(1)  # no frame came


@test
def nonsense_hurts_nobody(tmp):
    with Run() as run:
        address = ("127.0.0.1", run.port)
        requests = [b"", b"\0" * 300, b"\r\n\r\n", b"GET", b"GET / HTTP/1.1\r\n", b"GET / HTTP/9.9\r\nHost: a\r\n\r\n", b"\x16\x03\x01\x02\0\x01\0\x01\xfc",
                    b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 5000 + b"\r\n", b"GET /" + b"a" * 100000 + b" HTTP/1.1\r\n\r\n",
                    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0" * 100, b"POST /control HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 99999999999\r\n\r\n",
                    b"POST /control HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: -5\r\n\r\n{}",
                    b"POST /control HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\nffffffff\r\n",
                    b"GET /live HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
                    b"GET /live HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n",
                    b"GET /live HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: x\r\nSec-WebSocket-Version: 99\r\n\r\n"]
        sockets = [socket.create_connection(address, timeout=10) for _ in requests]
        for s, request in zip(sockets, requests, strict=True):
            with contextlib.suppress(OSError):
                s.sendall(request)
        for s in sockets:
            with contextlib.suppress(ConnectionResetError):
                while s.recv(65536):  # until it is sent away
                    pass
            s.close()
        frames = {"binary": lambda w: w.frame(2, b'{"ping":1}'),
                  "long in parts": lambda w: w.frame(1, b" " * 1000, final=False) + w.frame(0, b" " * 1000 + b'{"ping":1}'),
                  "long": lambda w: w.frame(1, b" " * 5000 + b'{"ping":1}'),
                  "huge": lambda w: b"\x81\xff" + b"\xff" * 8, "reserved": lambda w: w.frame(0x71, b"{}"), "opcode": lambda w: w.frame(7, b"{}"),
                  "long ping": lambda w: w.frame(9, b"a" * 200), "text": lambda w: w.frame(1, b"hello"), "not UTF-8": lambda w: w.frame(1, b"\xff\xfe"),
                  "key": lambda w: w.frame(1, b'{"conf":1}'), "deep": lambda w: w.frame(1, b"[" * 900), "number": lambda w: w.frame(1, b'{"ping":"1"}')}
        good = run.live()
        everyone = {what: run.live() for what in frames}
        for what, bad in everyone.items():
            bad.socket.sendall(frames[what](bad))
        for what, bad in everyone.items():
            end = time.monotonic() + 5
            try:
                while time.monotonic() < end:
                    bad.receive()
                raise AssertionError(f"{what}: is still there")
            except (EOFError, ConnectionResetError):
                bad.close()
        run.push()
        assert json.loads(frame_of(good)[1])["frame_id"] == 0  # nobody else noticed
        counts = run.wait(lambda s: s["counts"][run.name]["connected"] == 1)["counts"][run.name]
        assert counts["malformed"] >= 7, counts
        run.end()


@test
def messages_come_in_pieces(tmp):
    def answers(viewer, pieces):
        for piece in pieces:
            viewer.socket.sendall(piece)
            time.sleep(0.02)  # each is a read of its own
        text = ""
        while '"ping"' not in text:
            text = viewer.receive()
        assert json.loads(text)["ping"] == 12.25

    with Run() as run:
        viewer = run.live(headers={"Upgrade": "WebSocket"})  # in whatever case
        whole = viewer.frame(1, b'{"ping":12.25}')
        for at in range(1, len(whole)):
            answers(viewer, [whole[:at], whole[at:]])
        answers(viewer, [viewer.frame(1, b'{"ping"', final=False) + viewer.frame(9, b"between"), viewer.frame(0, b":12", final=False),
                         viewer.frame(0, b".25}")])
        viewer.close()
        run.wait(lambda s: s["counts"][run.name]["connected"] == 0)
        assert run.counts()["malformed"] == 0
        run.end(1)  # no frame came


@test
def head_is_get_without_a_body(tmp):
    with Run() as run:
        for path in ("/", "/stats", "/healthz", "/control", "/nothing"):
            answers = {}
            for method in ("HEAD", "GET"):
                with socket.create_connection(("127.0.0.1", run.port), timeout=20) as s:
                    s.sendall(f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{run.port}\r\n\r\n".encode())
                    whole = b""
                    while part := s.recv(65536):
                        whole += part
                answers[method] = head, body = whole.split(b"\r\n\r\n", 1)
                size = int(re.search(rb"\r\ncontent-length: (\d+)", head)[1])
                assert size > 0 and len(body) == (size if method == "GET" else 0), (path, method, whole)
            assert answers["HEAD"][0].split()[1] == answers["GET"][0].split()[1], (path, answers)
        run.end(1)  # no frame came


@test
def an_offer_of_http_2_changes_no_answer(tmp):  # Java's client makes it with its first request, as does curl --http2
    offer = {"Connection": "Upgrade, HTTP2-Settings", "Upgrade": "h2c", "HTTP2-Settings": "AAMAAABkAAQAAP__"}
    with Run() as run:
        assert json.loads(run.ask("/healthz", headers=offer)) == {"status": "ok", "reason": None}
        assert run.ask("/viewer.js", headers=offer) == run.ask("/viewer.js")
        assert "running" in json.loads(run.ask("/stats", headers=offer)) and metrics(run.ask("/metrics", headers=offer))
        for path, code in (("/nothing", 404), ("/live", 426), ("/control", 405)):
            assert "error" in json.loads(run.ask(path, headers=offer, code=code))
        run.ask("/stats", headers={"Host": "evil.example", **offer}, code=403)
        assert b"without Upgrade" in run.ask("/control", "POST", b'{"conf":0.5}', {**JSON, **offer}, code=400)
        run.end(1)  # no frame came


@test
def what_comes_behind_a_request_hurts_nobody(tmp):  # libwebsockets would take a second head for its own body, and never end
    with Run() as run:
        head = f"HTTP/1.1\r\nHost: 127.0.0.1:{run.port}\r\n"
        get, long = f"GET /healthz {head}\r\n", f"GET /healthz {head}Content-Length: 5\r\n\r\nhello"
        post = f"POST /control {head}Content-Type: application/json\r\nContent-Length: 12\r\n\r\n" + '{"conf":0.5}'
        stranger = "POST /control HTTP/1.1\r\nHost: evil.example\r\nContent-Length: 5\r\n\r\nhello"
        for first, code in ((get, 200), (long, 200), (post, 200), (stranger, 403), (f"HEAD /nothing {head}\r\n", 404), (f"PUT / {head}\r\n", 405)):
            for second in (get, long, post, stranger):
                with socket.create_connection(("127.0.0.1", run.port), timeout=20) as s:
                    s.sendall((first + second).encode())
                    answers = b""
                    with contextlib.suppress(ConnectionResetError):
                        while part := s.recv(65536):
                            answers += part
                codes = [int(line.split()[1]) for line in answers.splitlines() if line.startswith(b"HTTP/1.")]
                assert codes == [code] and b"\r\nconnection: close\r\n" in answers, (first, second, answers)
        run.end(1)  # no frame came


@test
def nobody_keeps_a_connection_for_nothing(tmp):
    with Run() as run, contextlib.ExitStack() as all_of_them:
        for _ in range(200):  # more than there may be
            s = all_of_them.enter_context(socket.create_connection(("127.0.0.1", run.port), timeout=10))
            s.sendall(b"CONNECT a.example:1 HTTP/1.1\r\nHost: a.example\r\n\r\n")
            with contextlib.suppress(ConnectionResetError):
                assert s.recv(1000) == b""
        assert json.loads(run.ask("/healthz"))["status"] == "ok"
        run.end(1)  # no frame came


@test
def half_a_head_is_sent_away(tmp):
    with Run() as run, socket.create_connection(("127.0.0.1", run.port), timeout=20) as s:
        begin = time.monotonic()
        s.sendall(b"GET /st")
        with contextlib.suppress(ConnectionResetError):
            while s.recv(65536):
                pass
        assert 4 < time.monotonic() - begin < 8


@test
def a_body_in_drops_is_sent_away(tmp):
    with Run() as run, socket.create_connection(("127.0.0.1", run.port), timeout=1) as s:
        begin = time.monotonic()
        s.sendall(f"POST /control HTTP/1.1\r\nHost: 127.0.0.1:{run.port}\r\nContent-Type: application/json\r\nContent-Length: 999\r\n\r\n".encode())
        piece = b" "
        while piece and time.monotonic() - begin < 15:
            try:
                s.sendall(b" ")
                piece = s.recv(65536)
            except TimeoutError:
                continue
            except OSError:
                piece = b""
        assert 4 < time.monotonic() - begin < 8


@test
def slow_ones_see_fewer_and_cost_nobody(tmp):
    sweep = ["phantom:seed=5,frames=0,width=64,height=80"]
    with Run(source=sweep, command="serve") as run:
        slow = run.live()
        slow.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        quick = run.live()
        first = json.loads(frame_of(quick)[1])["frame_id"]
        for _ in range(40):
            frame_of(quick)
        counts = run.counts()
        assert counts["encoded"] >= 40 and counts["connected"] == 2, (first, counts)
        assert counts["sent"] + counts["skipped"] <= 2 * counts["encoded"]
        for _ in range(3):  # each looks for a moment
            run.live().close()
        run.wait(lambda s: s["counts"][run.name]["connected"] == 2)
        run.process.send_signal(signal.SIGINT)
        run.end()


@test
def only_so_many(tmp):
    with Run(sink="web::0?viewers=2") as run:
        two = [run.live(), run.live()]
        run.wait(lambda s: s["counts"][run.name]["connected"] == 2)
        try:
            run.live()
            raise AssertionError("a third one")
        except Refused as refused:
            assert refused.code == 503
        idle = [socket.create_connection(("127.0.0.1", run.port)) for _ in range(100)]  # say nothing
        two[0].close()
        time.sleep(6)  # those are sent away
        run.live().close()
        assert run.counts()["refused"] == 1
        run.push()
        frame_of(two[1])
        for s in idle:
            s.close()
        run.end()


@test
def without_descriptors_it_rests(tmp):
    with Run() as run:
        pid, used = run.process.pid, run.counts()["server_cpu_us"]
        limits = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        most = max(map(int, os.listdir(f"/proc/{pid}/fd"))) + 8
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (most, limits[1]))
        many = [socket.create_connection(("127.0.0.1", run.port)) for _ in range(30)]  # not all of them are accepted
        time.sleep(2)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)
        for s in many:
            s.close()
        used = run.wait(lambda s: s["counts"][run.name]["server_cpu_us"] > used)["counts"][run.name]["server_cpu_us"] - used
        assert used < 500_000, used
        run.push()
        run.end()


@test
def traces_are_whole(tmp):
    um("run", "phantom:seed=3,frames=5,width=64,height=80", "-o", "null:", "--trace", tmp / "t", *SMALL)
    events = json.loads((tmp / "t").read_text())
    spans = [e for e in events if e["ph"] == "X"]
    tracks = {e["tid"]: e["args"]["name"] for e in events if e["name"] == "thread_name"}
    assert {"reader", "driver", "stage upload", "stage detect", "stage segment", "stage packet", "null:"} <= set(tracks.values())
    for frame in range(5):
        of = {(tracks[e["tid"]], e["name"]): e for e in spans if e["args"]["frame"] == frame}
        assert {("reader", "read"), ("driver", "frame"), ("stage detect", "detect"), ("null:", "write")} <= set(of), of
        read, driven, written = of["reader", "read"], of["driver", "frame"], of["null:", "write"]
        assert read["ts"] + read["dur"] <= driven["ts"] + 1 and driven["ts"] + driven["dur"] <= written["ts"] + 1
        detect = of["stage detect", "detect"]
        assert driven["ts"] - 100 <= detect["ts"] and detect["ts"] + detect["dur"] <= driven["ts"] + driven["dur"] + 100
    assert all(e["dur"] >= 0 and e["ts"] >= 0 for e in spans)
    um("run", "phantom:seed=3,frames=2,width=64,height=80", "-o", "null:", "--trace", tmp / "s", "--trace-steps", "--threads", "2", *SMALL)
    events = json.loads((tmp / "s").read_text())
    threads = {e["tid"]: e["args"]["name"] for e in events if e["name"] == "thread_name" and e["args"]["name"].startswith("thread ")}
    steps = [e for e in events if e["ph"] == "X" and e["tid"] in threads]
    assert set(threads.values()) == {"thread 0", "thread 1"}, threads
    assert {"image_encoder.layers.2.blocks.3.mlp mlp", "backbone.stem.stem4 conv2d"} <= {e["name"] for e in steps}, steps
    for tid in threads:  # a thread does one thing at a time
        times = sorted((e["ts"], e["dur"]) for e in steps if e["tid"] == tid)
        assert all(a + d <= b + 0.01 for (a, d), (b, _) in zip(times, times[1:]))
    assert "--trace FILE" in um("run", "phantom:frames=1", "-o", "null:", "--trace-steps", code=2)[1]
    err = um("run", "phantom:seed=3,frames=2,width=64,height=80", "-o", "null:", "-o", f"trace:{tmp}/a", "--trace", tmp / "b", *SMALL, code=2)[1]
    assert "one file only" in err


@test
def kpi_files_are_never_lost(tmp):
    sweep = ["phantom:seed=900001,frames=12,width=128,height=160,empty=0", "-o", "null:", "--kpi", tmp / "k", "--conf", "0"]
    um("run", *sweep, *SMALL)
    first = (tmp / "k").read_text()
    assert [list(line)[:4] for line in lines(first)] == [["ts", "event", "as_numpy", "device"]] * 12
    um("run", *sweep, *SMALL, "--kpi-max-mb", "0.0005")
    assert (tmp / "k.1").read_text() == first  # what was there
    files = sorted((p for p in tmp.iterdir() if p.name.startswith("k.")), key=lambda p: int(p.suffix[1:]))
    rest = "".join(p.read_text() for p in [*files[1:], tmp / "k"])
    assert len(files) > 2 and len(lines(rest)) == 12 and all(p.stat().st_size <= 500 for p in files[1:])
    um("run", *sweep, *SMALL, "--kpi-max-mb", "0.0005", "--kpi-keep", "2")
    assert len([p for p in tmp.iterdir() if p.name.startswith("k.")]) == 2
    um("run", *sweep, *SMALL, "--kpi-keep", "1")
    assert len([p for p in tmp.iterdir() if p.name.startswith("k.")]) == 1
    um("run", *sweep, "--kpi-events", "some", *SMALL, code=2)
    (tmp / "disk").mkdir()  # a link stays where it is, and leads to the new file
    (tmp / "link").symlink_to(tmp / "disk" / "kpi")
    for _ in range(2):
        um("run", *sweep, *SMALL, "--kpi", tmp / "link")
    assert (tmp / "link").is_symlink() and sorted(p.name for p in (tmp / "disk").iterdir()) == ["kpi", "kpi.1"]


@test
def kpi_events_have_their_names(tmp):
    um("serve", "phantom:seed=900001,frames=40,width=128,height=160,empty=0", "--loop", "--frames", 2400, "--track", 0, "-o", "null:", "--kpi", tmp / "k", *SMALL)
    events = lines((tmp / "k").read_text())
    by = {name: [e for e in events if e["event"] == name] for name in {e["event"] for e in events}}
    assert {"init_models", "sam_mask_output", "infer_dfine", "infer_frame", "copy_async", "monitor", "queue_size", "drop_event"} <= set(by), set(by)
    assert all(list(e)[:2] == ["ts", "event"] for e in events)
    assert {"fps_in", "fps_out", "latency_ms", "gpu_util", "q_rt", "q_gpu", "drops_rt", "drops_gpu"} <= set(by["monitor"][0])
    assert {"frame", "latency_ms", "conf", "state"} <= set(by["infer_frame"][0])
    assert len(by["infer_frame"]) == len(by["infer_dfine"]) == len(by["copy_async"])
    assert len(by["sam_mask_output"]) == len([e for e in by["infer_frame"] if e["state"] == "VISIBLE"])
    assert sum(e["removed"] for e in by["drop_event"] if e["cause"] == "replaced") == by["drop_event"][-1]["total"] > 0


@test
def kpi_lines_are_of_what_was_computed(tmp):
    """A frame without the detector has no line of it: `infer_ms` is nobody's time, `conf_max` an earlier frame's."""
    um("run", "phantom:seed=900001,sweep=1,frames=40", "--detect-every", 4, "-o", f"jsonl:{tmp}/p", "--kpi", tmp / "k", "--kpi-events", "all")
    packets, events = lines((tmp / "p").read_text()), lines((tmp / "k").read_text())
    asked = [p["frame_id"] for p in packets if p["detected"]]
    assert 10 < len(asked) < len(packets) == 40, asked
    assert [e["frame"] for e in events if e["event"] == "infer_dfine"] == asked
    assert [e["frame"] for e in events if e["event"] == "infer_frame"] == [p["frame_id"] for p in packets]


@test
def all_who_stall_are_named(tmp):
    readers = []
    for name in "ab":
        os.mkfifo(tmp / name)
        readers.append(os.open(tmp / name, os.O_RDONLY | os.O_NONBLOCK))  # takes nothing
        fcntl.fcntl(readers[-1], fcntl.F_SETPIPE_SZ, 4096)
    with Run("-o", f"jsonl:{tmp}/a", "-o", f"jsonl:{tmp}/b", "--sink-deadline", "3", command="serve") as run:
        begin, said = time.monotonic(), ""
        os.set_blocking(run.process.stderr.fileno(), False)
        while len(found := re.findall(r"stalled: jsonl:\S+/([ab]) has", said)) < 2:
            assert time.monotonic() < begin + 20, said
            run.push(8)
            time.sleep(0.05)
            said += (run.process.stderr.read() or b"").decode()
        assert sorted(found) == ["a", "b"], said
    for reader in readers:
        os.close(reader)


@test
def kpi_lines_come_without_frames(tmp):
    def events():
        return [e["event"] for e in lines((tmp / "k").read_text())]

    with Run("--kpi", tmp / "k", command="serve") as run:
        begin = time.monotonic()
        while events().count("monitor") < 2:
            assert time.monotonic() < begin + 20, events()
            time.sleep(0.05)
        run.push()
        run.wait(lambda s: s["frames"]["out"] == 1)
        before = len(events())
        run.end()
        assert events()[before:].count("monitor") >= 1 and "infer_frame" in events(), events()[before:]


@test
def summaries_come_while_it_runs(tmp):
    err = um("serve", "phantom:seed=900001,frames=40,width=128,height=160", "--loop", "--frames", 3000, "-o", "null:", "--summary-every", "0.5", *SMALL)[1]
    assert len(re.findall(r"^ultramotion: \d+ frames, \d+ visible, [\d.]+ fps in, [\d.]+ out; ms p50/p95", err, flags=re.M)) >= 2, err


@test
def a_pause_is_not_made_up_for(tmp):
    begun = time.monotonic()
    with Run("--summary-every", "0.1") as run:
        run.process.send_signal(signal.SIGSTOP)
        time.sleep(1.5)
        run.process.send_signal(signal.SIGCONT)
        run.push()
        run.wait(lambda s: s["frames"]["out"] == 1)
        _, err = run.end()
        assert err.count(" visible, ") < 10 * (time.monotonic() - begun - 1.5) + 3, err


@test
def who_stalls_is_named(tmp):
    os.mkfifo(tmp / "fifo")
    with Run("-o", f"jsonl:{tmp}/fifo", "--sink-deadline", "3", command="serve") as run:
        reader = os.open(tmp / "fifo", os.O_RDONLY | os.O_NONBLOCK)  # takes nothing
        begin, said = time.monotonic(), ""
        run.process.stdin.write(FRAME)
        run.process.stdin.flush()
        os.set_blocking(run.process.stderr.fileno(), False)
        while "stalled: " not in said:
            assert time.monotonic() < begin + 20, said
            run.push(20)
            time.sleep(0.05)
            said += (run.process.stderr.read() or b"").decode()
        assert re.search(r"stalled: jsonl:\S+/fifo has been at a packet for \d\.\d s", said), said
        os.close(reader)


@test
def frames_that_wait_at_the_end_are_counted(tmp):
    os.mkfifo(tmp / "fifo")
    reader = os.open(tmp / "fifo", os.O_RDONLY | os.O_NONBLOCK)  # takes nothing
    fcntl.fcntl(reader, fcntl.F_SETPIPE_SZ, 4096)
    with Run("-o", f"jsonl:{tmp}/fifo", "--sink-deadline", "0") as run:
        run.push(18)  # what is not read fits into the pipe
        run.wait(lambda s: s["queues"]["frames_waiting"] == 2)  # and one more that was read
        frames = -1
        while frames != (frames := run.stats()["frames"]["in"]):
            time.sleep(0.5)
        run.process.send_signal(signal.SIGINT)
        _, err = run.end(1)
    found = re.search(r"frames +(\d+): .*, (\d+) left at the end", err)
    assert found and int(found[1]) + int(found[2]) == frames and int(found[2]) == 3, (frames, err)
    os.close(reader)


@test
def a_run_with_viewers_ends(tmp):
    for how in (signal.SIGINT, None):
        with Run() as run:
            viewers = [run.live() for _ in range(3)]
            run.push()
            frame_of(viewers[0])
            begin = time.monotonic()
            if how:
                run.process.send_signal(how)
            run.end()
            assert time.monotonic() - begin < 3
            for viewer in viewers:
                with contextlib.suppress(ConnectionResetError, EOFError):
                    while True:
                        viewer.receive()


if __name__ == "__main__":
    main()
