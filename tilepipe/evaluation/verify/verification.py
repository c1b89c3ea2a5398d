"""The result of a verification: its figures, whether the certificate holds, and its texts as a table and as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from tilepipe.evaluation.metrics.seams import Flips, SeamExcess
from tilepipe.evaluation.verify.one_pass import OnePass
from tilepipe.evaluation.verify.seam_patches import NONE, Difference, Patch
from tilepipe.evaluation.verify.stored import Stored
from tilepipe.planning.certificate import Certificate
from tilepipe.text import JSON, setting

LIMIT = 1e-5
"""Difference in probability that fp32 arithmetic explains: kernels round differently for tiles of different size."""


@dataclass(frozen=True)
class Verification:
    """The figures of `tilepipe verify`. Parts that could not be measured are None or empty."""

    target: str
    """Path of the run or the label map."""
    certificate: Certificate | None = None
    """Certificate of the run; None for a label map alone."""
    limit: float = LIMIT
    """Largest difference in probability that the claim allows."""
    windows: tuple[Patch, ...] = ()
    """Patches on seams and block borders, each against one centred pass."""
    shifted: Difference | None = None
    """Pixels computed again with the grid moved by half a core; None if this was not done."""
    again: Flips | None = None
    """Number of labels on disk that differ from labels computed again; None if none was computed again."""
    one_pass: OnePass | None = None
    """All labels on disk, compared with one pass over the whole image; None if this was not done."""
    comparable: bool = True
    """Whether labels computed again must be the same: device and torch are those of the run."""
    changed: tuple[str, ...] = ()
    """Sentences about products that were changed or damaged since they were written, or are gone."""
    stored: Stored | None = None
    """Blocks on disk compared with the ledger; None for a label map alone."""
    seams: SeamExcess | None = None
    """Result of the comb test over all labels; None if it was not done."""

    @property
    def whole(self) -> Difference:
        """Difference between tiles and centred passes, summed over all patches."""
        return sum((patch.whole for patch in self.windows), NONE)

    @property
    def neighbours(self) -> Difference:
        """Difference between neighbouring tiles, summed over all patches."""
        return sum((patch.neighbours for patch in self.windows), NONE)

    @property
    def error(self) -> float | None:
        """Largest difference of probabilities to a centred pass; None if nothing was compared."""
        return self.whole.worst if self.windows else None

    @property
    def uncompared(self) -> str:
        """Return in a sentence why nothing was compared; empty if something was."""
        if self.certificate is None:
            return f"nothing was compared: {self.seams}" if self.seams and not self.seams.enough else ""
        if self.again is not None and not self.again.pixels:
            where = f"{len(self.windows)} places" if self.windows else "the places that were tried"
            return f"no label was compared with one computed again: {where} hold no image data with labels on disk"
        if self.again is None and self.one_pass is None and not (self.stored and self.stored.blocks):
            return f"nothing was compared: give {setting(windows=8)} to compute labels again"
        return ""

    @property
    def problems(self) -> tuple[str, ...]:
        """Return what does not hold, in sentences; empty when all holds."""
        # A check that has compared nothing must not pass for one that found nothing.
        found = [*self.changed, *([self.uncompared] if self.uncompared else [])]
        allowed = f"{self.limit:.1e} is allowed"
        if self.claims and self.whole.worst > self.limit:
            found.append(f"tiles differ from a pass without seams by {self.whole.worst:.1e}, and {allowed}")
        if self.claims and self.shifted and self.shifted.worst > 2 * self.limit:  # both grids may be off by the limit
            found.append(f"moving the grid changes probabilities by {self.shifted.worst:.1e}, and twice {allowed}")
        if self.again and self.again.different and self.comparable:
            found.append(f"{self.again.different} of {self.again.pixels} labels on disk are not those computed again")
        if self.claims and self.one_pass and self.one_pass.beyond and self.comparable:
            found.append(
                f"{self.one_pass.beyond} of {self.one_pass.flips.pixels} labels on disk differ from one pass over the "
                f"whole image, where the best two classes lie further apart than {2 * self.limit:.1e}"
            )
        if self.stored and self.stored.wrong:
            where = f"{len(self.stored.wrong)} of {self.stored.blocks} blocks on disk"
            found.append(f"{where} are not those of the ledger: {', '.join(self.stored.parts)}")
        if self.certificate is None and self.seams and self.seams.found:
            found.append(str(self.seams))
        return tuple(found)

    @property
    def holds(self) -> bool:
        """Whether everything that was claimed is so; without a certificate, whether no seam was found.

        False if nothing was compared.
        """
        return not self.problems

    @property
    def claims(self) -> bool:
        """Whether the certificate claims something about seams, which windows can confirm."""
        # Blended and uncertified runs promise nothing about seams, so a seam breaks no promise of theirs.
        return self.certificate is not None and self.certificate.mode in ("EXACT", "TOLERANCE", "FIELD")

    @property
    def compared(self) -> tuple[str, ...]:
        """Return in sentences what was compared and is as it should be."""
        found = []
        if self.claims and self.windows:
            found.append(
                f"tiles give what one pass gives in {len(self.windows)} windows, up to {self.limit:.1e} in probability"
            )
        if self.again and self.again.pixels and self.comparable:
            found.append(f"{self.again.pixels} labels on disk are those computed again")
        if self.one_pass and self.one_pass.flips.pixels and self.claims and self.comparable:
            differ = self.one_pass.flips.different
            but = f" but for {differ} ties" if differ else ""
            found.append(f"{self.one_pass.flips.pixels} labels on disk are those of one pass over the whole image{but}")
        if self.stored and self.stored.blocks:
            found.append(f"{self.stored.blocks} of {self.stored.blocks} blocks on disk are those of the ledger")
        if self.certificate is None and self.seams and self.seams.enough:
            found.append("no lines were found at the edges of tiles")
        return tuple(found)

    @property
    def not_compared(self) -> tuple[str, ...]:
        """Return in sentences what was not compared or is not judged, and why."""
        if self.certificate is None:
            return ("a label map alone does not say which labels are right",)
        found = []
        if not self.claims:
            mode = self.certificate.mode
            found.append(f"seams are not judged, as the certificate claims nothing about them ({mode})")
        elif not self.windows and not self.one_pass:
            found.append("tiles were not compared with a pass without seams")
        again = self.again or (self.one_pass and self.one_pass.flips)
        if not (again and again.pixels):
            found.append("labels on disk were not compared with labels computed again")
        elif not self.comparable:
            found.append("labels computed again are not judged, as the device or torch is not that of the run")
        if not (self.stored and self.stored.blocks):
            found.append("blocks on disk were not compared with the ledger")
        return tuple(found)

    @property
    def verdict(self) -> str:
        """Return what does not hold; if all holds, what was compared and what was not."""
        if self.problems:
            return "; ".join(self.problems)
        holds = "holds" if self.claims or self.certificate is None else "what is on disk holds"
        rest = f". But {'; '.join(self.not_compared)}" if self.not_compared else ""
        return f"{holds}: {'; '.join(self.compared)}{rest}"

    def rows(self) -> list[tuple[str, str]]:
        """Return (what, figure) pairs as text."""
        rows = [("target", self.target)]
        if self.certificate:
            rows.append(("certificate", f"{self.certificate.mode}: {self.certificate.sentences[0]}"))
        if self.certificate and self.certificate.level:
            rows.append(("arithmetic", self.certificate.level.sentence))
        if self.windows:
            rows.append((f"{len(self.windows)} places", f"{_text(self.whole)}, compared with one centred pass"))
            between = self.neighbours
            overlap = f"two tiles that see the same pixel differ by {between.mean:.1e} on average"
            alone = "no pixel of these places is seen by two tiles"
            seen = f"{overlap}, and by {between.worst:.1e} at most" if between.flips.pixels else alone
            rows.append(("neighbours", seen))
        if self.shifted:
            rows.append(("moved grid", _text(self.shifted)))
        if self.again:
            note = "" if self.comparable else "; the device or torch is not that of the run"
            rows.append(
                ("on disk", f"{self.again.different} of {self.again.pixels} labels differ when computed again{note}")
            )
        if self.one_pass:
            share, beyond = self.one_pass.flips, self.one_pass.beyond
            differ = f"{share.different} of {share.pixels} labels ({share.share:.2%}) differ from one pass"
            rows.append(("whole image", f"{differ} over the whole image, {beyond} of them by more than rounding"))
        if self.stored:
            right = self.stored.blocks - len(self.stored.wrong)
            known = f"{right} of {self.stored.blocks} blocks are those of the ledger ({self.stored.where})"
            rows.append(("ledger", known if self.stored.blocks else self.stored.where))
        if self.seams:
            rows.append(("lines", str(self.seams)))
        return [*rows, ("verdict", self.verdict)]

    def __str__(self) -> str:
        """Return the rows as a table."""
        return "\n".join(f"{name:12} {text}" for name, text in self.rows())

    def to_dict(self) -> JSON:
        """Return the figures as JSON types: probabilities from 0 to 1, boxes in pixels of the prediction grid."""
        return {
            "target": self.target,
            "holds": self.holds,
            "problems": list(self.problems),
            "compared": list(self.compared),
            "not_compared": list(self.not_compared),
            "limit": self.limit,
            "certificate": json.loads(self.certificate.to_json()) if self.certificate else None,
            "windows": [_patch(patch) for patch in self.windows],
            "whole": _figures(self.whole) if self.windows else None,
            "neighbours": _figures(self.neighbours) if self.windows else None,
            "shifted": _figures(self.shifted) if self.shifted else None,
            "changed": list(self.changed),
            "again": asdict(self.again) | {"comparable": self.comparable} if self.again else None,
            "one_pass": asdict(self.one_pass) if self.one_pass else None,
            "stored": asdict(self.stored) if self.stored else None,
            "seams": asdict(self.seams) | {"found": self.seams.found, "says": str(self.seams)} if self.seams else None,
        }

    def to_json(self) -> str:
        """Return the figures as JSON text."""
        return json.dumps(self.to_dict(), indent=1) + "\n"


def _text(d: Difference) -> str:
    share = f"{d.flips.different} of {d.flips.pixels} labels ({d.flips.share:.2%})"
    return f"{share} flip, and probabilities differ by {d.mean:.1e} on average and by {d.worst:.1e} at most"


def _figures(d: Difference) -> JSON:
    return {**asdict(d.flips), "share": d.flips.share, "mean": d.mean, "worst": d.worst}


def _patch(patch: Patch) -> JSON:
    return {"box": patch.box.to_list(), "place": patch.place, **_figures(patch.whole)}
