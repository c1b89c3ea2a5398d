"""Sphinx: Markdown pages, the furo theme, nothing fetched from the network."""

from importlib import metadata
from typing import Any

project = "tilepipe"
author = "The tilepipe authors"
copyright = "2026, The tilepipe authors"
release = metadata.version("tilepipe")
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
exclude_patterns = ["_build", "notebooks/output"]
nb_execution_mode = "off"  # the outputs that are stored are shown; the tests execute the notebooks
html_theme = "furo"
html_title = f"tilepipe {release}"
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented_params"
autodoc_default_options = {"exclude-members": "model_config"}
default_role = "code"

ATTRIBUTES: dict[str, list[str]] = {}


def setup(app: Any) -> None:
    """Keep what attributes say as it is: napoleon takes the words before a colon for a type."""
    app.connect("autodoc-process-docstring", before_napoleon, priority=400)
    app.connect("autodoc-process-docstring", after_napoleon, priority=600)


def before_napoleon(_app: Any, what: str, name: str, _obj: Any, _options: Any, lines: list[str]) -> None:
    """Remember the text of an attribute."""
    if what in ("attribute", "property"):
        ATTRIBUTES[name] = list(lines)


def after_napoleon(_app: Any, what: str, name: str, _obj: Any, _options: Any, lines: list[str]) -> None:
    """Put the text of an attribute back."""
    if what in ("attribute", "property"):
        lines[:] = ATTRIBUTES.pop(name)


# `planning/signature.py` adds this section to functions that take settings.
napoleon_custom_sections = [("Settings", "params_style")]
