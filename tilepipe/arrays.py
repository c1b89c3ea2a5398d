"""What kinds of arrays there are: names for their types, from the image to the label map. Shapes are in docstrings."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[Any]
"""Numbers of whatever type: what a function hands on as it is."""
Pixels: TypeAlias = NDArray[np.number]
"""Of an image, in its own units: uint8, uint16, int16 or float32, (bands, height, width) if nothing else is said."""
Labels: TypeAlias = NDArray[np.unsignedinteger]
"""Classes by their number, uint8 or uint16, (height, width) if nothing else is said; the codes of a layer, uint8."""
DType: TypeAlias = np.dtype[Any]
"""The type of an array's numbers, known when an image or a model is opened."""
Logits: TypeAlias = NDArray[np.floating]
"""What a model answers, float32 or, in fp64, float64, (classes, height, width) if nothing else is said."""
