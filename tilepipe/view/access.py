"""Who may see the pages of a viewer: the browser of the user who started it, and nobody else.

The address that the browser is given carries a token. The first browser that brings it gets a cookie and with it every
page; the token is worth nothing to others then. A page of another site cannot reach the viewer: its requests have
another `Origin` or `Sec-Fetch-Site`, and a name of its own that leads here (DNS rebinding) is another `Host`. On Linux,
connections of other users of the machine are closed, since they can see the address among the running processes.
"""

from __future__ import annotations

import os
import secrets
import socket
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from hmac import compare_digest

HOST = "127.0.0.1"
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
"""Headers of every answer."""
PROC_TCP = "/proc/net/tcp"


@dataclass
class Access:
    """The secrets of one viewer, and the questions that it asks of a request."""

    port: int
    """Port that the viewer listens on."""
    token: str = field(default_factory=lambda: secrets.token_urlsafe(32))
    """Part of the address that the browser is given."""
    _cookie: str = field(default_factory=lambda: secrets.token_urlsafe(32))
    _used: bool = False

    @property
    def url(self) -> str:
        """Address that opens the viewer once."""
        return f"{self.origin}/open/{self.token}"

    @property
    def origin(self) -> str:
        """Scheme, host and port of the viewer."""
        return f"http://{HOST}:{self.port}"

    @property
    def cookie_name(self) -> str:
        """Name of the cookie. It holds the port: browsers send cookies to every port of a host."""
        return f"tilepipe_{self.port}"

    def refusal(self, headers: Mapping[str, str], cookie: str | None) -> str:
        """Return why a request for a page is refused; '' if it is not."""
        if said := self.foreign(headers):
            return said
        if headers.get("Sec-Fetch-Site", "same-origin") not in ("same-origin", "none"):
            return "the request comes from a page of another site"
        if not self.is_cookie(cookie):
            return "open the address that tilepipe view has printed"
        return ""

    def foreign(self, headers: Mapping[str, str]) -> str:
        """Return why a request is not for this viewer, or not from its own page; '' if it may be."""
        if headers.get("Host") != f"{HOST}:{self.port}":
            return f"the viewer is at {self.origin} and has no other name"
        if headers.get("Origin", self.origin) != self.origin:
            return "the request comes from a page of another site"
        return ""

    def exchange(self, token: str, cookie: str | None) -> str | None:
        """Return the cookie for the token; None if the token is wrong, or another browser has brought it before."""
        if not compare_digest(token.encode(), self.token.encode()) or (self._used and not self.is_cookie(cookie)):
            return None
        self._used = True
        return self._cookie

    def is_cookie(self, cookie: str | None) -> bool:
        """Return whether this is the cookie that `exchange` gives."""
        return cookie is not None and compare_digest(cookie.encode(), self._cookie.encode())


def is_of_another_user(peer: tuple[str, int], own: tuple[str, int], table: str = PROC_TCP) -> bool:
    """Return whether the other end of a connection inside this machine belongs to another user.

    Returns False if the system does not say it. `table` is Linux's table of connections.
    """
    with suppress(OSError, ValueError, IndexError):
        wanted = [_in_table(peer), _in_table(own)]
        with open(table, encoding="ascii") as lines:
            for line in lines:
                words = line.split()
                if words[1:3] == wanted:
                    # A forwarded connection, as of ssh -L, may belong to root; sudo hides who the user is.
                    return words[7] not in (str(os.getuid()), "0", os.environ.get("SUDO_UID"))
    return False


def _in_table(address: tuple[str, int]) -> str:
    number = int.from_bytes(socket.inet_aton(address[0]), sys.byteorder)
    return f"{number:08X}:{address[1]:04X}"
