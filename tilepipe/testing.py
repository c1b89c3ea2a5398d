"""This module has fakes for tests of your own pipelines: models with known output, images that fail, tiny files.

    from tilepipe.testing import codes_model, noise

Models and images are small enough for a test of a second. Nothing in tilepipe imports this module; tilepipe's own tests
use it as yours do.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import tifffile
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from tilepipe.arrays import Labels, Pixels
from tilepipe.box import Box
from tilepipe.errors import InputError
from tilepipe.models.card import ModelCard
from tilepipe.models.formats.directory import save_model
from tilepipe.models.model import Model
from tilepipe.models.nets import zoo
from tilepipe.sources.array import ArraySource
from tilepipe.sources.base import Source
from tilepipe.sources.wrapped import Wrapped
from tilepipe.text import JSON

UTM_33 = "EPSG:32633"
PLACE = (0.5, 0.0, 300000.25, 0.0, -0.5, 5200000.75)
"""Affine (a, b, c, d, e, f) of a pixel of 0.5 m whose corner lies on no whole metre, so that rounding is seen."""
REACH = {1: 10, 2: 24, 3: 48}
"""Halo of `random_unet` by depth: its measured reach, rounded up to its stride (pixels)."""


class Constant(nn.Module):
    """A network that gives the same probabilities at every pixel."""

    def __init__(self, probabilities: tuple[float, ...]) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.tensor(probabilities).log(), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, classes, H, W) for tiles (B, bands, H, W)."""
        return self.logits[None, :, None, None].expand(len(x), -1, *x.shape[2:])


class Codes(nn.Module):
    """A network whose class is the pixel value of the first band."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.classes = classes

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, classes, H, W) for tiles (B, bands, H, W)."""
        return functional.one_hot(x[:, 0].long(), self.classes).permute(0, 3, 1, 2).float() * 9


class LocalMean(nn.Module):
    """A network that compares the mean of the first band around each pixel with a threshold."""

    def __init__(self, radius: int, threshold: float, stride: int) -> None:
        super().__init__()
        self.radius, self.threshold, self.stride = radius, threshold, stride

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, 2, H, W) for tiles (B, bands, H, W)."""
        # The network uses sums and counts rather than a mean: for whole numbers they are exact in float32, in any order
        # of adding, so that a test may compare every pixel.
        first = x[:, :1]
        excess = self._sum(first) - self.threshold * self._sum(torch.ones_like(first))
        fine = excess.repeat_interleave(self.stride, 2).repeat_interleave(self.stride, 3)
        return torch.cat((-fine, fine), 1)

    def _sum(self, x: Tensor) -> Tensor:
        cells = functional.avg_pool2d(x, self.stride, divisor_override=1)
        return functional.avg_pool2d(cells, 2 * self.radius + 1, 1, self.radius, divisor_override=1)


def constant_model(*probabilities: float, bands: int = 1, stride: int = 1, halo: int | None = None) -> Model:
    """Return a model that gives the same `probabilities`, one per class, at every pixel of every image.

    `stride` and `halo` (pixels) are what the card says; a halo of None is measured before a run.

    Example:
        >>> import tilepipe as tp
        >>> from tilepipe.testing import constant_model, noise
        >>> int(tp.predict(noise(40, 50), constant_model(0.2, 0.8, bands=3)).min())
        1
    """
    card = ModelCard(bands=bands, classes=_names(len(probabilities)), stride=stride, halo=halo)
    return Model.from_torch(Constant(probabilities), card)


def codes_model(classes: int = 7, stride: int = 1, halo: int | None = None) -> Model:
    """Return a model of one band that labels each pixel with its own value, which must be below `classes`.

    So the labels of a run must equal the image. `stride` and `halo` (pixels) are what the card says.

    Example:
        >>> import numpy as np
        >>> import tilepipe as tp
        >>> from tilepipe.testing import codes_model
        >>> codes = np.random.default_rng(0).integers(0, 7, (60, 80), dtype=np.uint8)
        >>> bool((tp.predict(codes, codes_model(7), tile=32, overlap=8) == codes).all())
        True
    """
    return Model.from_torch(Codes(classes), ModelCard(bands=1, classes=_names(classes), stride=stride, halo=halo))


def local_mean_model(radius: int = 3, threshold: float = 127, *, bands: int = 1, stride: int = 1) -> Model:
    """Return a model of two classes: class 1 if the mean of the first band around a pixel is above `threshold`.

    The mean is taken over the cells of `stride` x `stride` pixels (counted from the corner of the image) within
    `radius` cells of the pixel's own cell, without pixels outside the image. The card has this stride and the halo that
    follows from it, so every mode must give the labels of `whole_image`, exactly if pixels and threshold are whole
    numbers (sums up to 2**24).
    """
    halo = radius * stride if stride == 1 else (radius + 1) * stride
    card = ModelCard(bands=bands, classes=_names(2), stride=stride, halo=halo)
    return Model.from_torch(LocalMean(radius, threshold, stride), card)


def random_unet(bands: int = 3, classes: int = 3, depth: int = 2, width: int = 4, seed: int = 0) -> Model:
    """Return a small U-Net with random weights, whose labels of `noise` change from pixel to pixel.

    `depth` is 1, 2 or 3 levels (stride 2, 4 or 8; halo `REACH[depth]` pixels), `width` the channels of the first one.
    """
    torch.manual_seed(seed)
    net = zoo.build({"name": "unet", "width": width, "depth": depth}, bands, classes)
    for name, weights in net.named_parameters():
        nn.init.normal_(weights, std=0.5 if "weight" in name else 0.1)
    card = ModelCard(
        bands=bands, classes=_names(classes), stride=int(net.stride), halo=REACH[depth],
        mean=[127.0] * bands, std=[60.0] * bands, arch=zoo.describe(net),
    )  # fmt: skip
    return Model.from_torch(net, card)


def whole_image(model: Model, source: Source, dtype: torch.dtype = torch.float32) -> Labels:
    """Return the labels (height, width) of one pass over the whole image on the CPU, in `dtype`.

    This is what a tiled run without seams must give. The image is padded up to the stride by reflection, as a run does.
    """
    _, height, width = source.shape
    stride = model.card.stride
    pixels = source.read(Box(0, 0, -(-height // stride) * stride, -(-width // stride) * stride))
    with torch.inference_mode():
        net = copy.deepcopy(model.module).to(dtype)
        logits = net(model.normalise(torch.from_numpy(pixels)[None], dtype))
    return np.asarray(logits.argmax(1)[0, :height, :width].numpy().astype(model.card.label_dtype))


def noise(height: int, width: int, bands: int = 3, seed: int = 0) -> ArraySource:
    """Return a uint8 image (bands, height, width) of patches and noise: deep layers see more in it than in noise."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (bands, -(-height // 8), -(-width // 8)))
    smooth = np.kron(coarse, np.ones((1, 8, 8)))[:, :height, :width]
    return ArraySource((smooth * 0.7 + rng.integers(0, 77, (bands, height, width))).astype(np.uint8))


class FakeSource(Wrapped):
    """An image that records its reads, can be slow, and fails if a damaged part is read.

    `image` is an array (bands, height, width) or (height, width), or any `Source`. A read of a box that meets the box
    `damaged` raises `InputError`, as a damaged file does; set `damaged` to None and the image is whole again. Each read
    takes at least `delay` seconds. `reads` lists the boxes that were read in this process, in order.

    Example:
        >>> import numpy as np
        >>> import tilepipe as tp
        >>> from tilepipe.testing import FakeSource, codes_model
        >>> image = FakeSource(np.zeros((60, 80), np.uint8), damaged=tp.Box(0, 0, 1, 1))
        >>> try:
        ...     tp.predict(image, codes_model())
        ... except tp.TilepipeError as error:
        ...     print(error)
        array: rows 0 to 1, columns 0 to 1 are damaged
    """

    def __init__(self, image: Source | Pixels, *, damaged: Box | None = None, delay: float = 0) -> None:
        super().__init__(image if isinstance(image, Source) else ArraySource(image))
        self.damaged = damaged
        self.delay = delay
        self.reads: list[Box] = []

    def read(self, box: Box) -> Pixels:
        """Return the pixels of `box`, (bands, box.height, box.width). Raises `InputError` if `box` meets `damaged`."""
        self.reads.append(box)  # appending is one step of the interpreter, and several threads read at once
        time.sleep(self.delay)
        part = self.damaged
        if part is not None and box & part:
            where = f"rows {part.y0} to {part.y1}, columns {part.x0} to {part.x1}"
            raise InputError(f"{self.name}: {where} are damaged")
        return self.source.read(box)


def write_geotiff(path: Path, pixels: Pixels, **profile: Any) -> Path:
    """Write pixels (bands, height, width) as a GeoTIFF in tiles of 64 x 64 and return its path.

    The image lies in UTM zone 33 north, with pixels of 0.5 m (`PLACE`). `profile` holds other keywords of
    `rasterio.open`, for instance `nodata=0` or `transform=...`.

    Example:
        >>> from pathlib import Path
        >>> import numpy as np
        >>> import tilepipe as tp
        >>> from tilepipe.testing import write_geotiff
        >>> tp.open_source(write_geotiff(Path("scene.tif"), np.zeros((3, 100, 120), np.uint8))).resolution.unit
        'm'
    """
    bands, height, width = pixels.shape
    known: JSON = {"crs": UTM_33, "transform": rasterio.Affine(*PLACE), "compress": "deflate"}
    known |= {"tiled": True, "blockxsize": 64, "blockysize": 64}
    known |= {"photometric": "minisblack", "alpha": "no"}  # otherwise GDAL takes the fourth band for alpha
    size = {"count": bands, "height": height, "width": width, "dtype": pixels.dtype.name}
    with rasterio.open(path, "w", driver="GTiff", **{**known, **size, **profile}) as file:
        file.write(pixels)
    return path


def write_slide(
    path: Path, levels: Sequence[NDArray[np.uint8]], *, mpp: float | None = 0.5, aperio: bool = True
) -> Path:
    """Write the levels of a pyramid, each (3, height, width), as a lossless slide and return its path.

    The first level is the full resolution, with pixels of `mpp` micrometres (None: the slide does not say). The file is
    an Aperio slide (.svs); if not `aperio`, a pyramidal TIFF, which OpenSlide opens as generic and which has no `mpp`.
    """
    _, height, width = levels[0].shape
    text = f"Aperio Image Library v11.2.1\n{width}x{height} -> |AppMag = 20" + (f"|MPP = {mpp}" if mpp else "")
    options: JSON = {"tile": (256, 256), "photometric": "rgb", "metadata": None}
    with tifffile.TiffWriter(path) as file:
        for k, level in enumerate(levels):
            # In a generic TIFF, OpenSlide takes a directory for a level only if it is flagged as reduced.
            flags = {"description": text} if aperio else {"subfiletype": min(k, 1)}
            file.write(np.moveaxis(level, 0, -1), **options, **flags)
    return path


def write_model(path: Path, model: Model | None = None) -> Path:
    """Write a model directory and return its path; without a `model` it holds `random_unet()`.

    Raises `ModelError` if the model has none of tilepipe's architectures; the other fakes have none.
    """
    return save_model(random_unet() if model is None else model, path)


def _names(classes: int) -> list[str]:
    return [f"class {k}" for k in range(classes)]
