from __future__ import annotations

import json
import math
import subprocess
import sys
from dataclasses import replace
from typing import get_args

import pytest

from tilepipe.box import Sides
from tilepipe.errors import StorageError
from tilepipe.inference.profile.reproducibility import Reproducibility
from tilepipe.planning.certificate import Certificate, Mode
from tilepipe.tiling.tiling import cost_factor

HALO = Sides(96, 96, 96, 96)
EXACT = Certificate("EXACT", 16, HALO, 1024, Sides(94, 94, 94, 94), error=1.2e-6, versions={"torch": "2.13.0"})


def test_cost_factor_is_the_share_of_pixels_computed_twice() -> None:
    assert cost_factor(1024, HALO) == pytest.approx(1.51, abs=0.01)
    assert cost_factor(100, Sides(0, 50, 25, 25)) == 4
    assert cost_factor(64, HALO) == math.inf
    assert cost_factor(512, Sides(0, 0, 0, 0)) == 1


@pytest.mark.parametrize("mode", get_args(Mode))
def test_round_trip_and_two_sentences(mode: Mode) -> None:
    certificate = Certificate(mode, 16, HALO, 512, Sides(94, 90, 94, 1), tolerance=0.01)
    assert Certificate.from_json(certificate.to_json()) == certificate
    assert all(text.endswith(".") for text in certificate.sentences)
    assert json.loads(certificate.to_json())["cost"] == certificate.cost
    assert len({Certificate(m, 16, HALO, 512, HALO).sentences[0] for m in get_args(Mode)}) == 5


def test_sentences_carry_the_numbers() -> None:
    first, second, third = EXACT.sentences
    assert third == "tilepipe verify measures how cpu rounds in fp32."
    assert "how the image was cut, but for rounding: tiles of 1024 px on multiples of 16 px, 96 px of context" in first
    assert second.startswith("Largest difference to a pass without seams: 1.2e-06 in probability, on cpu in fp32; 1.51")
    assert "no tile has a core" in Certificate("BLEND", 1, HALO, 64).sentences[1]


@pytest.mark.parametrize(
    ("certificate", "plain"),
    [
        (EXACT, "Labels do not depend on tiling, but for rounding in fp32."),
        (replace(EXACT, level=Reproducibility("cpu", "fp32", True, True, 0.0, 0.0)), "Labels do not depend on tiling."),
        (replace(EXACT, whole=True), "Labels do not depend on tiling."),
        (replace(EXACT, mode="FIELD", precision="bf16"), "Labels do not depend on tiling, but for rounding in bf16."),
        (
            replace(EXACT, mode="TOLERANCE", tolerance=0.01),
            "Labels may change near tile borders by about 0.01 in probability; see docs/seams.md.",
        ),
        (replace(EXACT, mode="BLEND"), "Labels may change near tile borders; see docs/seams.md."),
        (replace(EXACT, mode="UNCERTIFIED"), "Labels may change near tile borders; see docs/seams.md."),
    ],
)
def test_a_certificate_in_one_plain_sentence(certificate: Certificate, plain: str) -> None:
    assert certificate.plain == plain


def test_promises_go_no_further_than_the_level_that_was_measured() -> None:
    exact = replace(EXACT, level=Reproducibility("cpu", "fp32", True, True, 0.0, 0.0))
    first, _, third = exact.sentences
    assert "do not depend on how the image was cut: tiles of" in first
    assert "a larger pass differs by nothing" in third
    rough = replace(EXACT, precision="bf16", level=Reproducibility("A GPU", "bf16", True, True, 4e-3, 5e-6, 0.02, 6e-4))
    first, _, third = rough.sentences
    assert "do not depend on how the image was cut, but for rounding: tiles of" in first
    assert third == (
        "Measured on A GPU in bf16: a tile computed again is the same to the bit, beside other tiles the same; a "
        "larger pass differs by at most 4.0e-03 in probability and 5.0e-06 of the labels; fp32 differs by at most "
        "2.0e-02 in probability and 6.0e-04 of the labels."
    )
    for certificate in (exact, rough):
        assert Certificate.from_json(certificate.to_json()) == certificate


def test_what_is_said_of_rounding_changes_with_a_reason() -> None:
    """The words go when a measurement, by verify for instance, has shown that nothing is rounded, and that is said."""
    for level in (None, Reproducibility("cpu", "fp32", True, True, 0.0, 0.0)):
        first, _, third = replace(EXACT, level=level).sentences
        assert ("but for rounding" in first) == ("verify measures how" in third)
    assert len(Certificate("BLEND", 1, HALO, 512).sentences) == 2, "nothing is promised"
    assert len(replace(EXACT, whole=True).sentences) == 2, "nothing is cut"


def test_work_of_a_small_region_is_said_beside_that_of_the_whole_image() -> None:
    second = replace(EXACT, work=495.552, half=500.0, whole_work=2.9).sentences[1]
    assert "2.90 times the work of one pass over the whole image, 496 times over this small region" in second
    assert replace(EXACT, work=3.0, half=3.5, whole_work=2.9).sentences[1].endswith("3.00 times the work of one pass.")


def test_a_file_from_before_levels_is_read() -> None:
    fields = json.loads(EXACT.to_json())
    del fields["level"]
    assert Certificate.from_json(json.dumps(fields)) == EXACT


@pytest.mark.parametrize(
    "wrong",
    [
        {"reach": None},
        {"reach": Sides(94, 94, 94, 97)},
        {"tile": 1000},
        {"halo": Sides(96, 96, 96, 100)},
    ],
)
def test_exact_cannot_be_claimed_with_too_little(wrong: dict[str, object]) -> None:
    fields = {"mode": "EXACT", "stride": 16, "halo": HALO, "tile": 1024, "reach": Sides(94, 94, 94, 94)} | wrong
    with pytest.raises(AssertionError):
        Certificate(**fields)  # type: ignore[arg-type]


@pytest.mark.parametrize("text", ["", "[]", "{}", EXACT.to_json().replace('"EXACT"', '"PERFECT"')])
def test_damaged_files_are_named(text: str) -> None:
    with pytest.raises(StorageError, match=r"run/certificate\.json does not hold a certificate"):
        Certificate.from_json(text, "run/certificate.json")


def test_needs_no_torch() -> None:
    code = "import sys, tilepipe.planning.certificate, tilepipe.models.probe.result; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
