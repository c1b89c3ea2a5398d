"""Figures for Prometheus: the text format, read by its grammar."""

from __future__ import annotations

import re
from pathlib import Path

from tilepipe.execution.batch.metrics import STATUSES, write_metrics
from tilepipe.execution.batch.record import DONE, FAILED, Entry

LINE = re.compile(r'([a-z_]+)\{((?:[a-z]+="(?:[^"\\]|\\.)*",?)+)\} (-?[0-9.]+)')


def test_each_line_is_one_of_the_format(tmp_path: Path) -> None:
    entries = [Entry("a", "a", DONE), Entry("b", "b", DONE), Entry("c", "c", FAILED)]
    write_metrics(tmp_path / "x.prom", 'ni"ght\\', entries, 12.5)
    found, typed = {}, set()
    for line in (tmp_path / "x.prom").read_text().splitlines():
        if line.startswith("# TYPE"):
            typed.add(line.split()[2])
        elif not line.startswith("# HELP"):
            match = LINE.fullmatch(line)
            assert match, line
            assert match[1] in typed, "the type comes first"
            found[match[1], match[2]] = float(match[3])
    name = r'jobs="ni\"ght\\"'
    counts = {status: found["tilepipe_batch_images", f'{name},status="{status}"'] for status in STATUSES}
    assert counts == {**dict.fromkeys(STATUSES, 0), DONE: 2, FAILED: 1}
    assert found["tilepipe_batch_duration_seconds", name] == 12.5
