# SPDX-License-Identifier: Apache-2.0
"""A scripted module of 3D Slicer: runs a pipeline on a source and shows its image, its outline and its state.

The pipeline runs in threads of the library and in one of Python's that only keeps the newest packet; the scene is changed in
Slicer's own thread, by a timer."""

import logging
import threading
import time

try:
    import qt
    import slicer
    from slicer.ScriptedLoadableModule import (
        ScriptedLoadableModule,
        ScriptedLoadableModuleLogic,
        ScriptedLoadableModuleWidget,
    )
except ImportError:  # outside of Slicer, where only UltramotionLogic's run is of use
    qt = slicer = None
    ScriptedLoadableModule = ScriptedLoadableModuleLogic = ScriptedLoadableModuleWidget = object

OLD_S = 2.0  # an image that is shown for longer does not pass for live


class Ultramotion(ScriptedLoadableModule):
    def __init__(self, parent):
        ScriptedLoadableModule.__init__(self, parent)
        parent.title = "Ultramotion"
        parent.categories = ["IGT"]
        parent.dependencies = []
        parent.contributors = ["the authors of ultramotion"]
        parent.helpText = "Finds and outlines a structure in ultrasound frames. Research software, not a medical device."
        parent.acknowledgementText = "D-FINE, MobileSAM"


class UltramotionWidget(ScriptedLoadableModuleWidget):
    def setup(self):
        ScriptedLoadableModuleWidget.setup(self)
        self.logic = UltramotionLogic()
        form = qt.QFormLayout()
        self.layout.addLayout(form)
        self.source = qt.QLineEdit("phantom:seed=900001,frames=200")
        self.source.setToolTip("A folder, a file, a DICOM file, phantom:…, or a live source of ultramotion")
        form.addRow("Source", self.source)
        self.detector, self.segmenter = qt.QLineEdit(), qt.QLineEdit()
        form.addRow("Detector (empty: the bundled one)", self.detector)
        form.addRow("Segmenter (empty: the bundled one)", self.segmenter)
        self.button, self.state = qt.QPushButton("Start"), qt.QLabel("stopped")
        form.addRow(self.button, self.state)
        self.button.connect("clicked(bool)", self.toggle)
        self.timer = qt.QTimer()
        self.timer.setInterval(20)
        self.timer.connect("timeout()", self.update)

    def toggle(self):
        if self.logic.running:
            self.logic.stop()
            return
        try:
            self.logic.start(self.source.text, detector=self.detector.text or None, segmenter=self.segmenter.text or None)
        except Exception as problem:
            slicer.util.errorDisplay(str(problem))
            return
        self.button.text, self.state.text = "Stop", "running"
        self.timer.start()

    def update(self):
        said = self.logic.show()
        self.state.text = said or self.state.text
        if said.startswith("ended"):
            self.timer.stop()
            self.button.text = "Start"

    def cleanup(self):
        self.timer.stop()
        self.logic.stop()


class UltramotionLogic(ScriptedLoadableModuleLogic):
    """Starts and stops a run, keeps its newest packet, and shows it in the scene."""

    def __init__(self):
        if ScriptedLoadableModuleLogic is not object:
            ScriptedLoadableModuleLogic.__init__(self)
        self.lock = threading.Lock()
        self.frames = self.thread = self.latest = self.problem = None
        self.shown, self.shown_at = 0, 0.0
        self.nodes = {}  # of the scene, by name; made by this module, however others are called

    @property
    def running(self):
        return self.thread is not None and self.thread.is_alive()

    def start(self, source, **options):
        """`options` are those of `ultramotion.run`. Live and recorded sources alike: what was not shown in time is left out."""
        self.stop()
        try:
            import ultramotion
        except ModuleNotFoundError as problem:  # which nobody but the user can get: no index has it
            raise ImportError(f"{problem}: slicer.util.pip_install() the wheel, see slicer/README.md") from problem
        self.latest = self.problem = None
        self.shown, self.shown_at = 0, time.monotonic()
        self.frames = ultramotion.run(source, **options)
        self.thread = threading.Thread(target=self._keep, args=(self.frames,), name="ultramotion", daemon=True)
        self.thread.start()

    def _keep(self, frames):
        try:
            for packet in frames:
                with self.lock:
                    self.latest = packet
        except Exception as problem:
            logging.exception("ultramotion")
            self.problem = problem

    def stop(self):
        if self.frames is not None:
            self.frames.stop()
            self.thread.join(5)
            self.frames.close()
            self.frames = None

    def take(self):
        """The newest packet that was not taken yet, or None. On any thread."""
        with self.lock:
            packet, self.latest = self.latest, None
        return packet

    def show(self):
        """Put the newest packet into the scene, on Slicer's thread. What there is to say about it; "" where nothing is new."""
        running, packet = self.running, self.take()  # in this order, or the last one might be missed
        if packet is None and not running:
            return f"ended: {self.problem}" if self.problem else f"ended after {self.shown} frames"
        if packet is None:
            silent = time.monotonic() - self.shown_at
            return f"no image for {silent:.0f} s" if silent > OLD_S else ""
        self.shown, self.shown_at = self.shown + 1, time.monotonic()
        spacing = packet.spacing_mm or (1.0, 1.0)
        frame = packet.frame.numpy()
        gray = frame if frame.ndim == 2 else frame.mean(axis=2).astype("uint8")
        before = dict(self.nodes)
        image = self._volume("vtkMRMLScalarVolumeNode", "Ultrasound", gray, spacing)
        mask = self._volume("vtkMRMLLabelMapVolumeNode", "BoneMask", packet.label_map(), spacing)
        if self.nodes != before:  # from then on the views are the user's
            slicer.util.setSliceViewerLayers(background=image, label=mask, fit=True)
        return f"{packet.state}, score {packet.score:.2f}, {packet.mask_area_px} px, {packet.stages_ms['total']:.0f} ms"

    def _volume(self, kind, name, pixels, spacing):
        node = self.nodes.get(name)
        if node is None or not slicer.mrmlScene.IsNodePresent(node):  # the scene was closed, or the node deleted
            node = self.nodes[name] = slicer.mrmlScene.AddNewNodeByClass(kind, name)
            node.CreateDefaultDisplayNodes()
        slicer.util.updateVolumeFromArray(node, pixels[None].copy())  # [k,j,i]
        node.SetSpacing(spacing[0], spacing[1], 1.0)
        node.SetIJKToRASDirections(-1, 0, 0, 0, -1, 0, 0, 0, 1)
        return node
