"""What the probe calls a model with: convolutions in double precision, piece by piece."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F  # noqa: N812 - the name everyone uses

from tilepipe.models.probe import subject
from tilepipe.models.probe.subject import SmallColumns

PAIRS = st.tuples(st.integers(1, 3), st.integers(1, 3))


@pytest.mark.filterwarnings("ignore:Using padding")
@given(
    size=st.tuples(st.integers(8, 60), st.integers(8, 60)),
    kernel=PAIRS,
    stride=PAIRS,
    padding=st.one_of(
        st.just("same"), st.just("valid"), st.integers(0, 2), st.tuples(st.integers(0, 2), st.integers(0, 2))
    ),
    dilation=PAIRS,
    groups=st.sampled_from([1, 2]),
)
def test_pieces_equal_the_whole_convolution(
    size: tuple[int, int],
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: str | int | tuple[int, int],
    dilation: tuple[int, int],
    groups: int,
) -> None:
    generator = torch.Generator().manual_seed(0)
    x, weight, bias = (
        torch.randn(shape, generator=generator, dtype=torch.float64)
        for shape in ((2, 4, *size), (6, 4 // groups, *kernel), (6,))
    )
    stride = (1, 1) if padding == "same" else stride
    truth = F.conv2d(x, weight, bias, stride, padding, dilation, groups)
    with pytest.MonkeyPatch.context() as patch, SmallColumns():
        patch.setattr(subject, "COLUMNS", 1 << 12)
        found = F.conv2d(x, weight, bias=bias, stride=stride, padding=padding, dilation=dilation, groups=groups)
    assert found.shape == truth.shape
    assert torch.allclose(found, truth, rtol=1e-12, atol=1e-12)


def test_a_convolution_is_never_seen_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject, "COLUMNS", 1 << 20)
    seen: list[int] = []
    plain = F.conv2d

    def counted(x: torch.Tensor, *rest: object) -> torch.Tensor:
        seen.append(x[0].numel() * 9 * 8)
        return plain(x, *rest)  # type: ignore[arg-type]

    with SmallColumns():
        monkeypatch.setattr(subject.nn.functional, "conv2d", counted)
        plain(torch.ones(1, 8, 96, 960, dtype=torch.float64), torch.ones(4, 8, 3, 3, dtype=torch.float64), padding=1)
    assert len(seen) > 4
    assert max(seen) <= 1.2 * subject.COLUMNS
