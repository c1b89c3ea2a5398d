"""Sphinx: Markdown pages, the furo theme, nothing fetched from the network."""

from importlib import metadata

project = "tilepipe"
author = "The tilepipe authors"
copyright = "2026, The tilepipe authors"
release = metadata.version("tilepipe")
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"tilepipe {release}"
autodoc_member_order = "bysource"
autodoc_typehints = "description"
