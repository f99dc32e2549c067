# SPDX-License-Identifier: Apache-2.0
"""The logic of the module for 3D Slicer, with stand-ins for the calls of Slicer's that it makes."""
import importlib.util
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


class Scene:
    def __init__(self):
        self.nodes = {}

    def GetFirstNodeByName(self, name):
        return self.nodes.get(name)

    def AddNewNodeByClass(self, kind, name):
        return self.nodes.setdefault(name, Node(kind, name))


@pytest.fixture
def module():
    file = ROOT / "slicer" / "Ultramotion" / "Ultramotion.py"
    spec = importlib.util.spec_from_file_location("Ultramotion", file)
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    update = lambda node, array: setattr(node, "array", array)  # noqa: E731
    made.slicer = types.SimpleNamespace(mrmlScene=Scene(), util=types.SimpleNamespace(updateVolumeFromArray=update))
    return made


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
    assert said[-1] == f"ended after {logic.shown} pictures" and logic.shown <= 8
    logic.stop()


def test_it_stops_and_starts_again(module):
    logic = module.UltramotionLogic()
    for _ in range(2):
        logic.start("phantom:seed=1,width=64,height=64", segmenter=False, device="cpu")
        assert logic.running
    logic.stop()
    assert not logic.running
    logic.stop()


def test_what_goes_wrong_is_said(module):
    logic = module.UltramotionLogic()
    logic.start([np.zeros((4, 4), np.int64)], segmenter=False, device="cpu")
    logic.thread.join(30)
    assert "want u8" in logic.show()
    with pytest.raises(ValueError, match="unknown"):
        logic.start("nothing:")
    logic.stop()
