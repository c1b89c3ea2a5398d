"""The DICOM segmentation against highdicom's own reading, pixel for pixel, of slides that the tests make."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import openslide
import pytest
from helpers.dicom_slide import ORIGIN, write_dicom_slide
from numpy.typing import NDArray

import tilepipe as tp
from tilepipe.cli.main import main
from tilepipe.errors import InputError, UsageError
from tilepipe.products import dicom_seg
from tilepipe.products.dicom_seg import parse_dicom_seg, write_dicom_seg
from tilepipe.products.label_map import LABELS, LabelMap, Legend, label_map_of
from tilepipe.products.material import Material
from tilepipe.sources.array import ArraySource
from tilepipe.sources.base import Source

hd = pytest.importorskip("highdicom", reason="the extra dicom is not installed")
SAMPLE = Path(__file__).parents[2] / "pipelines/sample/CMU-1-Small-Region.svs"
CELLS = Legend("cells", ("background", "tumour", "stroma"), ((0, 0, 0), (213, 94, 0), (0, 158, 115)), 255)
COVER = Legend("cover", ("fat", "tumour"), ((0, 0, 0), (213, 94, 0)), 255)


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A part of the sample slide, as DICOM."""
    with openslide.OpenSlide(SAMPLE) as sample:
        pixels = np.asarray(sample.read_region((1500, 840), 0, (600, 700)))[..., :3]
    return write_dicom_slide(tmp_path_factory.mktemp("slide") / "slide.dcm", pixels)


def labels_of(shape: tuple[int, int], legend: Legend, **fields: Any) -> tuple[NDArray[np.uint8], LabelMap]:
    values = np.array([*range(len(legend.classes)), 255], np.uint8)
    pixels = np.random.default_rng(0).choice(values, shape)
    return pixels, label_map_of(pixels, legend, **fields)


def written(labels: LabelMap, image: Source | None, path: Path, **facts: Any) -> Any:
    material = Material.of({LABELS: labels}, image)
    write_dicom_seg(Material(material.maps, material.tally, image, facts=facts), path)
    parse_dicom_seg(path)
    assert sorted(path.parent.iterdir()) == [path]
    return hd.seg.segread(path)


def test_the_reader_opens_such_a_slide_bit_for_bit(slide: Path) -> None:
    source = tp.open_source(slide)
    with openslide.OpenSlide(SAMPLE) as sample:
        pixels = np.asarray(sample.read_region((1500, 840), 0, (600, 700)))[..., :3]
    np.testing.assert_array_equal(source.read(tp.Box(0, 0, 700, 600)).transpose(1, 2, 0), pixels)
    assert str(source.resolution) == "0.5 x 0.25 um/px"


@pytest.mark.parametrize("legend", [CELLS, COVER])
def test_highdicom_reads_the_same_pixels(legend: Legend, slide: Path, tmp_path: Path) -> None:
    pixels, labels = labels_of((700, 600), legend)
    found = written(labels, tp.open_source(slide), tmp_path / "a.seg.dcm", model="/m/nuclei.model")
    first = 1 if legend is CELLS else 0
    assert found.segment_numbers == list(range(1, len(legend.classes) - first + 1))
    for number in found.segment_numbers:
        value = number - 1 + first
        got = found.get_total_pixel_matrix(segment_numbers=[number])[..., 0]
        np.testing.assert_array_equal(got, pixels == value)
        told = found.get_segment_description(number)
        assert told.segment_label == legend.classes[value]
        assert told.segmented_property_category.meaning == "Tissue"
        kind = told.segmented_property_type
        assert (kind.value, kind.scheme_designator, kind.meaning) == (str(value), "99TILEPIPE", legend.classes[value])
        assert told.algorithm_identification.name == "nuclei"
    assert (found.segmentation_type.value, found.DimensionOrganizationType) == ("BINARY", "TILED_FULL")


def test_it_belongs_to_the_slide(slide: Path, tmp_path: Path) -> None:
    from pydicom import dcmread

    source = dcmread(slide)
    found = written(labels_of((700, 600), CELLS)[1], tp.open_source(slide), tmp_path / "a.seg.dcm")
    for name in ("PatientID", "PatientName", "StudyInstanceUID", "FrameOfReferenceUID", "ContainerIdentifier"):
        assert found[name].value == source[name].value
    assert found.SourceImageSequence[0].ReferencedSOPInstanceUID == source.SOPInstanceUID
    assert found.SeriesInstanceUID != source.SeriesInstanceUID
    shared = found.SharedFunctionalGroupsSequence[0]
    assert list(shared.PixelMeasuresSequence[0].PixelSpacing) == [0.0005, 0.00025]


def test_the_models_of_an_ensemble_are_named(slide: Path, tmp_path: Path) -> None:
    facts = {"model": ["/models/a.model", "/models/b.model"]}
    found = written(labels_of((700, 600), CELLS)[1], tp.open_source(slide), tmp_path / "a.seg.dcm", **facts)
    named = found.SegmentSequence[0].SegmentationAlgorithmIdentificationSequence[0].AlgorithmName
    assert named == "a + b"


@pytest.mark.parametrize(("origin", "scale"), [((0, 0), (1.0, 1.0)), ((100, 40), (1.0, 1.0)), ((100, 40), (4.0, 2.0))])
def test_a_region_and_larger_pixels_lie_where_they_are(
    origin: tuple[int, int], scale: tuple[float, float], slide: Path, tmp_path: Path
) -> None:
    """By highdicom's own transformer: the middle of a pixel of the labels against that of the slide's pixels below."""
    from pydicom import dcmread

    labels = labels_of((130, 90), CELLS, origin=origin, scale=scale)[1]
    found = written(labels, tp.open_source(slide), tmp_path / "a.seg.dcm")
    place = hd.spatial.PixelToReferenceTransformer.for_image(found, for_total_pixel_matrix=True)
    below = hd.spatial.PixelToReferenceTransformer.for_image(dcmread(slide), for_total_pixel_matrix=True)
    for row, column in ((0, 0), (7, 3)):
        middle = [origin[k] + (at + 0.5) * scale[k] - 0.5 for k, at in enumerate((row, column))]
        # Whole pixels only: four corners of a larger pixel have the middle between them.
        around = np.array([[np.floor(middle[1]), np.floor(middle[0])], [np.ceil(middle[1]), np.ceil(middle[0])]])
        np.testing.assert_allclose(place(np.array([[column, row]]))[0], below(around.astype(int)).mean(0), atol=1e-9)
    if origin == (0, 0):
        np.testing.assert_allclose(place(np.array([[0, 0]]))[0], (*ORIGIN, 0.0))


def test_the_same_labels_of_a_run_are_the_same_bytes(slide: Path, tmp_path: Path) -> None:
    facts = {"ended": "2026-01-02T03:04:05+00:00", "key": "k", "versions": {"tilepipe": "0", "weights": "ab"}}
    labels, source = labels_of((700, 600), CELLS)[1], tp.open_source(slide)
    (tmp_path / "1").mkdir()
    (tmp_path / "2").mkdir()
    paths = [tmp_path / "1/a.seg.dcm", tmp_path / "2/a.seg.dcm"]
    one, two = (written(labels, source, path, **facts) for path in paths)
    assert paths[0].read_bytes() == paths[1].read_bytes()
    assert one.ContentDate == "20260102"
    (tmp_path / "3").mkdir()
    other = label_map_of(np.zeros((700, 600), np.uint8), CELLS)
    assert written(other, source, tmp_path / "3/a.seg.dcm", **facts).SOPInstanceUID != two.SOPInstanceUID


def test_memory_does_not_grow_with_the_map(tmp_path: Path) -> None:
    """A map of 64 megapixels, whose bits alone are 16 MiB, in a few MiB."""
    side = 8192
    small = write_dicom_slide(tmp_path / "slide.dcm", np.zeros((64, 64, 3), np.uint8))
    source = tp.open_source(small)
    header = dicom_seg._level_0(source)  # type: ignore[arg-type]

    def read(box: tp.Box) -> NDArray[np.uint8]:
        return np.full(box.shape, 1, np.uint8)

    labels = LabelMap((side, side), np.dtype(np.uint8), CELLS, read, (512, 512))
    path = tmp_path / "out"
    path.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dicom_seg, "_level_0", lambda _slide: header)
        written(labels_of((64, 64), CELLS)[1], source, path / "first.seg.dcm").SOPInstanceUID  # noqa: B018  imports
        (path / "first.seg.dcm").unlink()
        material = Material.of({LABELS: labels}, source)
        tracemalloc.start()
        write_dicom_seg(Material({LABELS: labels}, material.tally, source), path / "a.seg.dcm")
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    parse_dicom_seg(path / "a.seg.dcm")
    assert (path / "a.seg.dcm").stat().st_size > 2 * side * side // 8
    assert peak < 8 * 2**20


def test_what_cannot_be_written_is_refused(slide: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    labels, source = labels_of((700, 600), CELLS)[1], tp.open_source(slide)
    for image, why in ((None, "no image is given"), (ArraySource(np.zeros((700, 600), np.uint8)), "array is none")):
        with pytest.raises(UsageError, match=f"is made for a DICOM slide, .* and {why}"):
            written(labels, image, tmp_path / "a.seg.dcm")
    monkeypatch.setattr(dicom_seg, "LARGEST", 2 * 4 * dicom_seg.FRAME_BYTES - 1)
    with pytest.raises(UsageError, match=r"2 classes on 700 x 600 px take 0.00 GiB, and an object of DICOM"):
        written(labels, source, tmp_path / "a.seg.dcm")
    monkeypatch.undo()
    monkeypatch.setattr("tilepipe.sources.slide.SlideSource.shape", (3, 1, 1))
    with pytest.raises(InputError, match=r"no file of .*slide.dcm says that it holds the 1 x 1 px of level 0"):
        written(labels, source, tmp_path / "a.seg.dcm")
    assert list(tmp_path.iterdir()) == []


def test_a_run_and_an_export_write_it(slide: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "a.ome.zarr")
    words = ["segment", str(slide), out, "-m", "nuclei", "--window", "100,64,200,150", "--of", "ome-zarr,dicom-seg"]
    assert main(words) == 0
    labels = np.asarray(tp.open_labels(out))
    assert labels.max() > 0
    found = hd.seg.segread(tmp_path / "a.seg.dcm")
    np.testing.assert_array_equal(found.get_total_pixel_matrix()[..., 0], labels == 1)
    assert main(["export", out, str(tmp_path / "b.seg.dcm"), "--image", str(slide)]) == 0
    assert (tmp_path / "b.seg.dcm").read_bytes() == (tmp_path / "a.seg.dcm").read_bytes()
    # What lies beside the slide is no part of it.
    (slide.parent / "a.seg.dcm").write_bytes((tmp_path / "a.seg.dcm").read_bytes())
    assert tp.open_source(slide).files == [slide]  # type: ignore[attr-defined]
    (slide.parent / "a.seg.dcm").unlink()
    capsys.readouterr()
    assert main(["segment", str(SAMPLE), str(tmp_path / "c.seg.dcm"), "-m", "nuclei"]) == 2
    assert "dicom-seg is made for a DICOM slide" in capsys.readouterr().err
    assert main(["export", out, str(tmp_path / "c.seg.dcm")]) == 2
    assert "which only you can name" in capsys.readouterr().err


def test_damaged_files_are_none(slide: Path, tmp_path: Path) -> None:
    written(labels_of((700, 600), CELLS)[1], tp.open_source(slide), tmp_path / "a.seg.dcm")
    whole = (tmp_path / "a.seg.dcm").read_bytes()
    for text in (whole[: len(whole) // 2], whole[:-1], whole[:50], slide.read_bytes(), b""):
        (tmp_path / "b.seg.dcm").write_bytes(text)
        with pytest.raises((ValueError, OSError)):
            parse_dicom_seg(tmp_path / "b.seg.dcm")
