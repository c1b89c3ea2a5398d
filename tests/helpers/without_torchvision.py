"""A stand-in for torchvision, whose compiled operators have no build for torch on the CPU alone.

timm and segmentation-models-pytorch (smp) import some of its classes on loading. smp builds its own ResNet encoders on
`torchvision.models.resnet`: here they are timm's, the same networks with the same tensor names (He 2016). Nothing else
of it is used by what is tested; other classes are empty.
"""

from __future__ import annotations

import importlib.util
import sys
import warnings
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

import pytest
from torch import nn

RESNET = "torchvision.models.resnet"


class _Torchvision(ModuleType):
    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "InterpolationMode":  # timm does without it
            raise AttributeError(name)
        if self.__name__ == RESNET and name in ("BasicBlock", "Bottleneck", "ResNet"):
            return _resnet(name)
        return type(name, (nn.Module,), {})


class _Finder(MetaPathFinder, Loader):
    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        ours = fullname.partition(".")[0] == "torchvision"
        return ModuleSpec(fullname, self, is_package=True) if ours else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _Torchvision(spec.name)

    def exec_module(self, module: ModuleType) -> None: ...


def _resnet(name: str) -> Any:
    """Return timm's class, with torchvision's names for its two layers without tensors."""
    from timm.models import resnet

    class ResNet(resnet.ResNet):  # type: ignore[misc]
        def __init__(self, **options: Any) -> None:
            super().__init__(**options, zero_init_last=False)
            self.relu, self.avgpool = self.act1, self.global_pool
            del self.act1, self.global_pool

    return ResNet if name == "ResNet" else getattr(resnet, name)


def load(name: str) -> Any:
    """Return the package `name`, with the stand-in where torchvision is not installed; skips where it is missing."""
    pytest.importorskip("huggingface_hub")
    if importlib.util.find_spec("torchvision") is None:
        sys.meta_path.append(_Finder())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip(name)
