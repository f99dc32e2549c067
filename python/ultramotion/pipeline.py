# SPDX-License-Identifier: Apache-2.0
"""Frames in, packets out: one at a time (`Pipeline`), or a whole source (`run`)."""

from __future__ import annotations

import glob
import logging
import os
import threading
from collections import Counter, deque
from contextlib import nullcontext, suppress
from ctypes import byref, c_float, c_int, c_void_p
from functools import cmp_to_key
from typing import IO, TYPE_CHECKING, Any, AsyncIterator, Callable, Generator, Iterable, Iterator, Literal, Mapping

from . import _c, dicom
from ._c import lib
from .image import Frame, as_frame
from .models import KPI, LOG, UNSET, Detector, Device, Model, Segmenter, _device_name, kpi_function, mask_mode
from .packet import Packet

if TYPE_CHECKING:
    import asyncio


class Pipeline(_c.Closing, _c.PipelineBase):
    """Detector, gate, segmenter and packet on one device: `pipeline(image)` is the image's packet. Models are shared; all else is
    its own. Threads take turns.

    `detector` and `segmenter` are models, or their files, which are opened on `device`. Without `segmenter=` it uses the bundled one;
    `segmenter=False` means boxes only. `conf` is the score from which on a frame is VISIBLE, `label` the class that is looked for (a name
    or its number; None: any). `objects=N` outlines the N best boxes, with `per_class` at most one of each class. `gate="sync"` waits for
    the score before it encodes, `"speculative"` does not, `"auto"` is what suits the device; `sam_as_numpy` is the rollback switch, as of
    `Segmenter`. In a run `inflight` frames may be under way. `assert_transfers=(up, down)` raises at a frame with more copies. `kpi` is
    called with a JSON line for each prediction; by default it goes to the logger `ultramotion.kpi`.

    `track=True` follows one structure from image to image (scores, state, `RELOCALIZING`); `detect_every=K` also skips the detector where
    it can; `budget_ms=B` says in each packet whether it was late and, with `track`, reduces the work while that happens
    (`docs/SUPERVISION.md`).
    `reuse=True` takes the previous image's results for an image identical to it, pixel by pixel.
    `crop=(x, y, w, h)` shows the networks a part of each image; `crop="auto"` that part of a scanner's screen which is the
    ultrasound image, and each packet says which.
    `mask_clean=True` removes specks and pieces outside the box from masks and fills their small holes, as the command does.
    With `track`, `theta_on`, `theta_off` and `theta_cont` are the thresholds of the state (`docs/STATE.md`). `shadow_every=N` has legacy
    mode do every N-th frame too, and continue alone if masks diverge (`docs/guides/rollback.md`)."""

    __slots__ = ("detector", "segmenter", "_kpi", "_handle", "_objects", "__weakref__")
    _close_order = 5

    def __init__(
        self,
        detector: Detector | Model | None = None,
        segmenter: Segmenter | Model | Literal[False] | None = None,
        *,
        device: Device | Any | None = None,
        conf: float = 0.5,
        label: int | str | None = None,
        objects: int = 1,
        per_class: bool = False,
        crop: tuple[int, int, int, int] | Literal["auto"] | None = None,
        gate: str = "auto",
        sam_as_numpy: bool | None = UNSET,
        inflight: int = 1,
        track: bool = False,
        theta_on: float | None = None,
        theta_off: float | None = None,
        theta_cont: float | None = None,
        detect_every: int = 1,
        shadow_every: int = 0,
        budget_ms: float = 0,
        mask_clean: bool = False,
        reuse: bool = False,
        assert_transfers: tuple[int, int] | None = None,
        kpi: Callable[[str], object] | None = None,
    ) -> None:
        if segmenter is False:
            _idle("with segmenter=False, which makes no masks", mask_clean=mask_clean, gate=gate != "auto", sam_as_numpy=mask_mode(sam_as_numpy) == 2)
        if device is None:
            device = next((m.device for m in (detector, segmenter) if isinstance(m, (Detector, Segmenter))), None)
        self.detector = detector if isinstance(detector, Detector) else Detector(detector, device=device)
        self.segmenter: Segmenter | None = None
        if isinstance(segmenter, Segmenter):
            self.segmenter = segmenter
        elif segmenter is not False:
            self.segmenter = Segmenter(segmenter, device=self.detector.device)
        on = self.detector.device
        if device is not None and (device is not on if isinstance(device, Device) else _device_name(device) not in ("auto", on.name)):
            raise _c.InvalidError(f"device {device}: the detector is open on {on}, and a pipeline is where its models are")
        settings = _c.PipelineSettings(
            conf=conf,
            label=self._label(label),
            gate=_choice("gate", gate, {"auto": 0, "speculative": 1, "sync": 2}),
            sam_as_numpy=mask_mode(sam_as_numpy),
            inflight=inflight,
            objects=objects,
            per_class=per_class,
            track=track or _c.integer(detect_every, "detect_every") > 1,
            theta_on=theta_on,
            theta_off=theta_off,
            theta_cont=theta_cont,
            detect_every=detect_every,
            shadow_every=shadow_every,
            budget_ms=budget_ms,
            mask_clean=mask_clean,
            reuse=reuse,
        )
        if not settings.track:
            thresholds = {"theta_on": theta_on, "theta_off": theta_off, "theta_cont": theta_cont}
            _idle("without track=True", **{name: value is not None for name, value in thresholds.items()})
        if settings.objects < 2:
            _idle("without objects=2 or more", per_class=per_class)
        if isinstance(crop, str):
            settings.crop_auto = _choice("crop", crop, {"auto": 1})
        elif crop is not None:
            sides = _c.integers(crop, 4, "crop")
            if min(sides[2:]) < 1:
                raise _c.InvalidError(f"crop {tuple(sides)}: want x, y, width and height, of at least one pixel")
            settings.crop[:] = sides
        if assert_transfers is not None:
            most = _c.integers(assert_transfers, 2, "assert_transfers")
            if min(most) < 0:
                raise _c.InvalidError(f"assert_transfers {assert_transfers}: want copies up and down, 0 or more")
            settings.assert_up, settings.assert_down = most
        if kpi is not None or KPI.isEnabledFor(logging.INFO):  # a call into Python for every frame
            self._kpi = kpi_function(kpi)
            settings.kpi, settings.kpi_ctx = _c.say, id(self._kpi)
        pointer = c_void_p()
        with self.detector._handle as d, self.segmenter._handle if self.segmenter else nullcontext() as s:
            settings.detector, settings.segmenter = d, s
            _c.check(lib.um_pipeline_open(byref(pointer), byref(settings)))
        self._handle = _c.Handle("pipeline", pointer, lib.um_pipeline_close)
        self._handle.__enter__()  # for all frames, until _left()
        self._begin(pointer.value, Packet)
        self._objects = objects
        _c.close_at_exit(self)

    def _label(self, label: int | str | None) -> int:
        if isinstance(label, str):
            names = self.detector.classes
            if label not in names:
                raise _c.InvalidError(f"class {label!r}: this detector has {', '.join(str(n) for n in names)}")
            if names.count(label) > 1:
                raise _c.InvalidError(f"class {label!r}: several are called so, want one of the numbers {[i for i, n in enumerate(names) if n == label]}")
            return names.index(label)
        return -1 if label is None else _c.integer(label, "label")

    def _about(self) -> str:
        return f"{self.detector}, {self.segmenter or 'boxes only'}"

    def prepare(self, width: int, height: int, channels: int = 1) -> None:
        """Plan for images of a size before the first of them arrives."""
        with self._handle as p:
            _c.check(lib.um_pipeline_prepare(p, *(_c.integer(n, "prepare") for n in (width, height, channels))))

    device_bytes = _c.Answer("um_pipeline_device_bytes", int)

    @property
    def shadow(self) -> dict[str, Any] | None:
        """What comparing with legacy mode has shown so far: compared, disagreed, failed, least_dice, fell_back, fell_at; None without
        `shadow_every`."""
        counts = _c.ShadowCounts()
        with self._handle as p:
            told = _c.check(lib.um_pipeline_shadow(p, byref(counts))) == _c.OK
        exact = {"least_dice": float(counts.least_dice), "fell_back": bool(counts.fell_back)}
        return {**_c.numbers(counts), **exact} if told else None

    def set(self, *, conf: float | None = None, label: int | str | None = UNSET, objects: int | None = None) -> None:
        """Change what is looked for, from the next frame on."""
        with self._handle as p:
            least = None if conf is None else c_float(_c.number(conf, "conf"))
            kind = None if label is UNSET else c_int(self._label(label))
            most = None if objects is None else c_int(_c.integer(objects, "objects"))
            _c.check(lib.um_pipeline_change(p, least, kind, most))

    def forget(self) -> None:
        """Forget previous images: with `track` the next one begins a stream. A run does so when it starts."""
        with self._handle as p:
            _c.check(lib.um_pipeline_forget(p))

    if TYPE_CHECKING:

        def __call__(self, image: Any) -> Packet:
            """The packet of one image: an array without a number of its own is the pipeline's next one. Nothing is copied: the packet's
            `frame` is the array itself, and changes with it."""

    _frame = staticmethod(as_frame)

    def _refuse(self, status: int) -> None:
        if status != _c.OK:
            raise _c.error(status)
        with self._handle:
            raise _c.InvalidError("this pipeline is in a run: end that, or open another on the same models")

    def _left(self) -> None:
        self._handle.__exit__()

    def map(self, images: Iterable[Any]) -> Iterator[Packet]:
        """Packets of images, one after the other, on the caller's thread."""
        for image in images:
            yield self(image)

    def close(self) -> None:
        """Refuse further frames; it closes when the last one that is in it is done."""
        self._handle.close()
        self._end()

    def __del__(self) -> None:
        if hasattr(self, "_handle"):
            self.close()


class _Feed(threading.Thread):
    """Pushes an iterable's images into a source. Ends with the iterable, or when the source was cancelled."""

    def __init__(self, source: _c.Handle, images: Iterable[Any]) -> None:
        super().__init__(name="ultramotion feed", daemon=True)
        self.source, self.images = source, images
        self.problem: BaseException | None = None
        self.read_only = False  # a frame was over memory that nobody may write

    def run(self) -> None:
        images: Any = ()
        with self.source as s:
            try:
                images = iter(self.images)
                for image in images:
                    if not self._push(s, image):
                        break
            except BaseException as problem:
                self.problem = problem  # before the source ends, and with it the run
            finally:
                lib.um_source_finish(s)
        if isinstance(images, Generator):  # a reader of the caller's stays open
            images.close()

    def _push(self, source: c_void_p, image: Any) -> bool:
        frame = image._again() if isinstance(image, Frame) else Frame._copy_of(image)
        self.read_only |= frame._read_only
        mine = c_void_p(lib.um_frame_ref(frame._use()))
        status = lib.um_source_push(source, byref(mine))
        if status == _c.OK:
            return True
        problem = _c.error(status)
        lib.um_frame_unref(byref(mine))
        if status != _c.EOF:
            raise problem
        return False


class Run(_c.Closing):
    """A run: an iterator of packets, a context manager, and an asynchronous iterator. Made by `run()`.

    It reads, computes and writes in threads of the library, whatever Python does meanwhile; `receive` packets wait for
    who iterates, then the run waits too. It ends at the source's end, with `stop()`, at the end of a `with`, and when it
    is dropped."""

    __slots__ = ("pipeline", "_owned", "_feed", "_done", "_ending", "_turn", "_bar", "_problems", "_taken", "_kept", "_source", "_handle", "__weakref__")
    _close_order = 1

    def __init__(
        self,
        source: Any,
        pipeline: Pipeline,
        sinks: list[bytes],
        of_source: _c.SourceSettings,
        of_sinks: _c.SinkSettings,
        settings: _c.RunSettings,
        *,
        owned: bool,
        progress: bool,
    ) -> None:
        self.pipeline, self._owned = pipeline, owned
        self._feed: _Feed | None = None
        self._done = self._taken = False
        self._ending = threading.Lock()
        self._turn: asyncio.Lock | None = None  # of tasks that wait for a packet
        self._bar: Any = None
        self._kept: deque[Packet] = deque()  # those that came as a signal did
        self._problems = _Problems()
        settings.on_problem, settings.ctx = _c.say, id(self._problems)
        is_spec = isinstance(source, (str, os.PathLike))
        shape = getattr(source, "shape", None)
        shape = tuple(shape) if isinstance(shape, Iterable) else ()
        if len(shape) == 2 or (len(shape) == 3 and shape[2] in (1, 3)):
            raise _c.InvalidError(f"a source of shape {list(shape)} is one image: want many, [image], or Pipeline for one")
        if len(shape) == 3 and shape[0] == 3:
            LOG.warning("a source of shape %s is taken as three gray images: one in colour is [image]", list(shape))
        unlike = isinstance(source, (bytes, bytearray, Mapping)) or hasattr(source, "readline")  # iterables of other things
        unlike = unlike or getattr(source, "ndim", None) == 0  # an array that cannot be iterated over
        if not is_spec and (unlike or (not isinstance(source, Iterable) and not hasattr(source, "__getitem__"))):
            shown = " ".join(repr(source).split())[:80]
            raise _c.InvalidError(f"source {shown}: want a name (a file, a folder, …) or an iterable of images, of one [image]")
        pointer = c_void_p()
        spec = _c.path_bytes(source) if is_spec else b"push:"
        _c.check(lib.um_source_open(byref(pointer), spec, byref(of_source)))
        self._source = _c.Handle("source", pointer, lib.um_source_close)
        if not pipeline._take():
            raise _c.InvalidError("this pipeline is in a run already")
        try:
            self._handle = self._open(sinks, of_sinks, settings)
        except BaseException:
            pipeline._give_back()
            raise
        if progress:
            self._bar = _bar(None if not is_spec else int(lib.um_source_length(pointer)))
        if not is_spec:
            self._feed = _Feed(self._source, source)
        _c.close_at_exit(self)
        with self._handle as r:
            _c.check(lib.um_run_start(r))
        if self._feed is not None:
            self._feed.start()

    def _open(self, specs: list[bytes], of_sinks: _c.SinkSettings, settings: _c.RunSettings) -> _c.Handle:
        of_sinks.objects = self.pipeline._objects
        sinks = (c_void_p * max(len(specs), 1))()
        pointer, monitor = c_void_p(), c_void_p()
        _c.check(lib.um_monitor_open(byref(monitor)))  # what a viewer's numbers are read from
        try:
            of_sinks.monitor = settings.monitor = monitor
            with self.pipeline._handle as p, self._source as s:
                settings.pipeline, settings.source = p, s
                of_sinks.source = s
                for i, spec in enumerate(specs):
                    sink = c_void_p()
                    _c.check(lib.um_sink_open(byref(sink), spec, byref(of_sinks)))
                    sinks[i] = sink.value
                settings.sinks, settings.n_sinks = sinks, len(specs)
                _c.check(lib.um_run_open(byref(pointer), byref(settings)))
                return _c.Handle("run", pointer, lib.um_run_close)
        finally:
            for value in sinks:
                if value:
                    lib.um_sink_close(byref(c_void_p(value)))
            lib.um_monitor_close(byref(monitor))

    # ---- packets ----

    def receive(self, timeout: float | None = None) -> Packet | None:
        """The next packet; None at the end. TimeoutError after `timeout` seconds."""
        if timeout is not None and _c.number(timeout, "timeout") < 0:
            raise _c.InvalidError(f"timeout {timeout}: want seconds, 0 or more")
        left = timeout
        while True:
            wait = 0.1 if left is None else min(left, 0.1)  # between waits Python sees its signals
            packet = self._take(int(wait * 1000))
            if packet is not None or self._done:
                return packet
            if left is not None:
                left -= wait
                if left <= 0:
                    raise TimeoutError(f"no packet within {timeout} s")

    def _take(self, ms: int) -> Packet | None:
        """A packet; None after the time and, with `_done`, at the end."""
        if self._kept:
            with suppress(IndexError):  # another thread was first
                return self._kept.popleft()
        if self._done:
            return None
        packet, image = c_void_p(), c_void_p()
        try:
            with self._handle as r:
                status = _c.check(lib.um_run_receive(r, ms, byref(packet), byref(image)))
        except BaseException:  # a signal's, after a success
            if packet:
                self._kept.append(self._packet(packet, image))
            raise
        if status == _c.EOF:
            self._end()
        return self._packet(packet, image) if packet else None

    def _packet(self, packet: c_void_p, image: c_void_p) -> Packet:
        self._taken = True
        if self._bar is not None:
            self._bar.update()
        frame = Frame._of(image)
        frame._read_only = self._feed is not None and self._feed.read_only
        return Packet._of(packet.value, frame)

    def _ends(self) -> bool:
        """Whether this is the thread that ends it: the pipeline is given back once, the next run may have it by then."""
        with self._ending:
            first, self._done = not self._done, True
        return first

    def _end(self) -> None:
        """The run is over: what went wrong is raised, once."""
        if not self._ends():
            return
        if self._bar is not None:
            self._bar.close()
        try:
            with self._handle as r:
                status = lib.um_run_join(r)
                problem = _c.error(status) if status < 0 else None
                counts = self.stats
            if problem is None and counts["unreadable"] and not counts["frames"] and not counts["stopped"]:
                problem = _c.FormatError(self._problems.last)  # it is all there was
        finally:
            self.pipeline._give_back()
        fed = self._feed.problem if self._feed is not None else None
        if fed is not None:
            raise fed
        if problem is not None:
            raise problem

    def __iter__(self) -> Run:
        return self

    def __next__(self) -> Packet:
        packet = self.receive()
        if packet is None:
            raise StopIteration
        return packet

    def __aiter__(self) -> AsyncIterator[Packet]:
        return self

    async def __anext__(self) -> Packet:
        import asyncio  # takes longer than all the rest

        loop = asyncio.get_running_loop()
        if self._turn is None:
            self._turn = asyncio.Lock()
        async with self._turn:  # a loop has one reader for a descriptor
            while True:
                packet = self._take(0)
                if packet is not None:
                    return packet
                if self._done:
                    raise StopAsyncIteration
                with self._handle as r:
                    fd = lib.um_run_fd(r)
                    ready: asyncio.Future[None] = loop.create_future()
                    loop.add_reader(fd, _wake, ready)
                    try:
                        await ready
                    finally:
                        loop.remove_reader(fd)

    # ---- the run ----

    @property
    def stats(self) -> dict[str, int]:
        """What it has done so far: frames, visible, lost, unreadable, replaced, dropped, …"""
        counts = _c.RunCounts()
        with self._handle as r:
            _c.check(lib.um_run_stats(r, byref(counts)))
        files = None if self._feed is None else self._feed.images
        counts.unreadable += files.unreadable if isinstance(files, _DicomFiles) else 0
        return _c.numbers(counts)

    def _about(self) -> str:
        return ", ".join(f"{name} {count}" for name, count in self.stats.items() if count) or "no packet yet"

    def stop(self) -> None:
        """Ask it to end: what is in flight still comes."""
        with self._handle as r:
            lib.um_run_stop(r)

    def close(self) -> None:
        """Stop, wait for the end, and let go of everything; what went wrong is raised, unless the run's end has told it. A KPI function that
        the run waits for does not wait for the run."""
        self._kept.clear()
        problem = None if self._handle.closed else self._close(self._ends())
        if problem is not None:
            raise problem

    def __exit__(self, *problem: object) -> None:
        if problem[0] is None:
            self.close()
        else:  # what ended the block says more
            self._leave()

    def _leave(self) -> None:
        with suppress(_c.Error):  # which is logged
            self.close()

    def _close(self, first: bool) -> _c.Error | None:
        problem = None
        with suppress(_c.ClosedError), self._source as s, self._handle as r:  # another thread may close it too
            lib.um_source_cancel(s)
            lib.um_run_stop(r)
            status = lib.um_run_join(r)
            if status == _c.AGAIN:  # this is the run's own thread
                threading.Thread(target=self._close, args=(first,), name="ultramotion close").start()
                return None
            problem = _c.error(status) if first and status < 0 else None
        self._handle.close()
        if first:
            self.pipeline._give_back()
            if self._bar is not None:
                self._bar.close()
        if self._feed is not None and self._feed is not threading.current_thread():
            self._feed.join(2)
        self._source.close()
        if self._owned:
            self.pipeline.close()
        return problem

    def __del__(self) -> None:
        if getattr(self, "_handle", None) is None or self._handle._forks != _c._forks:
            return
        if not (self._taken or self._done):
            LOG.warning("a run ends, as it was dropped before a packet was taken: iterate over it, or list() it where only its sinks matter")
        if isinstance(threading.current_thread(), threading._DummyThread):  # perhaps of this run, collected in a KPI function
            threading.Thread(target=self._leave, name="ultramotion close").start()
        else:
            self._leave()


def _dicom_files(spec: str) -> list[str]:
    """A DICOM file, or those that a glob matches or a list names, if there is no image among them."""
    listed = spec.startswith("@")
    names = _lines(spec[1:]) if listed else [spec] if os.path.isfile(spec) else [] if os.path.isdir(spec) else glob.glob(spec)
    others = [name for name in names if not dicom.is_dicom(name)]
    if len(others) == len(names) or any(map(dicom.is_image, others)):
        return []
    if not listed:
        return _dicom_among(spec, names)
    name, times = Counter(names).most_common(1)[0]
    if times > 1:
        raise _c.InvalidError(f'{spec[1:]}: "{name}" is in it twice')
    return names


def _as_list(source: Any) -> IO[bytes] | None:
    """A list of names as one that the library reads: a file, which goes with this object."""
    if not isinstance(source, (list, tuple)) or not source or not all(isinstance(one, (str, os.PathLike)) for one in source):
        return None
    names = [_without_steps_up(os.path.join(os.getcwd(), _c.path_text(one))) for one in source]
    for name in names:
        if "\n" in name or name.endswith("\r"):
            raise _c.InvalidError(f"source {name!r}: a name with the end of a line in it")
    file = _c.scratch("wb")
    file.write(os.fsencode("\n".join(names)))
    file.flush()
    return file


def _without_steps_up(path: str) -> str:
    """Outputs are called by what paths have of their own, and `..` is no name."""
    folder, name = os.path.split(path)
    return os.path.join(os.path.realpath(folder), name) if ".." in folder.split("/") else path


def _lines(path: str) -> list[str]:
    """The files that a list names, as the library reads it; it also says what is wrong with it."""
    if not os.path.isfile(path):  # a pipe would be waited for
        return []
    try:
        with open(path, "rb") as file:
            text = file.read().removeprefix(b"\xef\xbb\xbf")
    except OSError:
        return []
    lines = [line.removesuffix(b"\r") for line in text.split(b"\n")] if b"\0" not in text else []
    return [_tidy(os.path.join(os.path.dirname(path), os.fsdecode(line))) for line in lines if line]


def _tidy(path: str) -> str:
    """Without "./" and doubled slashes, so that a file has one name."""
    return "/" * path.startswith("/") + "/".join(step for step in path.split("/") if step not in ("", "."))


def _dicom_folder(folder: str, recursive: bool) -> list[str]:
    """The DICOM files of a folder in which the library found no image."""
    return _dicom_among(folder, files_in(folder, recursive))


def files_in(folder: str, recursive: bool) -> list[str]:
    """Its files as the library finds them: without what is hidden."""
    found: list[str] = []
    for level, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if recursive and not name.startswith(".")]
        found += [os.path.join(level, name) for name in files if not name.startswith(".")]
    return found


def _dicom_among(spec: str, names: list[str]) -> list[str]:
    """Ordered as the library orders the files of a folder."""
    found = [name for name in names if dicom.is_dicom(name)]
    if found and len(found) < len(names):
        LOG.warning("%s: passed over: %d that are not DICOM", spec, len(names) - len(found))
    return [os.fsdecode(n) for n in sorted(map(os.fsencode, found), key=cmp_to_key(lib.um_natural_order))]


class _DicomFiles:
    """Their images. As in a folder of images, a file that cannot be read is reported, counted and skipped, unless it is all there is."""

    def __init__(self, names: list[str], ordered: bool, strict: bool, window: tuple[int, int] | str | None) -> None:
        self.names, self.ordered, self.strict, self.window = names, ordered, strict or len(names) == 1, window
        self.unreadable = 0

    def __iter__(self) -> Iterator[Frame]:
        read, last = False, None
        for name in self.names if self.ordered else dicom.in_series(self.names):
            try:
                for frame in dicom.frames(name, window=self.window):
                    read = True
                    yield frame
            except (_c.FileError, _c.FormatError) as problem:
                if self.strict:
                    raise
                last = problem
                self.unreadable += 1
                LOG.warning("%s", problem)
        if last and not read:
            raise last


def _spare(names: list[str], sinks: list[bytes]) -> None:
    """No sink writes over a file that is read: of those that are the library's source it sees to that itself."""
    for sink in sinks:
        path = os.fsdecode(sink).partition(":")[2]
        if os.path.isfile(path) and any(os.path.samefile(path, name) for name in names if os.path.exists(name)):
            raise _c.InvalidError(f"{path} is also the input")


def _say(line: str) -> None:
    LOG.warning("%s", line)


class _Problems:
    """Logs what goes wrong with single frames."""

    last = ""

    def __call__(self, line: str) -> None:
        self.last = line
        _say(line)


def _idle(lacks: str, **given: Any) -> None:
    """What was given and would do nothing is refused, as the command does."""
    for name, value in given.items():
        if value:
            raise _c.InvalidError(f"{name}: nothing {lacks}")


def _choice(what: str, given: str, choices: dict[str, int]) -> int:
    if not isinstance(given, str) or given not in choices:
        raise _c.InvalidError(f"{what} {given!r}: want {' or '.join(choices)}")
    return choices[given]


def _window(given: tuple[int, int] | str) -> tuple[int, int, int]:
    """UM_WINDOW_AUTO or _RANGE, and its ends."""
    if isinstance(given, str):
        return _choice("window", given, {"auto": 2}), 0, 0
    low, high = _c.integers(given, 2, "window")
    return 1, low, high


def _wake(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)


def _bar(length: int | None) -> Any:
    try:
        from tqdm.auto import tqdm
    except ImportError:
        LOG.warning("progress: no bar without tqdm, which pip installs")
        return None
    return tqdm(total=length if length and length > 0 else None, unit="frame")


def run(
    source: Any,
    *,
    detector: Detector | Model | None = None,
    segmenter: Segmenter | Model | Literal[False] | None = None,
    pipeline: Pipeline | None = None,
    sinks: _c.Path | Iterable[_c.Path] = (),
    frames: int = 0,
    loop: bool = False,
    strict: bool = False,
    realtime: bool = False,
    receive: int = 4,
    size: tuple[int, int] | None = None,
    pixel: str | None = None,
    recursive: bool = False,
    window: tuple[int, int] | str | None = None,
    max_age_ms: int = 0,
    lag_alarm_ms: int | None = None,
    on_sink_full: str = "block",
    sink_deadline: float = 10,
    progress: bool = False,
    **options: Any,
) -> Run:
    """Packets of a source: `for packet in ultramotion.run("frames/"): …`

    `source` is what the command takes (a file, a folder, a glob, `"phantom:seed=1,frames=100"`, `"-"`), or a list of files' names; DICOM files
    (one, a list, a glob or `@LIST.txt` of such, a folder with such and no other images); or any iterable of images (each is copied on
    arrival; an array's are along its first axis) or `Frame`s. `detector` and `segmenter` are models or their files, or give a whole
    `pipeline`; `options` are those of `Pipeline`. `sinks` are the command's, one or a list: `"dir:out"`, `"jsonl:out.jsonl"`. What should be
    known of the source (images that were rotated, or skipped) and of the sinks (at which port they listen, who came), and what goes wrong
    with single frames, goes to the logger `ultramotion`.

    `frames` is where it ends (0: with the source), `loop` begins files again; `receive` packets wait for who iterates, then the run does;
    `progress` shows a bar. `strict` stops at the first unreadable frame; `realtime` leaves out frames that wait while a newer one is there,
    `max_age_ms` those that were received longer ago; `lag_alarm_ms` (500; 0: never) warns of a live source that falls behind. `recursive`
    takes a folder's folders too, `window=(lo, hi)` or `"auto"` says which of 16 bits are black and white; `size=(w, h)` and `pixel`
    (`"gray8"`, `"rgb8"`) are of the raw frames of `"-"`. A sink that is behind holds the run up, or with `on_sink_full="drop"` misses
    packets; one that takes longer than `sink_deadline` seconds (10) for one is given up (0: never). What the source cannot use is refused
    by its name."""
    if not 0 <= _c.number(sink_deadline, "sink_deadline") <= 86400:
        raise _c.InvalidError(f"sink_deadline {sink_deadline}: want seconds, 0 (never) to 86400")
    kind, low, high = (None, None, None) if window is None else _window(window)
    width, height = (None, None) if size is None else _c.integers(size, 2, "size")
    of_source = _c.SourceSettings(
        width=width,
        height=height,
        channels=None if pixel is None else _choice("pixel", pixel, {"gray8": 1, "rgb8": 3}),
        frames=frames,
        loop=loop,
        recursive=recursive,
        window=kind,
        window_lo=low,
        window_hi=high,
        on_notice=_c.say,
        ctx=id(_say),
    )
    of_sinks = _c.SinkSettings(
        policy=_choice("on_sink_full", on_sink_full, {"block": 0, "drop": 1}),
        deadline_ms=int(sink_deadline * 1000),
        log=_c.say,
        log_ctx=id(_say),
    )
    settings = _c.RunSettings(
        strict=strict,
        realtime=realtime,
        receive=receive,
        max_age_ms=max_age_ms,
        lag_alarm_ms=500 if lag_alarm_ms is None else lag_alarm_ms,
    )
    if not settings.receive:
        raise _c.InvalidError("receive 0: want packets that may wait, 1 to 1024")
    if isinstance(sinks, (str, os.PathLike)):
        sinks = [sinks]
    if not isinstance(sinks, Iterable):
        raise _c.InvalidError(f"sinks {sinks!r}: want a name or a list of names")
    if not isinstance(pipeline, (Pipeline, type(None))):
        raise _c.InvalidError(f"pipeline {pipeline!r}: want an ultramotion.Pipeline")
    specs = [_c.path_bytes(sink) for sink in sinks]
    listed = _as_list(source)
    source = source if listed is None else f"@/proc/self/fd/{listed.fileno()}"
    spec = _c.path_text(source) if isinstance(source, (str, os.PathLike)) else ""
    if spec.startswith("push:"):
        raise _c.InvalidError(f"source {spec!r}: want the images themselves, as an iterable")
    uses = _c.lib.um_source_uses(_c.path_bytes(spec))
    if not uses & _c.SOURCE_SIZE:
        _idle('for a source other than "-"', size=size is not None, pixel=pixel is not None)
    if not uses & _c.SOURCE_WINDOW:
        _idle("for a source other than files and cameras", window=window is not None)
    if not uses & _c.SOURCE_RECURSIVE:
        _idle("for a source other than files", recursive=recursive)
    if not uses & _c.SOURCE_LIVE:
        _idle("for a source that is not live", lag_alarm_ms=lag_alarm_ms is not None)
        if not realtime:
            _idle("without realtime=True", max_age_ms=max_age_ms)
    _spare([_c.path_text(model) for model in (detector, segmenter) if isinstance(model, (str, os.PathLike))], specs)
    names = _dicom_files(spec)
    owned = pipeline is None
    if pipeline is None:
        pipeline = Pipeline(detector, segmenter, **options)
    elif options or detector is not None or segmenter is not None:
        raise _c.InvalidError("run: a pipeline has its models and options already")

    def start() -> Run:
        ordered = spec.startswith("@")
        _spare([*names, spec[1:]] if names and ordered else names, specs)
        if loop and (names or not spec):
            raise _c.InvalidError("loop: nothing for DICOM files and iterables, which are read once")
        what = _DicomFiles(names, ordered, strict, window) if names else source
        return Run(what, pipeline, specs, of_source, of_sinks, settings, owned=owned, progress=progress)

    try:
        try:
            return start()
        except _c.FileError:
            names = _dicom_folder(spec, recursive) if os.path.isdir(spec) else []
            if not names:
                raise
        return start()
    except BaseException:
        if owned:
            pipeline.close()
        raise
    finally:
        if listed is not None:
            listed.close()  # it was read
