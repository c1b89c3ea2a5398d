"""What a page of HTML holds, as a browser's parser sees it: for tests of pages that may load nothing."""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Any

VOID = {"meta", "link", "img", "input", "br", "hr"}


@dataclass
class Seen(HTMLParser):
    """Elements, texts and inline parts of a page."""

    elements: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    inline: dict[str, list[str]] = field(default_factory=dict)
    open: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: Any) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in ("script", "style"):
            self.inline.setdefault(self.open[-1], []).append(data)
        else:
            self.texts.append(data)

    @property
    def text(self) -> str:
        """All text that is shown, on one line."""
        return " ".join(" ".join(self.texts).split())

    def every(self, tag: str) -> list[dict[str, str]]:
        """Attributes of every element of a kind."""
        return [found for name, found in self.elements if name == tag]


def seen(text: str) -> Seen:
    """Return what a page holds; every element must be closed where it was opened."""
    found = Seen()
    found.feed(text)
    found.close()
    assert found.open == []
    return found


def check_self_contained(text: str) -> Seen:
    """Assert that a page can load nothing and runs nothing but the one script and style that its policy names."""
    found = seen(text)
    policy = next(one["content"] for one in found.every("meta") if one.get("http-equiv") == "Content-Security-Policy")
    parts = dict(part.strip().split(" ", 1) for part in policy.split(";"))
    assert parts["default-src"] == "'none'"
    assert parts["img-src"] == "data:"
    for kind in ("script", "style"):
        (inline,) = found.inline[kind]
        assert parts[f"{kind}-src"] == f"'sha256-{base64.b64encode(hashlib.sha256(inline.encode()).digest()).decode()}'"
    assert set(parts) == {"default-src", "img-src", "script-src", "style-src", "base-uri", "form-action"}
    for tag, attributes in found.elements:
        assert not [name for name in attributes if name.startswith("on") or name in ("style", "srcset", "action")], tag
        assert attributes.get("src", "data:").startswith("data:")
        if tag == "a":
            assert not re.match(r"[a-z]+:|//", attributes["href"]), "a link leads beside the page"
        elif tag == "link":
            assert attributes["href"] == "data:,"
    assert "url(" not in found.inline["style"][0]
    assert not re.search(r"https?://|fetch\(|XMLHttp|import\(", "".join(found.inline["script"] + found.inline["style"]))
    return found


def picture(uri: str) -> bytes:
    """Return the bytes of a data: URI."""
    return base64.b64decode(uri.partition(";base64,")[2])
