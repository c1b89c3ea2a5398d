"""This module looks at the labels of a training without a step: the table, warnings, and a picture."""

from __future__ import annotations

from pathlib import Path

from tilepipe.errors import public
from tilepipe.training.config import TrainConfig
from tilepipe.training.dataset import Dataset
from tilepipe.training.loop import start
from tilepipe.training.preview import check_preview, write_preview
from tilepipe.training.transfer import Origin


@public
def dry_run(config: TrainConfig | str | Path, preview: str | Path | None = None, *, overwrite: bool = False) -> str:
    """Return what `fit` says about the labels before its first step, as text; nothing is trained or kept.

    `preview` is the path of a PNG of four crops with their labels; `overwrite` replaces an existing one. Raises the
    errors of `fit`.
    """
    config = config if isinstance(config, TrainConfig) else TrainConfig.load(config)
    origin = Origin.of(config)
    dataset = Dataset(origin.completed(config), origin)
    if preview is not None:
        check_preview(dataset, Path(preview), overwrite)
    said = [*dataset.check(), *dataset.notes]
    # The network is built too, since a crop that does not fit it would end the training.
    start(dataset.scenes, dataset.config, origin)
    return "\n".join([*said, *(write_preview(dataset, Path(preview)) if preview is not None else [])])
