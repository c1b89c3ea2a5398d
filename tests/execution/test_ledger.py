"""Lines of a ledger in memory: packed, and the same as they came."""

from __future__ import annotations

import hashlib
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from helpers.fakes import plan_of
from hypothesis import given
from hypothesis import strategies as st

from tilepipe.execution import ledger
from tilepipe.execution.ledger import Ledger, Record, Records, read_records
from tilepipe.planning.memory import FEW, LAYER, LINE, STRIPS
from tilepipe.planning.plan import Plan
from tilepipe.testing import constant_model, noise
from tilepipe.tiling.grid import Index

HASHES = st.one_of(
    st.binary(min_size=32, max_size=32).map(bytes.hex), st.sampled_from(["", "ab", "AB" * 32, "zz" * 32])
)
SHORT = st.one_of(st.binary(min_size=16, max_size=16).map(bytes.hex), st.sampled_from(["", "ab", "AB" * 16]))
RECORDS = st.builds(
    Record,
    block=st.builds(Index, st.integers(0, 5), st.integers(0, 1 << 31)),
    sha256=HASHES,
    tiles=st.one_of(st.integers(0, 9), st.just(1 << 40)),
    failed=st.sampled_from([(), ("a tile",)]),
    seconds=st.floats(0, 1e6),
    layers=st.lists(HASHES, max_size=3).map(tuple),
    strips=st.dictionaries(st.sampled_from(["right", "below", "corner", "elsewhere"]), HASHES),
    seen=st.lists(SHORT, max_size=5).map(tuple),
    taken=st.one_of(st.binary(min_size=8, max_size=8).map(bytes.hex), st.sampled_from(["", "ab", "zz"])),
)


@given(st.lists(RECORDS, max_size=20))
def test_records_are_a_dict_of_what_came(came: list[Record]) -> None:
    packed, plain, again = Records(), dict[Index, Record](), Records()
    for record in came:
        packed[record.block] = plain[record.block] = record
    for block, record in reversed(plain.items()):
        again[block] = record
    assert (list(packed.items()), len(packed)) == (list(plain.items()), len(plain))
    assert packed == plain
    assert packed == again
    assert all(block in packed for block in plain)
    assert Index(9, 9) not in packed
    for block, record in plain.items():
        again[block] = replace(record, tiles=record.tiles + 1)
        assert packed != again
        del again[block]
        assert packed != again
        again[block] = record


@given(st.lists(RECORDS, max_size=5, unique_by=lambda record: record.block))
def test_what_is_appended_is_read_again(tmp_path_factory: pytest.TempPathFactory, came: list[Record]) -> None:
    path = tmp_path_factory.mktemp("ledger") / "ledger.jsonl"
    ledger = Ledger(path)
    for record in came:
        ledger.append(record)
    assert read_records(path) == (ledger.done, 0)
    assert dict(ledger.done) == {record.block: record for record in came}
    ledger.forget([record.block for record in came[:1]])
    assert read_records(path) == (ledger.done, 0)


@pytest.mark.parametrize("blended", [pytest.param(False, marks=pytest.mark.long), True])
@pytest.mark.parametrize("layers", [pytest.param(0, marks=pytest.mark.long), 3])
def test_what_is_kept_is_less_than_promised(
    blended: bool, layers: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Twice: at the end the ledger on disk is compared with it."""
    monkeypatch.setattr(ledger, "append_line", lambda path, fields: None)
    count, kept_ledger, again = 4_000, Ledger(tmp_path / "none"), Records()
    hashes = iter(hashlib.sha256(b"%d" % k).hexdigest() for k in range(count * 14))
    tracemalloc.start()
    for k in range(count):
        strips = {side: next(hashes) for side in ("right", "below", "corner")} if blended else {}
        found = tuple(next(hashes) for _ in range(layers))
        seen = tuple(next(hashes)[:32] for _ in range(4 if blended else 1))
        kept_ledger.append(Record(Index(k // 300, k % 300), next(hashes), 4, (), 0.25, found, strips, seen))
        again[Index(k // 300, k % 300)] = kept_ledger.done[Index(k // 300, k % 300)]
    kept = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert kept <= count * (LINE + STRIPS * blended + LAYER * layers)


class Large:
    """An image of which nothing is read."""

    def __init__(self, side: int) -> None:
        small: Any = noise(8, 8, bands=1)
        self.shape, self.dtype, self.name = (1, side, side), small.dtype, "large"
        self.resolution = self.georeference = None
        self.complete, self.identity, self.read, self.valid = True, small.identity, small.read, small.valid

    def coarser(self, height: int, width: int) -> Large:
        return self


def test_many_blocks_count_in_the_promise() -> None:
    model = constant_model(0.5, 0.5, halo=0)

    def plan(side: int, **settings: Any) -> Plan:
        return plan_of(Large(side), model, tile=64, block=64, **settings)

    assert plan(6400).memory.ledger == 0  # 10,000 blocks
    assert plan(64 * 200).memory.ledger == (200 * 200 - FEW) * LINE
    assert plan(64 * 200, window=(0, 0, 640, 640)).memory.ledger == 0
    half = plan(64 * 200, window=(0, 0, 64 * 100, 64 * 200), layers="margin")
    assert half.memory.ledger == (100 * 200 - FEW) * (LINE + LAYER)
    assert half.memory.total - plan(6400, layers="margin").memory.total == half.memory.ledger
    assert Plan.from_json(half.to_json()) == half
