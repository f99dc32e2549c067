# SPDX-License-Identifier: Apache-2.0
"""What the Python package costs, on this machine:

frame       microseconds that `pipeline(array).score` takes over the same from C: both take turns, and of both the time is taken
            away that the packet gives as the pipeline's own (wants a C compiler). `cold`: behind real frames; `warm`: behind
            images that equal the one before, of which only the mask is made again (`reuse`)
run         microseconds from packet to packet of `for packet in run(...)`, each read, over the same from C: on small networks,
            where a frame takes some 25 ms, and both take turns
overhead    microseconds of calls on small networks that are not spent in the library
import      milliseconds that `import ultramotion` takes where numpy is imported already
pipelines   frames per second of two pipelines in two threads, over those of two processes with one each: on a device that they
            share, and each on one of its own with one thread

What is compared takes turns, round by round, so that other load on the machine falls on all of it. Shared machines: compare the
best values. ULTRAMOTION_LIBRARY names the library (else that of build/), --out writes the figures as JSON."""

import argparse
import contextlib
import datetime
import json
import os
import platform
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path

from peers import machine, whole  # beside this file

ROOT = Path(__file__).resolve().parents[1]
if not (ROOT / "python" / "ultramotion" / "libultramotion.so").exists():
    os.environ.setdefault("ULTRAMOTION_LIBRARY", str(ROOT / "build" / "libultramotion.so"))
    os.environ.setdefault("ULTRAMOTION_MODELS", str(ROOT / "models"))
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT / "python"), os.environ.get("PYTHONPATH")]))
    sys.path.insert(0, str(ROOT / "python"))


def least_and_median(values):
    return {"min": min(values), "median": statistics.median(values), "n": len(values)}


class Inside:
    """Time inside functions of the library, for as long as it is entered: each is replaced by one that keeps time."""

    def __init__(self, lib, names):
        self.lib, self.whole, self.ns, self.calls = lib, {name: getattr(lib, name) for name in names}, 0, 0

    def timed(self, function):
        now = time.perf_counter_ns

        def call(*arguments):
            begun = now()
            result = function(*arguments)
            self.ns += now() - begun
            self.calls += 1
            return result

        return call

    def __enter__(self):
        for name, function in self.whole.items():
            setattr(self.lib, name, self.timed(function))
        return self

    def __exit__(self, *_):
        for name, function in self.whole.items():
            setattr(self.lib, name, function)


def overhead(rounds):
    """What is left of a call when the library's time is taken away, and what ctypes itself takes for each call of the library
    is added: measured on a function that does nothing. So other load on the machine is in neither."""
    import numpy as np

    import ultramotion
    from ultramotion import _c

    empty = least(lambda: _c.lib.um_abi(), 2000)
    device = ultramotion.Device("cpu", threads=1)
    segmenter = ultramotion.Segmenter(device=device, canvas=64)
    detector = ultramotion.Detector(device=device, input_size=256)
    image = np.random.default_rng(1).integers(0, 255, (64, 64), np.uint8)
    embedding = segmenter.encode(image)
    run = ultramotion.run("phantom:seed=1,frames=100000,width=64,height=64", segmenter=segmenter, detector=detector, conf=0.0, receive=8)
    calls = {
        "a packet of run()": lambda: next(run).score,
        "predict(embedding, box)": lambda: segmenter.predict(embedding, box=[8, 8, 50, 50]).masks,
        "run_segmentation(array, box)": lambda: ultramotion.run_segmentation(segmenter, image, [8, 8, 50, 50]),
    }
    made = {}
    for name, call in calls.items():
        over, inside = [], Inside(_c.lib, _c.FUNCTIONS)
        with inside:
            for i in range(rounds * 10):
                inside.ns = inside.calls = 0
                begun = time.perf_counter_ns()
                call()
                over.append((time.perf_counter_ns() - begun - inside.ns + inside.calls * empty) / 1e3)
        made[name] = {**least_and_median(over[5:]), "calls of the library": inside.calls}
    run.close()
    return {"unit": "us", **made}


C_CALL = r"""
#include <time.h>
#include <ultramotion/ultramotion.h>

static double us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e6 + (double)t.tv_nsec * 1e-3;
}

/* Microseconds of a frame over a caller's pixels until its packet was read, without the pipeline's own; below 0: a failure. */
double frame(um_pipeline *pipeline, unsigned char *pixels, int width, int height)
{
    double begun = us();
    um_frame *frame = NULL;
    const um_packet *packet = NULL;
    volatile float score;
    if (um_frame_wrap(&frame, width, height, 1, pixels, width, NULL, NULL) || um_pipeline_send(pipeline, &frame) ||
        um_pipeline_receive(pipeline, &packet))
        return -1;
    score = packet->score;
    (void)score;
    return us() - begun - packet->ms.total * 1e3;
}

/* Microseconds from packet to packet of a run over a source; below 0: a failure. */
double run(um_pipeline *pipeline, const char *spec)
{
    um_run_settings s;
    um_run *run = NULL;
    um_source *source = NULL;
    const um_packet *packet = NULL;
    double first = 0, last = -1;
    long packets = 0;
    volatile float score;
    um_run_settings_default(&s);
    if (um_source_open(&source, spec, NULL))
        return -1;
    s.pipeline = pipeline;
    s.source = source;
    s.receive = 4;
    if (um_run_open(&run, &s) == UM_OK && um_run_start(run) == UM_OK)
        while (um_run_receive(run, -1, &packet, NULL) == UM_OK) {
            score = packet->score;
            (void)score;
            last = us();
            first = packets++ ? first : last;
            um_packet_unref(&packet);
        }
    if (um_run_join(run) != UM_OK || packets < 2)
        packets = 0;
    um_run_close(&run);
    um_source_close(&source);
    return packets ? (last - first) / (double)(packets - 1) : -1;
}
"""


@contextlib.contextmanager
def in_c():
    """The library of C_CALL."""
    import ctypes
    import tempfile

    from ultramotion import _c

    with tempfile.TemporaryDirectory() as folder:
        source, made = Path(folder, "frame.c"), Path(folder, "frame.so")
        source.write_text(C_CALL)
        subprocess.run(["cc", "-O2", "-shared", "-fPIC", f"-I{ROOT / 'include'}", str(source), _c.lib._name, "-o", str(made)], check=True)
        yield ctypes.CDLL(str(made))


def run(rounds):
    """What a run's own threads do while a packet is looked at costs nothing: the time between packets is what counts."""
    import ctypes

    import ultramotion

    spec = "phantom:seed=1,frames=400,width=64,height=64"
    device = ultramotion.Device("cpu", threads=1)
    pipeline = ultramotion.Pipeline(ultramotion.Detector(device=device, input_size=256), ultramotion.Segmenter(device=device, canvas=64), conf=0.0)
    python, c = [], []
    with in_c() as library:
        call = library.run
        call.restype, call.argtypes = ctypes.c_double, [ctypes.c_void_p, ctypes.c_char_p]
        for _ in range(rounds + 1):
            first = last = packets = 0
            for packet in ultramotion.run(spec, pipeline=pipeline):
                packet.score
                last = time.perf_counter_ns()
                first = first or last
                packets += 1
            python.append((last - first) / 1e3 / (packets - 1))
            with pipeline._handle as p:
                c.append(call(p, spec.encode()))
            assert c[-1] >= 0
    ratio = [a / b for a, b in zip(python[1:], c[1:])]
    return {"unit": "us", **side_by_side(python[1:], c[1:]), "ratio": statistics.median(ratio)}


def frame(rounds):
    """A real frame leaves the caches cold, which is what Python pays for; and it takes too long to see microseconds beside it."""
    import ctypes

    import numpy as np

    import ultramotion

    figures = {"unit": "us"}
    with in_c() as library:
        call = library.frame
        call.restype, call.argtypes = ctypes.c_double, [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int, ctypes.c_int]
        for caches, pipeline, shape in (
            ("cold", ultramotion.Pipeline(conf=0.0), (4, 480, 640)),
            ("warm", ultramotion.Pipeline(conf=0.0, reuse=True), (1, 64, 64)),
        ):
            images = np.random.default_rng(1).integers(0, 255, shape, np.uint8)
            pipeline(images[0])
            python, c = [], []
            for i in range(rounds * (5 if caches == "cold" else 500)):
                image = images[i % len(images)]
                begun = time.perf_counter_ns()
                packet = pipeline(image)  # and the one before goes
                packet.score
                taken = (time.perf_counter_ns() - begun) / 1e3
                total = packet.stages_ms["total"]
                python.append(taken - total * 1e3)
                with pipeline._handle as p:
                    c.append(call(p, image.ctypes.data, shape[2], shape[1]))
                assert c[-1] >= 0
            figures[caches] = {"frame_ms": total, **side_by_side(python[3:], c[3:])}
    return figures


def side_by_side(python, c):
    python, c = least_and_median(python), least_and_median(c)
    return {"python": python, "c": c, "over": {k: python[k] - c[k] for k in ("min", "median")}}


def least(call, times):
    taken = []
    for _ in range(times):
        begun = time.perf_counter_ns()
        call()
        taken.append(time.perf_counter_ns() - begun)
    return min(taken)


def imports(rounds):
    text = "import time, numpy; t = time.perf_counter(); import ultramotion; print((time.perf_counter() - t) * 1e3)"
    run = [subprocess.run([sys.executable, "-c", text], check=True, capture_output=True, text=True) for _ in range(rounds + 1)]
    return {"import_ms": least_and_median([float(r.stdout) for r in run[1:]])}  # the first one may write bytecode


def work(pipelines, own, frames):
    """A child: its pipelines, each in a thread, do `frames` frames for each line on stdin."""
    import numpy as np

    import ultramotion

    made = []
    for _ in range(pipelines):
        device = ultramotion.Device("cpu", threads=1) if own else "cpu"
        made.append(ultramotion.Pipeline(device=device, conf=0.0))
    image = np.random.default_rng(1).integers(0, 255, (256, 256), np.uint8)

    def run(pipeline, n):
        for _ in range(n):
            pipeline(image)

    for pipeline in made:
        run(pipeline, 2)
    print("ready", flush=True)
    for _ in sys.stdin:
        threads = [threading.Thread(target=run, args=(p, frames)) for p in made]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        print("done", flush=True)


def pipelines(rounds, frames):
    result = {}
    for own in (False, True):
        kinds = {"threads": [2], "processes": [1, 1], "one": [1]}
        children = {}
        for kind, counts in kinds.items():
            command = [sys.executable, __file__, "--frames", str(frames), *(["--own"] if own else []), "--work"]
            children[kind] = [subprocess.Popen([*command, str(n)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for n in counts]
            for child in children[kind]:
                assert child.stdout.readline() == "ready\n"
        seconds = {kind: [] for kind in kinds}
        for _ in range(rounds):
            for kind, group in children.items():
                begun = time.perf_counter()
                for child in group:
                    child.stdin.write("go\n")
                    child.stdin.flush()
                for child in group:
                    assert child.stdout.readline() == "done\n"
                seconds[kind].append(time.perf_counter() - begun)
        for group in children.values():
            for child in group:
                child.stdin.close()
                child.wait()
        made = {f"{kind}_fps": {"max": frames * sum(kinds[kind]) / min(s), "median": frames * sum(kinds[kind]) / statistics.median(s)} for kind, s in seconds.items()}
        ratio = {k: made["threads_fps"][k] / made["processes_fps"][k] for k in ("max", "median")}
        result["own devices" if own else "one device"] = {**made, "threads_over_processes": ratio}
    return result


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", help="frame, run, overhead, import, pipelines (default: all)")
    parser.add_argument("--rounds", type=whole, default=20)
    parser.add_argument("--frames", type=whole, default=20, help="a round of `pipelines`, each")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--work", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--own", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        return work(options.work, options.own, options.frames)
    all_of_them = {
        "frame": lambda: frame(options.rounds),
        "run": lambda: run(options.rounds),
        "overhead": lambda: overhead(options.rounds),
        "import": lambda: imports(options.rounds),
        "pipelines": lambda: pipelines(options.rounds, options.frames),
    }
    unknown = set(options.what) - set(all_of_them)
    if unknown:
        parser.error(f"{', '.join(sorted(unknown))}: want {', '.join(all_of_them)}")
    figures = {name: measure() for name, measure in all_of_them.items() if not options.what or name in options.what}
    made = {"date": datetime.datetime.now(datetime.timezone.utc).isoformat(), "machine": machine(), "python": platform.python_version(), "figures": figures}
    text = json.dumps(made, indent=1)
    print(text)
    if options.out:
        options.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
