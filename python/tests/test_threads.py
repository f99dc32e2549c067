# SPDX-License-Identifier: Apache-2.0
"""Many threads on one model, calls of every kind: the same numbers as alone, and memory that does not grow.

ULTRAMOTION_CALLS=100000 makes it long."""
import gc
import os
import sys
import threading
import time

import numpy as np

import ultramotion
from test_tensor import memory_mib

THREADS, CALLS = 8, int(os.environ.get("ULTRAMOTION_CALLS", 600))
GROWTH_MIB = 30
QUARANTINE = "asan" in os.environ.get("LD_PRELOAD", "")  # keeps what is freed: memory grows, and is checked in another way


def handles():
    """Open files and threads of this process."""
    return len(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task"))


def test_eight_threads_on_one_model(device):
    segmenter = ultramotion.Segmenter(device=device, canvas=64)
    detector = ultramotion.Detector(device=device, input_size=256)
    rng = np.random.default_rng(1)
    images = [rng.integers(0, 255, (72, 96), np.uint8) for _ in range(3)]
    embeddings = [segmenter.encode(p) for p in images]
    prompts = [
        {"box": [10, 10, 60, 60]},
        {"points": [[30, 30]], "labels": [1], "multimask": True},
        {"points": [[30, 30], [5, 60]], "labels": [1, 0], "logits": True},
        {"box": [0, 0, 90, 70], "points": [[40, 20]], "labels": [0], "multimask": True},
    ]
    pipelines = threading.local()

    def predicted(p, k, host):
        return [np.array(x) for x in segmenter.predict(embeddings[p], **prompts[k], as_numpy=host)]

    def packet(p):
        if not hasattr(pipelines, "own"):
            pipelines.own = ultramotion.Pipeline(detector, segmenter, conf=0.0)
        made = pipelines.own(images[p])
        return [made.box_xyxy, made.mask]

    kinds = {
        **{("predict", p, k): (lambda p=p, k=k: predicted(p, k, k % 2 == 0)) for p in range(3) for k in range(4)},
        **{("encode", p): (lambda p=p: [np.array(segmenter.encode(images[p]).tensor)]) for p in range(3)},
        **{("run", p): (lambda p=p: [np.array(ultramotion.run_segmentation(segmenter, images[p], [9, 9, 50, 50]))]) for p in range(3)},
        **{("detect", p): (lambda p=p: [np.array(detector.detect(images[p], 0.0, limit=3)[0].box_xyxy)]) for p in range(3)},
        **{("packet", p): (lambda p=p: packet(p)) for p in range(3)},
    }
    want = {kind: call() for kind, call in kinds.items()}
    weights = {"predict": 40, "encode": 3, "run": 3, "detect": 0.3, "packet": 0.3}
    names = list(kinds)
    odds = np.array([weights[n[0]] for n in names])
    wrong, problems, done, early = [], [], [0] * THREADS, []

    def work(thread):
        chosen = np.random.default_rng(thread).choice(len(names), CALLS // THREADS, p=odds / odds.sum())
        try:
            for i in chosen:
                name = names[i]
                got = kinds[name]()
                if not all(np.array_equal(a, b) for a, b in zip(got, want[name])):
                    wrong.append(name)
                done[thread] += 1
                if thread == 0 and done[0] == CALLS // THREADS // 5:
                    early.append(memory_mib())
        except Exception as problem:
            problems.append(problem)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(THREADS)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    gil = getattr(sys, "_is_gil_enabled", lambda: True)()
    print(f"{sum(done)} calls, {len(wrong)} wrong, {early[0]:.0f} to {memory_mib():.0f} MiB, GIL {'on' if gil else 'off'}")
    assert not problems, problems[:3]
    assert not wrong, wrong[:10]
    assert sum(done) == CALLS // THREADS * THREADS
    assert QUARANTINE or memory_mib() < early[0] + GROWTH_MIB


def test_nothing_is_left_of_what_was_closed(device):
    """Devices, models, pipelines and runs, opened and dropped in threads: no file and no thread of theirs stays."""

    def use():
        own = ultramotion.Device("cpu", threads=2)
        model = ultramotion.Segmenter(device=own, canvas=64)
        model.predict(model.encode(np.zeros((40, 50), np.uint8)), box=[5, 5, 30, 30])
        with ultramotion.run("phantom:seed=1,frames=2,width=64,height=64", segmenter=model) as frames:
            list(frames)

    use()
    before = handles()
    for _ in range(2):
        threads = [threading.Thread(target=use) for _ in range(2)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
    until = time.monotonic() + 10  # a thread that was joined is listed for a moment yet
    while handles() != before and time.monotonic() < until:
        time.sleep(0.01)
    assert handles() == before


def test_a_run_that_its_own_kpi_function_closes(detector, device):
    runs, segmenter = [], ultramotion.Segmenter(device=device, canvas=64)
    with ultramotion.Pipeline(detector, segmenter, conf=0.0, kpi=lambda _: [run.close() for run in runs]) as pipeline:
        run = ultramotion.run("phantom:seed=1,width=64,height=64", pipeline=pipeline)
        runs.append(run)
        list(run)
        until = time.monotonic() + 20
        while not run._handle.closed:
            assert time.monotonic() < until
            time.sleep(0.01)


def test_a_run_that_is_collected_on_a_thread_of_its_own(detector, device):
    """As a cycle is, when Python collects in the KPI function that the run's thread calls."""
    dropped = threading.Event()

    def kpi(_):
        if dropped.is_set():
            dropped.clear()
            gc.collect()

    segmenter, image = ultramotion.Segmenter(device=device, canvas=64), np.zeros((64, 64), np.uint8)
    with ultramotion.Pipeline(detector, segmenter, conf=0.0, kpi=kpi) as pipeline:
        cycle = [ultramotion.run("phantom:seed=1,width=64,height=64", pipeline=pipeline)]
        next(cycle[0])
        cycle.append(cycle)
        del cycle
        dropped.set()
        until = time.monotonic() + 20
        while True:
            try:
                assert pipeline(image).state == "VISIBLE"
                break
            except ultramotion.InvalidError:  # it is in that run yet
                assert time.monotonic() < until
                time.sleep(0.01)
