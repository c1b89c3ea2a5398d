"""Pages are made from templates; they are one file, which may load nothing and run no script but its own."""

from __future__ import annotations

from base64 import b64encode
from functools import partial
from hashlib import sha256
from importlib.resources import files
from io import BytesIO

from PIL import Image

from tilepipe.products.picture_page import Colours
from tilepipe.text import clean

STYLE, SCRIPT = "style.css", "page.js"


def render(template: str, room: str = __package__, own_style: str = "", **values: object) -> str:
    """Return the page of a template in the folder of the package `room`; see `fragment` for its values.

    The policy in the page names its style and its script by their hashes, so a browser runs nothing else, and asks no
    other file or machine for anything. All pages have one style; `own_style` is what a page adds to it.
    """
    style, script = _packaged(STYLE) + own_style, _packaged(SCRIPT)
    policy = (
        f"default-src 'none'; img-src data:; style-src '{_hash(style)}'; script-src '{_hash(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    return fragment(template, room, policy=policy, style=style, script=script, **values)


def fragment(template: str, room: str = __package__, **values: object) -> str:
    """Return the HTML of a template in the folder of the package `room`.

    Every value is text of others until it is escaped, which happens to all of them; characters that HTML may not hold
    become visible.
    """
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    def cleaned(value: object) -> object:
        return value if hasattr(value, "__html__") else clean(value)  # HTML that a template made is clean

    pages = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        finalize=cleaned,
        loader=FunctionLoader(partial(_packaged, room=room)),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return pages.get_template(template).render(**values) + "\n"


def data_uri(content: bytes, kind: str) -> str:
    """Return a picture's bytes as the text that stands in a page in place of its address."""
    return f"data:{kind};base64,{b64encode(content).decode()}"


def png_uri(pixels: Colours) -> str:
    """Return pixels (height, width, 3 or 4) as a PNG inside a page."""
    held = BytesIO()
    Image.fromarray(pixels).save(held, "PNG", compress_level=6)
    return data_uri(held.getvalue(), "image/png")


def jpeg_uri(pixels: Colours, quality: int) -> str:
    """Return pixels (height, width, 3) as a JPEG inside a page."""
    held = BytesIO()
    Image.fromarray(pixels).save(held, "JPEG", quality=quality)
    return data_uri(held.getvalue(), "image/jpeg")


def _packaged(name: str, room: str = __package__) -> str:
    return (files(room) / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return f"sha256-{b64encode(sha256(text.encode()).digest()).decode()}"
