from __future__ import annotations

import pytest

from tilepipe.errors import StorageError
from tilepipe.inference.profile.reproducibility import Reproducibility


def test_exact_is_every_bit() -> None:
    assert Reproducibility("cpu", "fp32", True, True, 0.0, 0.0).exact
    assert not Reproducibility("cpu", "fp32", True, True, 1e-9, 0.0).exact
    assert not Reproducibility("cpu", "fp32", False, True, 0.0, 0.0).exact
    assert not Reproducibility("cpu", "fp32", True, False, 0.0, 0.0).exact
    assert not Reproducibility("cpu", "fp32", True, True).exact  # no tile had full context


def test_what_does_not_hold_is_said() -> None:
    text = Reproducibility("A GPU", "fp16", False, False).sentence
    assert text == "Measured on A GPU in fp16: a tile computed again is not the same, beside other tiles not the same."


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"device": "cpu"}', '{"unknown": 1}'])
def test_damaged_texts_are_refused(text: str) -> None:
    with pytest.raises(StorageError, match="measured again"):
        Reproducibility.from_json(text)


def test_round_trip() -> None:
    level = Reproducibility("A GPU", "bf16", True, False, 4e-3, 5e-6, 0.02, 6e-4)
    assert Reproducibility.from_json(level.to_json()) == level
