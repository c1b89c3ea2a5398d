"""This module defines the data of a training; they are opened when they are first used."""

from __future__ import annotations

import hashlib
import json
from copy import copy
from functools import cached_property

from tilepipe.errors import UsageError
from tilepipe.training.config import TrainConfig
from tilepipe.training.label_checks import (
    check_classes,
    check_polygons,
    check_positions,
    count_kept_apart,
    without_truth,
)
from tilepipe.training.label_table import Part, about_crops, few_labels, label_table
from tilepipe.training.pixel_size import common_pixel_size
from tilepipe.training.sampling import Survey, seen_whole, survey
from tilepipe.training.scenes import Scene, held, open_scenes
from tilepipe.training.transfer import Origin


class Dataset:
    """The scenes of a configuration and what they hold. Raises `InputError` and `UsageError` when they are opened."""

    def __init__(self, config: TrainConfig, origin: Origin | None = None) -> None:
        self.config = config
        self._origin = origin or Origin()

    @cached_property
    def opened(self) -> list[Scene]:
        """Scenes to train on, as they lie on the disk."""
        return open_scenes(self.config.train, self.config)

    @cached_property
    def scenes(self) -> list[Scene]:
        """Scenes to train on, with small images in memory."""
        return [held(scene) for scene in self.opened]

    @cached_property
    def validated(self) -> list[Scene]:
        """Scenes that decide, while training, which weights are kept."""
        return open_scenes(self.config.validation, self.config)

    @cached_property
    def scored(self) -> list[Scene]:
        """Scenes that are scored at the end and decide nothing."""
        return open_scenes(self.config.score, self.config)

    @cached_property
    def found(self) -> Survey:
        """Survey of the scenes to train on: label counts, and the mean and std that pixels are scaled by."""
        counted = survey(self.scenes, len(self.config.classes))
        return self._origin.scaled(counted, self.scenes[0].source, self.config)

    @property
    def bands(self) -> int:
        """Number of bands of the images."""
        return self.opened[0].source.shape[0]

    @cached_property
    def pixel_size(self) -> tuple[float | None, str]:
        """Pixel size for the card, and the reason if the card states none; see `common_pixel_size`."""
        return common_pixel_size(self.opened, self.config)

    @property
    def notes(self) -> list[str]:
        """Sentences about what was chosen from the images to train on, and about the pixel size of the card."""
        return [*(note for scene in self.opened for note in scene.notes), *filter(None, [self.pixel_size[1]])]

    def content(self, *, scored: bool = False) -> str:
        """Return a hash of the content of the images and labels that decide the weights; their paths do not count.

        If `scored` is True, images that are only scored count too.
        """
        of = (self.opened, self.validated, *([self.scored] if scored else []))
        known = [[scene.identity() for scene in scenes] for scenes in of]
        return hashlib.sha256(json.dumps(known, sort_keys=True, default=str).encode()).hexdigest()

    def under(self, config: TrainConfig) -> Dataset:
        """Return the same data under another configuration (network, seed or steps); opened and counted data are
        shared."""
        # A cached property is kept in its object, so these are computed before the copy is made, which then shares
        # them.
        _ = self.scenes, self.scored, self.found
        other = copy(self)
        other.config = config
        return other

    def check(self) -> list[str]:
        """Open all scenes and read their labels; return the lines that the user should see before the first step.

        These are sentences about the labels, the table of labels, and warnings.

        Raises `UsageError` if validation shares pixels with training or scores, `InputError` if labels do not fit.
        """
        for kind, others in (("score", self.scored), ("train", self.opened)):
            for scene in self.validated:
                for other in others:
                    shared = scene.full & other.full
                    if shared and scene.same_image(other):
                        name, used = f"{scene.name}{scene.picked}", "scored" if kind == "score" else "trained"
                        raise UsageError(
                            f"validate and {kind} share rows {shared.y0} to {shared.y1} of {name}; what chooses the "
                            f"weights must not be what they are {used} on, so give validate other rows or images"
                        )
        config, found = self.config, self.found
        scenes = [*self.opened, *self.validated, *self.scored]
        whole = all(map(seen_whole, self.opened))
        said = [
            *check_polygons(scenes),
            *check_positions(scenes),
            *check_classes(found.counts.sum(0), config, whole),
        ]
        parts = [Part("train", self.opened, found.counts.sum(0), found.examined, whole)]
        for purpose, apart in (("validate", self.validated), ("score", self.scored)):
            if apart:
                counts = count_kept_apart(apart, config, purpose)
                parts.append(Part(purpose, apart, counts, sum(scene.full.area for scene in apart)))
                said += without_truth(counts, config.classes, purpose)
        pixel, _ = self.pixel_size
        warnings = [f"warning: {sentence}" for sentence in few_labels(parts, config)]
        return [*said, *label_table(parts, config), *about_crops(parts[0], config, pixel), *warnings]
