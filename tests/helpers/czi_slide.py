"""Writes a small slide in Zeiss's CZI: one uncompressed tile, as far as OpenSlide wants it.

The layout is that of ZEISS's "CZI file format" design specification: segments with a name of 16 bytes and two sizes.
"""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

HEADER = 32
BGR = 3
XML = (
    '<ImageDocument><Metadata><Information><Image><SizeX>{x}</SizeX><SizeY>{y}</SizeY><SizeC>1</SizeC><SizeS>1</SizeS>'
    '<SizeM>1</SizeM><PixelType>Bgr24</PixelType></Image></Information><Scaling><Items><Distance Id="X">'
    '<Value>{mpp}e-06</Value></Distance><Distance Id="Y"><Value>{mpp}e-06</Value></Distance></Items></Scaling>'
    "</Metadata></ImageDocument>"
)  # fmt: skip


def write_czi_slide(path: Path, pixels: NDArray[np.uint8], mpp: float = 0.25, compression: int = 0) -> Path:
    """Write pixels (y, x, 3) of RGB; a `compression` other than 0 is stated and not made."""
    height, width, _ = pixels.shape
    data = np.ascontiguousarray(pixels[..., ::-1]).tobytes()
    first = HEADER + 512

    def entry() -> bytes:
        sides = [(b"X", 0, width), (b"Y", 0, height), (b"C", 0, 1), (b"S", 0, 1), (b"M", 0, 1)]
        dimensions = b"".join(struct.pack("<4siifi", name, start, size, 0.0, size) for name, start, size in sides)
        return struct.pack("<2siqiiB5xi", b"DV", BGR, first, 0, compression, 0, len(sides)) + dimensions

    def segment(name: bytes, content: bytes) -> bytes:
        whole = content + bytes(-len(content) % 32)
        return struct.pack("<16sqq", name, len(whole), len(content)) + whole

    tile = segment(b"ZISRAWSUBBLOCK", (struct.pack("<iiq", 0, 0, len(data)) + entry()).ljust(256, b"\0") + data)
    listed = segment(b"ZISRAWDIRECTORY", struct.pack("<i", 1).ljust(128, b"\0") + entry())
    xml = XML.format(x=width, y=height, mpp=mpp).encode()
    told = segment(b"ZISRAWMETADATA", struct.pack("<ii", len(xml), 0).ljust(256, b"\0") + xml)
    attached = segment(b"ZISRAWATTDIR", bytes(256))
    places = first + len(tile), first + len(tile) + len(listed), first + len(tile) + len(listed) + len(told)
    guid = bytes(range(16))
    head = struct.pack("<iiii16s16siqqiq", 1, 0, 0, 0, guid, guid, 0, places[0], places[1], 0, places[2])
    path.write_bytes(segment(b"ZISRAWFILE", head.ljust(512, b"\0")) + tile + listed + told + attached)
    return path
