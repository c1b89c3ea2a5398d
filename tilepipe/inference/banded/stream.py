"""Stream: one pass of a model over an image whose rows come one band after the other."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from tilepipe.arrays import Pixels
from tilepipe.errors import ModelError
from tilepipe.inference.banded.held import Under
from tilepipe.inference.banded.lookup import NotBandedError
from tilepipe.inference.banded.network import banded
from tilepipe.inference.device import Compute
from tilepipe.inference.predictor import all_usable
from tilepipe.models.model import Model
from tilepipe.models.precision import arithmetic, dtype_of
from tilepipe.models.prepared import prepared
from tilepipe.tiling.statistics_grid import Statistics


class Stream:
    """One pass of a model over an image, from the top to the bottom; memory grows with the image's width only."""

    def __init__(
        self,
        model: Model,
        side: int,
        compute: Compute,
        statistics: Statistics | None = None,
        under: Under | None = None,
    ) -> None:
        """Bring the model to the device; `side` is the side of a small tile that it takes [pixels].

        If `statistics` of norms and poolings are held fixed, `under` gives those of rows of the image.
        Raises `ModelError` that names the operation if the model cannot be computed in bands.
        """
        self.model, self.precision = model, compute.precision
        self.device, self.dtype = torch.device(compute.device), dtype_of(compute.precision)
        module = prepared(model.module, self.device, compute.precision)
        try:
            network = banded(module, model.card.bands, side, statistics)
            self._pass = network.begin(under)
        except NotBandedError as problem:
            raise ModelError(f"{model.name} cannot be computed in bands of rows: {problem}") from None

    def feed(self, rows: Pixels, *, last: bool = False) -> NDArray[np.float32] | None:
        """Take the next rows (bands, n, width) and return the probabilities of the rows that are complete, if any.

        Probabilities are (classes, rows, width), from 0 to 1. `last`
        says that the image ends below these rows. Raises `ModelError` if the model gives NaN.
        """
        with arithmetic(self.device, self.precision):
            x = self.model.normalise(torch.from_numpy(rows[None]).to(self.device), self.dtype)
            # Convolutions are fastest in this order of memory, in which rows lie side by side too.
            logits = self._pass.feed(x.contiguous(memory_format=torch.channels_last), last=last)
            if logits is None:
                return None
            if not all_usable(logits):
                raise ModelError(f"{self.model.name} returned NaN or infinite logits in one pass over the whole image")
            found: NDArray[np.float32] = logits.to(self.dtype).softmax(1)[0].float().cpu().numpy()
            return found
