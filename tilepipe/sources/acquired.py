"""Acquired: when an image was taken, if its file, or a STAC item beside it, says so."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta, timezone

from tilepipe.sources.base import Source
from tilepipe.sources.stac_bands import items_beside
from tilepipe.sources.wrapped import unwrapped

DICOM_KEYS = ("dicom.AcquisitionDateTime", "philips.DICOM_ACQUISITION_DATETIME")
"""Properties of slides with a time as DICOM writes it: 20240501103000.000000+0200."""


def acquired_of(source: Source) -> str:
    """Return when an image was taken: a time (ISO 8601, in UTC), or the first and the last time with '/' between them.

    The result is '' if nothing says it. The time at which a TIFF file was made is no such time.
    """
    return str(getattr(unwrapped(source), "acquired", ""))


def raster_time(path: str, tags: Mapping[str, str]) -> str:
    """Return when a raster was taken, as `acquired_of` does.

    A STAC item beside the file comes first, then `tags`, GDAL's metadata of the domain IMAGERY.
    """
    for item in items_beside(path):
        # What is no item, or has no time that can be read, is passed over.
        with suppress(KeyError, TypeError, ValueError, AttributeError):
            told = item["properties"]
            if told.get("datetime"):
                return _utc(datetime.fromisoformat(told["datetime"]))
            return "/".join(_utc(datetime.fromisoformat(told[f"{end}_datetime"])) for end in ("start", "end"))
    with suppress(KeyError, ValueError):
        return _utc(datetime.fromisoformat(tags["ACQUISITIONDATETIME"].strip()))
    return ""


def slide_time(properties: Mapping[str, str]) -> str:
    """Return when a slide was scanned, as `acquired_of` does; a time without a time zone is taken for UTC."""
    return next(_slide_times(properties), "")


def _slide_times(properties: Mapping[str, str]) -> Iterator[str]:
    for key in DICOM_KEYS:
        with suppress(KeyError, ValueError):
            yield _utc(_dicom_time(properties[key].strip()))
    with suppress(KeyError, ValueError):
        yield _utc(datetime.fromisoformat(properties["leica.creation-date"]))
    with suppress(KeyError, ValueError):
        month, day, year = map(int, properties["aperio.Date"].split("/"))
        hour, minute, second = map(int, properties["aperio.Time"].split(":"))
        found = datetime(year + 2000 if year < 100 else year, month, day, hour, minute, second)
        zone = re.fullmatch(r"(?:GMT|UTC)([+-]\d\d):?(\d\d)", properties.get("aperio.Time Zone", "").strip())
        yield _utc(found.replace(tzinfo=_zone(*zone.groups())) if zone else found)


def _dicom_time(text: str) -> datetime:
    """Return the time of a text as DICOM writes it. Raises `ValueError` for another text."""
    found = re.fullmatch(r"(\d{14})(?:\.\d{1,6})?(?:([+-]\d\d)(\d\d))?", text)
    if found is None:
        raise ValueError(f"{text} is no time of DICOM")
    time = datetime.strptime(found[1], "%Y%m%d%H%M%S")
    return time.replace(tzinfo=_zone(found[2], found[3])) if found[2] else time


def _zone(hours: str, minutes: str) -> timezone:
    whole = int(hours)
    return timezone(timedelta(hours=whole, minutes=-int(minutes) if hours.startswith("-") else int(minutes)))


def _utc(time: datetime) -> str:
    """Return a time in UTC, as STAC writes it; GDAL and STAC mean UTC if they name no time zone.

    Raises `ValueError` for a time at the end of the calendar that lies beyond it in UTC.
    """
    try:
        known = time.astimezone(UTC) if time.tzinfo else time.replace(tzinfo=UTC)
    except OverflowError:
        raise ValueError(f"{time} lies beyond the calendar in UTC") from None
    return known.isoformat(timespec="seconds").replace("+00:00", "Z")
