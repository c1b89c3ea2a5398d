"""DICOM segmentation: the labels of a DICOM slide as an object of the same patient, study and frame of reference.

There is one segment for each class but a background, with one bit per pixel (BINARY), tiled in full, on the grid of the
labels. The header is made by highdicom. The pixels are streamed into it, since highdicom takes a whole map at once.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from tilepipe.box import Box
from tilepipe.errors import InputError, UsageError
from tilepipe.products.formats import DICOM_SEG
from tilepipe.products.label_map import LABELS, LabelMap
from tilepipe.products.material import Material, model_name, models_of
from tilepipe.products.staging import staged
from tilepipe.sources.base import Source
from tilepipe.sources.slide import SlideSource
from tilepipe.sources.wrapped import unwrapped
from tilepipe.text import JSON

if TYPE_CHECKING:
    from pydicom import Dataset

FRAME = 512
"""Side of a frame in pixels; its bits fill whole bytes, so each frame is written by itself."""
FRAME_BYTES = FRAME * FRAME // 8
LARGEST = 2**32 - 2
"""Largest length of pixel data that is not compressed (bytes), as DICOM writes the length in 32 bits."""
SCHEME = "99TILEPIPE"
"""Coding scheme of classes: DICOM keeps names that begin with 99 for private schemes, which no registry knows."""


def refuse_no_dicom_slide(image: Source | None) -> None:
    """Raise `UsageError` if the labels are not those of a DICOM slide."""
    slide = None if image is None else unwrapped(image)
    if not isinstance(slide, SlideSource) or slide.file.vendor != "dicom":
        what = "no image is given" if image is None else f"{image.name} is none"
        raise UsageError(
            f"{DICOM_SEG} is made for a DICOM slide, whose patient, study and place it takes, and {what}; leave it "
            "out, or write an ome-zarr"
        )


def write_dicom_seg(material: Material, path: Path) -> None:
    """Write the labels as a DICOM segmentation at the new path `path`; memory does not grow with the map.

    Raises `UsageError` if the image is no DICOM slide, if the labels are too many for one object, or if `path` exists;
    `StorageError` if the disk is full.
    """
    labels, image = material.maps[LABELS], material.image
    refuse_no_dicom_slide(image)
    slide = unwrapped(image) if image is not None else None
    assert isinstance(slide, SlideSource)
    classes, frames = _segments(labels), list(labels.boxes(FRAME))
    size = len(classes) * len(frames) * FRAME_BYTES
    if size > LARGEST:
        raise UsageError(
            f"{len(classes)} classes on {labels.shape[0]} x {labels.shape[1]} px take {size / 2**30:.2f} GiB, and an "
            "object of DICOM holds 4 GiB of bits; segment a part of the slide, or give `resolution`"
        )
    with staged(path) as part, warnings.catch_warnings():
        # Slides have names of patients and other values that highdicom and pydicom remark on; they are only copied.
        warnings.simplefilter("ignore")
        source = _level_0(slide)
        bits = part.with_suffix(".bits")
        try:
            with bits.open("w+b") as stream:
                digest = _write_bits(labels, classes, frames, stream)
                made = _header(labels, classes, source, material.facts)
                _sized(made, labels, len(classes) * len(frames), source, material.facts, digest)
                stream.seek(0)
                # pydicom copies a stream piece by piece.
                made.PixelData = stream
                made.save_as(part, enforce_file_format=True)
        finally:
            # What is left in the folder would be moved beside the product.
            bits.unlink(missing_ok=True)


def parse_dicom_seg(path: Path) -> None:
    """Read a segmentation from end to end. Raises `ValueError` or `OSError` if it is none, or was cut."""
    from pydicom import dcmread
    from pydicom.uid import SegmentationStorage

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = dcmread(path, defer_size=2**20)
        if found.SOPClassUID != SegmentationStorage:
            raise ValueError(f"{path} is no segmentation")
        length = int(found.NumberOfFrames) * found.Rows * found.Columns // 8
        # The pixels are the last element, so that a file which was cut lacks a part of them.
        with path.open("rb") as file:
            file.seek(-length, 2)
            while file.read(2**24):
                pass
        if len(found.PixelData) != length:
            raise ValueError(f"{path} was cut")
    except Exception as error:  # pydicom has errors of many kinds for a damaged file
        raise ValueError(f"{path} is no segmentation: {error}") from None


def _segments(labels: LabelMap) -> list[int]:
    """Return the label values that are segments, in the order of their numbers, which begin at 1."""
    return [value for value in range(len(labels.legend.classes)) if value != labels.legend.background]


def _write_bits(labels: LabelMap, classes: list[int], frames: list[Box], stream: IO[bytes]) -> str:
    """Write the bits of all frames, one segment after the other; return a hash of the labels."""
    digest, frame = hashlib.sha256(), np.empty((FRAME, FRAME), labels.dtype)
    for k, box in enumerate(frames):
        frame[:] = labels.legend.nodata
        frame[: box.height, : box.width] = labels.read(box)
        digest.update(frame.tobytes())
        for segment, value in enumerate(classes):
            stream.seek((segment * len(frames) + k) * FRAME_BYTES)
            stream.write(np.packbits(frame == value, bitorder="little").tobytes())
    return digest.hexdigest()


def _level_0(slide: SlideSource) -> Dataset:
    """Return the header of the file that holds level 0 of a DICOM slide. Raises `InputError` if none is found."""
    from pydicom import dcmread

    shape = slide.shape[1:]
    for file in slide.files:
        found = dcmread(file, stop_before_pixels=True)
        size = found.get("TotalPixelMatrixRows"), found.get("TotalPixelMatrixColumns")
        if size == shape and "VOLUME" in found.get("ImageType", ()):
            return found
    raise InputError(f"no file of {slide.name} says that it holds the {shape[0]} x {shape[1]} px of level 0")


def _header(labels: LabelMap, classes: list[int], source: Dataset, facts: JSON) -> Any:
    """Return a segmentation of one empty frame with the place, the segments and the references of the labels."""
    import highdicom as hd
    from highdicom.seg import Segmentation, SegmentationTypeValues
    from pydicom.uid import generate_uid

    measures = source.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    sy, sx = labels.scale
    # highdicom takes a map of the size of its source, so the source is given the size of the one frame.
    stand_in = deepcopy(source)
    stand_in.TotalPixelMatrixRows = stand_in.TotalPixelMatrixColumns = FRAME
    spacing = float(measures.PixelSpacing[0]) * sy, float(measures.PixelSpacing[1]) * sx
    return Segmentation(
        source_images=[stand_in],
        pixel_array=np.zeros((FRAME, FRAME), np.uint8),
        segmentation_type=SegmentationTypeValues.BINARY,
        segment_descriptions=list(_descriptions(labels, classes, facts)),
        series_instance_uid=generate_uid(),
        series_number=1000,
        sop_instance_uid=generate_uid(),
        instance_number=1,
        manufacturer="tilepipe",
        manufacturer_model_name="tilepipe",
        software_versions=str(facts.get("versions", {}).get("tilepipe", "unknown")),
        device_serial_number="0",
        content_label="TILEPIPE",
        content_description=labels.legend.name[:64],
        pixel_measures=hd.PixelMeasuresSequence(
            pixel_spacing=spacing, slice_thickness=float(measures.get("SliceThickness", 0.001))
        ),
        plane_orientation=hd.PlaneOrientationSequence(
            hd.CoordinateSystemNames.SLIDE, [float(value) for value in source.ImageOrientationSlide]
        ),
        plane_positions=[hd.PlanePositionSequence(hd.CoordinateSystemNames.SLIDE, _corner(labels, source), (1, 1))],
        omit_empty_frames=False,
        dimension_organization_type="TILED_FULL",
        tile_pixel_array=True,
        tile_size=(FRAME, FRAME),
    )


def _descriptions(labels: LabelMap, classes: list[int], facts: JSON) -> Iterator[Any]:
    """Yield one description for each segment: a card has no codes, so its category is tissue and its type private."""
    import highdicom as hd
    from pydicom.sr.codedict import codes

    model = model_name(models_of(facts)) or labels.legend.name
    weights = str(facts.get("versions", {}).get("weights", ""))[:16] or "unknown"
    how = hd.AlgorithmIdentificationSequence(model[:64], codes.DCM.ArtificialIntelligence, weights)
    for number, value in enumerate(classes, 1):
        name = labels.legend.classes[value]
        yield hd.seg.SegmentDescription(
            segment_number=number,
            segment_label=name[:64],
            segmented_property_category=codes.SCT.Tissue,
            segmented_property_type=hd.sr.CodedConcept(str(value), SCHEME, name[:64]),
            algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
            algorithm_identification=how,
            display_color=hd.color.CIELabColor.from_rgb(*labels.legend.palette[value]),
        )


def _corner(labels: LabelMap, source: Dataset) -> tuple[float, float, float]:
    """Return the place (x, y, z) on the glass of the centre of the map's first pixel (mm)."""
    measures, origin = (
        source.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0],
        source.TotalPixelMatrixOriginSequence[0],
    )
    down, right = (
        (start + 0.5 * scale - 0.5) * float(size)
        for start, scale, size in zip(labels.origin, labels.scale, measures.PixelSpacing, strict=True)
    )
    # Along a row the first three numbers say the direction, along a column the last three.
    turn = [float(value) for value in source.ImageOrientationSlide]
    start = (
        float(origin.XOffsetInSlideCoordinateSystem),
        float(origin.YOffsetInSlideCoordinateSystem),
        float(origin.get("ZOffsetInSlideCoordinateSystem", 0.0)),
    )
    x, y, z = (start[k] + right * turn[k] + down * turn[k + 3] for k in range(3))
    return x, y, z


def _sized(made: Any, labels: LabelMap, frames: int, source: Dataset, facts: JSON, digest: str) -> None:
    """Give the header the size of the labels, and numbers and times that depend on labels and run alone."""
    from pydicom.uid import generate_uid

    made.TotalPixelMatrixRows, made.TotalPixelMatrixColumns = labels.shape
    made.NumberOfFrames = frames
    known = [str(source.SOPInstanceUID), str(facts.get("key", "")), labels.legend.name, digest]
    made.SOPInstanceUID = made.file_meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[*known, "instance"])
    made.SeriesInstanceUID = generate_uid(entropy_srcs=[*known, "series"])
    made.DimensionOrganizationSequence[0].DimensionOrganizationUID = generate_uid(entropy_srcs=[*known, "dimensions"])
    # Without the run nobody knows when the labels were made; then the times are those of writing.
    if ended := str(facts.get("ended", "")):
        day, time = ended[:10].replace("-", ""), ended[11:19].replace(":", "")
        for name in ("InstanceCreation", "Content", "Series"):
            setattr(made, f"{name}Date", day)
            setattr(made, f"{name}Time", time)
        # The last one is highdicom, which wrote the header.
        made.ContributingEquipmentSequence[-1].ContributionDateTime = day + time
