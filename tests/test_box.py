"""A box holds whole numbers, and at least one pixel."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tilepipe.box import Box
from tilepipe.errors import UsageError


@pytest.mark.parametrize("wrong", [0.5, 0.0, "0", None, [0]])
def test_what_is_no_whole_number_is_refused(wrong: Any) -> None:
    for place in range(4):
        numbers = [0, 0, 64, 64]
        numbers[place] = wrong
        with pytest.raises(UsageError, match="is no whole number"):
            Box(*numbers)


def test_whole_numbers_of_numpy_become_those_of_python() -> None:
    box = Box(*np.array([1, 2, 3, 4]))
    assert box == Box(1, 2, 3, 4)
    assert [type(number) for number in box.to_list()] == [int] * 4
