"""A small DICOM whole-slide image, made of given pixels: no scanner has written it, and its patient does not exist."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

TILE = 64
ORIGIN = (20.0, 30.0)
"""Position (x, y) of the centre of the first pixel on the glass [mm]."""


def write_dicom_slide(path: Path, pixels: NDArray[np.uint8], mpp: tuple[float, float] = (0.5, 0.25)) -> Path:
    """Write RGB pixels (H, W, 3) as a VL Whole Slide Microscopy image, tiled in full, not compressed.

    `mpp` is the size (y, x) of a pixel [micrometres].
    """
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, VLWholeSlideMicroscopyImageStorage, generate_uid

    def item(**fields: Any) -> Dataset:
        made = Dataset()
        for name, value in fields.items():
            setattr(made, name, value)
        return made

    def code(value: str, scheme: str, meaning: str) -> Dataset:
        return item(CodeValue=value, CodingSchemeDesignator=scheme, CodeMeaning=meaning)

    height, width, _ = pixels.shape
    rows, columns = -(-height // TILE), -(-width // TILE)
    padded = np.full((rows * TILE, columns * TILE, 3), 255, np.uint8)
    padded[:height, :width] = pixels
    frames = padded.reshape(rows, TILE, columns, TILE, 3).transpose(0, 2, 1, 3, 4)
    uid = generate_uid(prefix=None, entropy_srcs=["tilepipe tests", str(pixels.shape), str(mpp)])
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = VLWholeSlideMicroscopyImageStorage
    meta.MediaStorageSOPInstanceUID = uid
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    slide = item(
        SOPClassUID=VLWholeSlideMicroscopyImageStorage, SOPInstanceUID=uid, Modality="SM",
        PatientID="nobody", PatientName="Nobody", PatientBirthDate="", PatientSex="O", StudyID="1", AccessionNumber="",
        StudyInstanceUID=uid + ".1", SeriesInstanceUID=uid + ".2", FrameOfReferenceUID=uid + ".3", SeriesNumber=1,
        PositionReferenceIndicator="SLIDE_CORNER", StudyDate="20240501", StudyTime="103000",
        AcquisitionDateTime="20240501103000", ContentDate="20240501", ContentTime="103000", InstanceNumber=1,
        ReferringPhysicianName="", Manufacturer="tilepipe tests", ManufacturerModelName="none",
        DeviceSerialNumber="0", SoftwareVersions="0", ImageType=["ORIGINAL", "PRIMARY", "VOLUME", "NONE"],
        SamplesPerPixel=3, PhotometricInterpretation="RGB", PlanarConfiguration=0, Rows=TILE, Columns=TILE,
        BitsAllocated=8, BitsStored=8, HighBit=7, PixelRepresentation=0, NumberOfFrames=rows * columns,
        TotalPixelMatrixRows=height, TotalPixelMatrixColumns=width, TotalPixelMatrixFocalPlanes=1,
        ImagedVolumeWidth=width * mpp[1] / 1000, ImagedVolumeHeight=height * mpp[0] / 1000, ImagedVolumeDepth=0.001,
        TotalPixelMatrixOriginSequence=[
            item(XOffsetInSlideCoordinateSystem=ORIGIN[0], YOffsetInSlideCoordinateSystem=ORIGIN[1])
        ],
        ImageOrientationSlide=[0.0, -1.0, 0.0, -1.0, 0.0, 0.0], DimensionOrganizationType="TILED_FULL",
        VolumetricProperties="VOLUME", SpecimenLabelInImage="NO", FocusMethod="AUTO", BurnedInAnnotation="NO",
        LossyImageCompression="00", ExtendedDepthOfField="NO", NumberOfOpticalPaths=1, ContainerIdentifier="1",
        ContainerTypeCodeSequence=[code("433466003", "SCT", "Microscope slide")],
        IssuerOfTheContainerIdentifierSequence=[],
        SpecimenDescriptionSequence=[
            item(
                SpecimenIdentifier="1", SpecimenUID=uid + ".4", IssuerOfTheSpecimenIdentifierSequence=[],
                SpecimenPreparationSequence=[],
            )
        ],
        OpticalPathSequence=[
            item(
                OpticalPathIdentifier="0",
                IlluminationTypeCodeSequence=[code("111744", "DCM", "Brightfield illumination")],
                IlluminationColorCodeSequence=[code("414298005", "SCT", "Full Spectrum")],
            )
        ],
        AcquisitionContextSequence=[],
        SharedFunctionalGroupsSequence=[
            item(
                PixelMeasuresSequence=[item(PixelSpacing=[mpp[0] / 1000, mpp[1] / 1000], SliceThickness=0.001)],
                WholeSlideMicroscopyImageFrameTypeSequence=[item(FrameType=["ORIGINAL", "PRIMARY", "VOLUME", "NONE"])],
                OpticalPathIdentificationSequence=[item(OpticalPathIdentifier="0")],
            )
        ],
        PixelData=frames.tobytes(),
    )  # fmt: skip
    slide.file_meta = meta
    slide.save_as(path, enforce_file_format=True)
    return path
