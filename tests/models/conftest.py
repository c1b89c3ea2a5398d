"""A stand-in for torchvision, whose compiled operators have no build for torch on the CPU alone.

timm and segmentation-models-pytorch import some of its classes on loading; nothing that is tested here uses them.
"""

import importlib.util
import sys
import warnings
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

import pytest
from torch import nn


class _Torchvision(ModuleType):
    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "InterpolationMode":  # timm does without it
            raise AttributeError(name)
        return type(name, (nn.Module,), {})


class _Finder(MetaPathFinder, Loader):
    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        ours = fullname.partition(".")[0] == "torchvision"
        return ModuleSpec(fullname, self, is_package=True) if ours else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _Torchvision(spec.name)

    def exec_module(self, module: ModuleType) -> None: ...


def _import(name: str) -> Any:
    pytest.importorskip("huggingface_hub")
    if importlib.util.find_spec("torchvision") is None:
        sys.meta_path.append(_Finder())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip(name)


@pytest.fixture(scope="session")
def timm() -> Any:
    return _import("timm")


@pytest.fixture(scope="session")
def smp() -> Any:
    return _import("segmentation_models_pytorch")
