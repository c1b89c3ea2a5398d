"""This module names the types of arrays, from the image to the label map. The docstrings give the shapes."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[Any]
"""An array with numbers of any type, which a function passes on unchanged."""
Pixels: TypeAlias = NDArray[np.number]
"""Pixels of an image in its own units: uint8, uint16, int16 or float32. The shape is (bands, height, width) if nothing
else is said."""
Labels: TypeAlias = NDArray[np.unsignedinteger]
"""Labels are class numbers, uint8 or uint16; the codes of a layer are uint8. The shape is (height, width) if nothing
else is said."""
DType: TypeAlias = np.dtype[Any]
"""Type of an array's numbers; it is known when an image or a model is opened."""
Logits: TypeAlias = NDArray[np.floating]
"""Output of a model: float32, or float64 in fp64. The shape is (classes, height, width) if nothing else is said."""
