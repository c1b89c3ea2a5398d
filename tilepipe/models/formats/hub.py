"""Models on the Hugging Face hub: `hf:owner/name@revision` is a folder of data files in the hub's own cache.

Only a commit names content that cannot change, so a branch or a tag is refused with the commit that it stands for. Only
files that are data are fetched: card, configuration, safetensors and ONNX. Files that are in the cache need no network.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from tilepipe.errors import ModelError
from tilepipe.models.formats.opaque import first_line, missing_extra

PREFIX = "hf:"
CARD = "model.json"
FILES = (CARD, "certificate.json", "config.json", "model.safetensors", "weights.safetensors", "weights.onnx")
"""Files of a repository that are fetched, if it has them."""
WEIGHTS = FILES[3:]
MAX_BYTES = 4 << 30
"""Largest file that is fetched, in bytes."""
_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*\Z", re.ASCII)
_COMMIT = re.compile(r"[0-9a-f]{40}\Z")


def names(name: str) -> bool:
    """Return whether a model's name is one on the hub."""
    return name.startswith(PREFIX)


def fetched(name: str) -> Path:
    """Return the folder that holds the files of `hf:owner/name@revision`.

    Raises `ModelError` if the name has no commit, if the hub cannot be reached and the files are not in its cache, or
    if the repository has no weights that are data.
    """
    repository, _, revision = name.removeprefix(PREFIX).partition("@")
    if not _NAME.match(repository) or (revision and not re.match(r"[\w][\w./-]*\Z", revision, re.ASCII)):
        raise ModelError(f"{name!r} is no model of the hub; write hf:owner/name@revision, where revision is a commit")
    try:
        import huggingface_hub as hub
    except ImportError as error:
        raise missing_extra("huggingface-hub", "hub", error) from None
    if not _COMMIT.match(revision):
        _refuse_unpinned(hub, repository, revision)
    found = {file: hub.try_to_load_from_cache(repository, file, revision=revision) for file in FILES}
    held = {file: Path(path) for file, path in found.items() if isinstance(path, str)}
    has_weights = any(file in held for file in WEIGHTS)
    if has_weights and CARD in held:
        return held[CARD].parent
    try:
        api = hub.HfApi()
        info = api.model_info(repository, revision=revision, files_metadata=True)
        sizes = {file.rfilename: file.size or 0 for file in info.siblings or ()}
        _check(name, sizes)
        paths = [Path(api.hf_hub_download(repository, file, revision=revision)) for file in FILES if file in sizes]
    except ModelError:
        raise
    except Exception as error:  # the hub's library has errors of several others
        if has_weights:  # the network is down, and what was fetched before is all that is needed
            return next(iter(held.values())).parent
        raise ModelError(
            f"{name} cannot be fetched ({first_line(error)}) and is not in the cache; fetch it where there is a "
            f"network: hf download {repository} --revision {revision}"
        ) from None
    return paths[0].parent


def _refuse_unpinned(hub: Any, repository: str, revision: str) -> None:
    """Raise `ModelError` that names the commit which a branch, a tag or no revision stands for, if the hub tells it."""
    what = f"{revision!r} is no commit, and what it names can change" if revision else "no revision is named"
    try:
        found = str(hub.HfApi().model_info(repository, revision=revision or None).sha)
    except Exception as error:  # the hub's library has errors of several others
        raise ModelError(
            f"{PREFIX}{repository}: {what}; write {PREFIX}{repository}@COMMIT with the 40 digits of a commit (the hub "
            f"did not tell the newest: {first_line(error)})"
        ) from None
    raise ModelError(f"{PREFIX}{repository}: {what}; to use what it is now, write {PREFIX}{repository}@{found}")


def _check(name: str, sizes: dict[str, int]) -> None:
    """Raise `ModelError` if a repository with files of these sizes has no weights that are data, or too large ones."""
    if not any(file in WEIGHTS for file in sizes):
        others = ", ".join(file for file in sizes if Path(file).suffix in (".bin", ".pt", ".pth", ".ckpt", ".pt2"))
        code = f"{others} can run code and is not fetched; " if others else ""
        raise ModelError(
            f"{name} has none of {', '.join(WEIGHTS)}; {code}download the repository yourself and name its folder"
        )
    for file, size in sizes.items():
        if file in FILES and size > MAX_BYTES:
            raise ModelError(f"{name}: {file} has {size} bytes, at most {MAX_BYTES} are fetched")
