# SPDX-License-Identifier: Apache-2.0
"""The logic of the module for 3D Slicer, with stand-ins for the calls of Slicer's that it makes."""
import importlib.util
import sys
import threading
import time
import types

import numpy as np
import pytest

from conftest import ROOT

SOURCE = "phantom:seed=900001,frames=8,width=128,height=128"


class Node:
    def __init__(self, kind, name):
        self.kind, self.name = kind, name

    def SetSpacing(self, *spacing):
        self.spacing = spacing

    def SetIJKToRASDirections(self, *directions):
        self.directions = directions

    def CreateDefaultDisplayNodes(self):
        self.displayed = True


class Scene:
    def __init__(self):
        self.all = []

    @property
    def nodes(self):
        assert len({n.name for n in self.all}) == len(self.all), [n.name for n in self.all]
        return {n.name: n for n in self.all}

    def IsNodePresent(self, node):
        return node in self.all and self.all.index(node) + 1

    def AddNewNodeByClass(self, kind, name):
        self.all.append(Node(kind, name))
        return self.all[-1]


def loaded():
    file = ROOT / "slicer" / "Ultramotion" / "Ultramotion.py"
    spec = importlib.util.spec_from_file_location("Ultramotion", file)
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


def a_slicer(**util):
    made = types.SimpleNamespace(mrmlScene=Scene(), views=[], util=types.SimpleNamespace(**util))
    made.util.updateVolumeFromArray = lambda node, array: setattr(node, "array", array)
    made.util.setSliceViewerLayers = lambda **layers: made.views.append(layers)
    return made


@pytest.fixture
def module():
    made = loaded()
    made.slicer = a_slicer()
    return made


class Part:
    """A part of Qt's: what was set, connected and added is remembered."""

    def __init__(self, text=""):
        self.text, self.heard, self.rows, self.running = text, {}, [], False

    def connect(self, signal, slot):
        self.heard[signal] = slot

    def addRow(self, *row):
        self.rows.append(row)

    def start(self):
        self.running = True

    def stop(self):
        self.running = False

    addLayout = setToolTip = setInterval = lambda self, _: None


@pytest.fixture
def widget(monkeypatch):
    """The module's panel as Slicer makes it, with nothing of the documented interface but what it uses."""

    class Base:
        def __init__(self, parent=None):
            self.parent = parent

        def setup(self):
            self.layout = Part()

    names = ("ScriptedLoadableModule", "ScriptedLoadableModuleWidget", "ScriptedLoadableModuleLogic")
    bases = types.ModuleType("slicer.ScriptedLoadableModule")
    for name in names:
        setattr(bases, name, type(name, (Base,), {}))
    slicer, qt = types.ModuleType("slicer"), types.ModuleType("qt")
    slicer.said = []
    vars(slicer).update(vars(a_slicer(errorDisplay=slicer.said.append)))
    for name in ("QFormLayout", "QLineEdit", "QPushButton", "QLabel", "QTimer"):
        setattr(qt, name, Part)
    for name, made in {"slicer": slicer, "qt": qt, "slicer.ScriptedLoadableModule": bases}.items():
        monkeypatch.setitem(sys.modules, name, made)
    module = loaded()
    parent = types.SimpleNamespace()
    module.Ultramotion(parent)
    assert parent.title == "Ultramotion" and "not a medical device" in parent.helpText
    made = module.UltramotionWidget()
    made.setup()
    made.slicer = slicer
    yield made
    made.cleanup()


def test_the_panel(widget):
    click, tick = widget.button.heard["clicked(bool)"], widget.timer.heard["timeout()"]
    widget.source.text = "nothing:"
    click()
    assert "unknown" in widget.slicer.said[0] and not widget.timer.running and widget.button.text == "Start"
    widget.source.text = SOURCE
    click()
    assert (widget.button.text, widget.timer.running) == ("Stop", True)
    until, said = time.monotonic() + 60, ["running"]
    while widget.timer.running or not widget.state.text.startswith("ended"):
        assert time.monotonic() < until
        tick()
        said += [widget.state.text] * (widget.state.text != said[-1])
        time.sleep(0.001)
    assert widget.button.text == "Start" and widget.state.text == f"ended after {widget.logic.shown} frames"
    assert set(widget.slicer.mrmlScene.nodes) == {"Ultrasound", "BoneMask"}
    assert "running" not in said[1:], said  # between two frames it stays
    widget.source.text = "phantom:seed=1,width=64,height=64"
    click()
    assert widget.logic.running
    click()
    assert not widget.logic.running


def test_a_run_is_shown(module):
    logic, said = module.UltramotionLogic(), []
    logic.start(SOURCE, segmenter=None, device="cpu", conf=0.3)
    until = time.monotonic() + 60
    while not said or not said[-1].startswith("ended"):
        assert time.monotonic() < until
        said.append(logic.show())
        time.sleep(0.001)
    nodes = module.slicer.mrmlScene.nodes
    assert set(nodes) == {"Ultrasound", "BoneMask"}
    assert nodes["Ultrasound"].array.shape == nodes["BoneMask"].array.shape == (1, 128, 128)
    assert nodes["BoneMask"].kind == "vtkMRMLLabelMapVolumeNode" and nodes["BoneMask"].spacing == (1.0, 1.0, 1.0)
    assert any(line.startswith("VISIBLE") for line in said)
    assert said[-1] == f"ended after {logic.shown} frames" and logic.shown <= 8
    assert module.slicer.views == [{"background": nodes["Ultrasound"], "label": nodes["BoneMask"], "fit": True}]
    assert nodes["Ultrasound"].displayed and nodes["BoneMask"].displayed
    logic.stop()


def test_nodes_of_others_are_left_alone(module):
    """A volume of the user's may be called as ours, and the scene may be closed while a run goes on."""
    logic, scene = module.UltramotionLogic(), module.slicer.mrmlScene
    theirs = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Ultrasound")

    def shown(n):
        until = time.monotonic() + 60
        while logic.shown < n:
            assert time.monotonic() < until
            logic.show()
            time.sleep(0.001)

    logic.start("phantom:seed=1,width=64,height=64", segmenter=False, device="cpu")
    shown(2)
    assert not hasattr(theirs, "array") and len(scene.all) == 3 and len(module.slicer.views) == 1
    scene.all.clear()
    shown(4)
    assert len(scene.all) == 2 and len(module.slicer.views) == 2
    logic.stop()


def test_it_stops_and_starts_again(module):
    logic = module.UltramotionLogic()
    for _ in range(2):
        logic.start("phantom:seed=1,width=64,height=64", segmenter=False, device="cpu")
        assert logic.running
    logic.stop()
    assert not logic.running
    logic.stop()


def test_an_old_image_does_not_pass_for_live(module, monkeypatch):
    monkeypatch.setattr(module, "OLD_S", 0.05)
    logic, more = module.UltramotionLogic(), threading.Event()

    def stalls():
        yield np.zeros((64, 64), np.uint8)
        more.wait(60)

    logic.start(stalls(), segmenter=False, device="cpu", realtime=True)
    until, said = time.monotonic() + 60, ""
    while not logic.shown or not said.startswith("no image for"):
        assert time.monotonic() < until
        said = logic.show()
        time.sleep(0.01)
    more.set()
    logic.stop()


def test_what_goes_wrong_is_said(module):
    logic = module.UltramotionLogic()
    logic.start([np.zeros((4, 4), np.int64)], segmenter=False, device="cpu")
    logic.thread.join(30)
    assert "want u8" in logic.show()
    with pytest.raises(ValueError, match="unknown"):
        logic.start("nothing:")
    logic.stop()


def test_a_package_that_is_not_there_is_not_looked_for_in_the_world(module, monkeypatch):
    monkeypatch.setitem(sys.modules, "ultramotion", None)
    module.slicer = a_slicer(pip_install=lambda name: pytest.fail(f"{name} of an index is somebody else's"))
    with pytest.raises(ImportError, match="pip_install.. the wheel, see slicer/README.md"):
        module.UltramotionLogic().start(SOURCE)
