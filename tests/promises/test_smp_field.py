"""Global networks of segmentation-models-pytorch: no label depends on the grid, or plan names what cannot be fixed.

First levels only, and random weights: what is global in them is what is global in the whole network.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from helpers.smp_nets import network
from helpers.without_torchvision import load

import tilepipe as tp
from tilepipe.evaluation.verify.recompute import Passes
from tilepipe.evaluation.verify.seam_patches import Difference, shifted
from tilepipe.execution.job import make_job
from tilepipe.planning.settings import Request
from tilepipe.sources.array import ArraySource
from tilepipe.testing import noise

LEVELS = {"encoder_depth": 3, "decoder_channels": [16, 8, 4]}
SMALL = {"encoder_depth": 2, "decoder_channels": [32, 16], "encoder_name": "resnet18"}
slow = pytest.mark.long
FIELD = {
    "squeeze-excite in the decoder": ("Unet", {**SMALL, "decoder_attention_type": "scse"}),
    "instance norm": ("Unet", {**SMALL, "decoder_use_norm": {"type": "instancenorm", "affine": True}}),
    "group norm": ("Unet", {**LEVELS, "encoder_name": "tu-resnet50_gn"}),
    "RegNetY": ("Unet", {**LEVELS, "encoder_name": "tu-regnety_002"}),
    "EfficientNet": ("Unet", {**LEVELS, "encoder_name": "efficientnet-b0"}),
    "EfficientNet of timm": ("Unet", {**LEVELS, "encoder_name": "tu-efficientnet_b0"}),
    "SE-ResNet": ("Unet", {**LEVELS, "encoder_name": "se_resnet50"}),
    "MobileNetV3": ("Unet", {**LEVELS, "encoder_name": "tu-mobilenetv3_large_100"}),
}
BLENDED = {
    "FPN": ("FPN", {"encoder_name": "resnet18"}, "align_corners=True (decoder.seg_blocks.0.block.0)"),
    "PSPNet": ("PSPNet", {"encoder_name": "resnet18"}, "align_corners=True (decoder.psp.blocks.0)"),
    "DeepLabV3+": ("DeepLabV3Plus", {"encoder_name": "resnet18"}, "align_corners=True (decoder.up)"),
    "UPerNet": ("UPerNet", {"encoder_name": "resnet18"}, "adaptive pooling (decoder.psp.blocks.1.0)"),
    "MAnet": ("MAnet", {"encoder_name": "resnet18"}, "attention (decoder.center.map_softmax)"),
    "channel attention over channels (ECA)": (
        "Unet",
        {**LEVELS, "encoder_name": "tu-ecaresnet26t"},
        "it does not take statistics per pixel",
    ),
    "response norm (ConvNeXt V2)": (
        "Unet",
        {"encoder_name": "tu-convnextv2_atto", "encoder_depth": 4, "decoder_channels": [64, 32, 16, 8]},
        "the operation in layer 'encoder.model.stages_0.blocks.0.mlp.grn'",
    ),
}


@pytest.fixture(scope="module", autouse=True)
def smp() -> Any:
    return load("segmentation_models_pytorch")


def model_of(kind: str, options: dict[str, Any]) -> tp.Model:
    net = network(kind, **options)
    card = tp.ModelCard(bands=3, classes=["a", "b"], mean=[127] * 3, std=[60] * 3, stride=net.stride)  # type: ignore[arg-type]
    return tp.Model.from_torch(net, card)


def shaded(height: int, width: int) -> ArraySource:
    """Noise that is brighter on the right, so that tiles have other statistics than their neighbours."""
    pixels = noise(height, width).read(tp.Box(0, 0, height, width))
    return ArraySource((pixels * np.linspace(0.1, 1, width)).astype(np.uint8))


def even(model: tp.Model, image: Any) -> None:
    """Shift the last layer so that both classes are as frequent: where all labels are the same, none can flip."""
    head: Any = model.module.segmentation_head[0]  # type: ignore[index]
    with torch.no_grad():
        logits = model.module(model.normalise(torch.from_numpy(image.read(tp.Box(0, 64, 256, 320))[None])))
        head.bias[1] -= (logits[:, 1] - logits[:, 0]).median()


def moved(image: Any, model: tp.Model, **chosen: Any) -> Difference:
    """What changes when the grid moves by half a core."""
    passes = Passes(make_job(image, model, Request.of(chosen)))
    found = shifted(passes, 2, 0)
    passes.close()
    assert found is not None
    return found


@slow
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("name", FIELD)
def test_no_label_depends_on_the_grid(name: str) -> None:
    model = model_of(*FIELD[name])
    halo = tp.plan(noise(3000, 3000), model, max_cost=1e9).tiling.halo
    assert halo is not None
    image, tile = shaded(7 * halo, 9 * halo), 4 * halo
    even(model, image)
    plan = tp.plan(image, model, tile=tile)
    assert plan.statistics is not None
    assert plan.statistics.kind == "field"
    fixed = moved(image, model, tile=tile)
    live = moved(image, model, tile=tile, statistics="tile", window_shape="crop", overlap=2 * halo)
    print(
        f"{name}: halo {halo}, {len(plan.statistics.values)} operations, {fixed} with a field, {live} with live tiles"
    )
    assert fixed.flips.different == 0
    assert fixed.worst <= 1e-3 * live.worst


@slow
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("name", BLENDED)
def test_what_cannot_be_held_fixed_is_blended_and_named(name: str) -> None:
    kind, options, says = BLENDED[name]
    plan = tp.plan(noise(600, 600), model_of(kind, options))
    assert plan.statistics is None
    assert plan.tiling.window == "gaussian"
    assert says in plan.seams
