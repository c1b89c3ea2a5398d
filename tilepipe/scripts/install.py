"""Scripts for other programs are copied to where these programs look for them, with the command that starts tilepipe.

The scripts run in the other program, which has an interpreter of its own, and start tilepipe as a process.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from tilepipe.errors import InputError, UsageError, public
from tilepipe.storage import storage_errors, write_durably

QGIS_SCRIPT = "segment_in_qgis.py"
INSTALLED = "tilepipe_segment.py"
"""Name of the script in a profile of QGIS."""
QUPATH_SCRIPT = "segment_in_qupath.groovy"
INSTALLED_IN_QUPATH = "tilepipe_segment.groovy"
"""Name of the script among the scripts of QuPath."""
PROFILE = "default"
"""Name of the profile that QGIS makes at its first start."""
NO_COMMAND = 'COMMAND = ["tilepipe"]'
"""Line of a script that is replaced by the command of this installation."""


@public
def install_in_qgis(profile: str | Path = PROFILE) -> list[Path]:
    """Copy the script for QGIS's Processing toolbox into a profile of QGIS; return the paths of the copies.

    `profile` is a name, which is looked for in every version of QGIS that this user has started, or a profile's folder.
    A script that an earlier tilepipe has put there is replaced. Raises `InputError` if there is no such profile, and
    `UsageError` if another file has the name of the script.
    """
    text = script(QGIS_SCRIPT)
    return [_install(text, folder / "processing" / "scripts" / INSTALLED) for folder in _profiles(profile)]


@public
def install_in_qupath(folder: str | Path | None = None) -> list[Path]:
    """Copy the script for QuPath into `folder`, or to the scripts of each version of QuPath that this user has started.

    Returns the paths of the copies. A script that an earlier tilepipe has put there is replaced. Raises `InputError` if
    there is no such folder, and `UsageError` if another file has the name of the script.
    """
    if folder is not None and not Path(folder).is_dir():
        raise InputError(f"{folder} is no folder; name one for the script")
    own = sorted(path / "scripts" for path in (Path.home() / "QuPath").glob("v*") if path.is_dir())
    folders = own if folder is None else [Path(folder)]
    if not folders:
        raise InputError(
            f"QuPath has no folder like v0.6 in {Path.home() / 'QuPath'}; name a folder for the script: "
            "tilepipe qupath install --folder FOLDER"
        )
    text = script(QUPATH_SCRIPT).replace("$", "\\$")  # Groovy would put a variable in the place of $name
    return [_install(text, place / INSTALLED_IN_QUPATH) for place in folders]


def command() -> list[str]:
    """Return the words that start this tilepipe from any folder."""
    # Without -P a folder called tilepipe, from which a program is started, would be imported in its place.
    return [sys.executable, "-P", "-m", "tilepipe"]


def script(name: str) -> str:
    """Return the text of a script, with the command that starts this tilepipe."""
    text = (files("tilepipe.scripts") / name).read_text(encoding="utf-8")
    assert NO_COMMAND in text, name
    return text.replace(NO_COMMAND, f"COMMAND = {json.dumps(command())}")


def _install(text: str, path: Path) -> Path:
    """Write a script; the first line tells whether a file that is there already is an earlier copy."""
    first = text.splitlines()[0]
    if path.exists() and not path.read_text(encoding="utf-8", errors="replace").startswith(first):
        raise UsageError(f"{path} exists and is another script, so it is left as it is; rename it first")
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    write_durably(path, text)
    return path


def _profiles(profile: str | Path) -> list[Path]:
    """Return the folders of a profile. Raises `InputError` if there is none."""
    if Path(profile).is_dir():
        return [Path(profile)]
    roots = _roots()
    found = [root / profile for root in roots if (root / profile).is_dir()]
    if not found:
        there = sorted({one.name for root in roots if root.is_dir() for one in root.iterdir() if one.is_dir()})
        raise InputError(
            f"QGIS has no profile {str(profile)!r} in {' or '.join(map(str, roots))}{_names(there)}; start QGIS once, "
            "or name the folder of a profile, which QGIS opens from its menu Settings > User Profiles: "
            "tilepipe qgis install --profile FOLDER"
        )
    return found


def _names(there: Sequence[str]) -> str:
    return f" (there are: {', '.join(there)})" if there else ""


def _roots() -> list[Path]:
    """Return the folders in which versions 3 and 4 of QGIS keep the profiles of this user."""
    if own := os.environ.get("QGIS_CUSTOM_CONFIG_PATH"):
        return [Path(own) / "profiles"]
    if sys.platform == "win32":
        base = Path(os.environ.get("APPDATA", Path.home()))
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Application Support"
    else:
        base = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")
    return [base / "QGIS" / version / "profiles" for version in ("QGIS3", "QGIS4")]
