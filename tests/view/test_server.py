"""The server answers its own page in the user's own browser, and nothing else."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from helpers.viewers import Client, viewing

from tilepipe.view.access import is_of_another_user
from tilepipe.view.viewer import view

PAGES = ("/", "/viewer.js", "/leaflet.js", "/about", "/state", "/tiles/image/0/0/0", "/at/0/0")


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with viewing(np.arange(600 * 700, dtype=np.uint32).astype(np.uint8).reshape(600, 700)) as client:
        yield client


@pytest.mark.parametrize("path", PAGES)
def test_pages_are_for_the_browser_that_has_brought_the_token(client: Client, path: str) -> None:
    assert client.ask(path)[0] == 200
    assert Client(client.viewer).ask(path)[0] == 403
    assert Client(client.viewer, client.cookie[:-1] + "x").ask(path)[0] == 403
    assert Client(client.viewer, "tilepipe_1=" + client.cookie.partition("=")[2]).ask(path)[0] == 403


def test_the_token_is_worth_nothing_to_a_second_browser(client: Client) -> None:
    path = "/" + client.viewer.url.split("/", 3)[3]
    assert Client(client.viewer).ask(path)[0] == 403
    assert client.ask(path)[0] == 200  # the same browser may open it again
    assert client.ask(path[:-1] + ("a" if path[-1] != "a" else "b"))[0] == 403


def test_the_cookie_is_for_this_server_s_own_pages_only() -> None:
    with view(np.zeros((5, 5), np.uint8), browser=False) as viewer:
        status, body, headers = Client(viewer).ask("/" + viewer.url.split("/", 3)[3], Sec_Fetch_Site="cross-site")
        assert status == 200
        assert {"HttpOnly", "SameSite=Strict", "Path=/"} <= set(headers["set-cookie"].split("; "))
        assert "location" not in headers  # a redirect from another site would come without the cookie
        assert viewer.url.rpartition("/")[2].encode() not in body


@pytest.mark.parametrize("path", ["/", "/about", "/open/x", "/tiles/image/0/0/0"])
@pytest.mark.parametrize("host", ["evil.example", "localhost", "127.0.0.1", "127.0.0.1:1", "", "[::1]"])
def test_another_name_of_this_machine_is_refused(client: Client, path: str, host: str) -> None:
    status, body, headers = client.ask(path, Host=host)
    assert status in (400, 403)
    assert len(body) < 200
    assert "set-cookie" not in headers


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "https://127.0.0.1", "http://localhost"])
def test_pages_of_other_sites_are_refused(client: Client, origin: str) -> None:
    for path in ("/about", "/tiles/image/0/0/0"):
        assert client.ask(path, Origin=origin)[0] == 403
        assert client.ask(path, Sec_Fetch_Site="cross-site")[0] == 403
        assert client.ask(path, Sec_Fetch_Site="same-site")[0] == 403
        assert client.ask(path, Origin=f"http://{client.host}", Sec_Fetch_Site="same-origin")[0] == 200


@pytest.mark.parametrize(
    "method", ["POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", "TRACE", "CONNECT", "NONSENSE"]
)
def test_nothing_but_get_is_answered(client: Client, method: str) -> None:
    for path in ("/", "/about", "/tiles/image/0/0/0"):
        assert client.ask(path, method)[0] in (400, 405)


@pytest.mark.parametrize(
    "path",
    [
        "/../viewer.py", "/..%2fviewer.py", "/%2e%2e/viewer.py", "/page/viewer.js", "//etc/passwd", "/etc/passwd",
        "/x.js",
        "/tiles/image/0/0/0/../../x", "/tiles/image/0/-1/0", "/tiles/image/0/0/1e9", "/tiles/..%2f/0/0/0",
        "/viewer.js%00",        "/tiles/Image/0/0/0", "/at/-1/0", "/at/0/0/0",
        "/about/", "/open/", "/open/a/b", "/viewer.JS", "/.html",
        "/tiles/image/100/0/0", "/tiles/image/0/9999999999/0",
    ],
)  # fmt: skip
def test_no_other_path_leads_anywhere(client: Client, path: str) -> None:
    status, body, _ = client.ask(path)
    assert (status, body) == (404, b"there is no such page")


@pytest.mark.parametrize("path", ["/tiles/image/0/2/0", "/tiles/image/9/0/0", "/tiles/image/0/999999999/999999999"])
def test_tiles_beyond_the_image_are_empty(client: Client, path: str) -> None:
    assert client.ask(path)[:2] == (204, b"")


def test_layers_that_are_not_shown_are_empty(client: Client) -> None:
    assert client.ask("/tiles/labels/0/0/0")[0] == 204


def test_every_answer_tells_the_browser_to_keep_to_itself(client: Client) -> None:
    for path in (*PAGES, "/nowhere", "/tiles/image/9/0/0"):
        for asker in (client, Client(client.viewer)):
            headers = asker.ask(path)[2]
            assert headers["content-security-policy"].startswith("default-src 'none'; script-src 'self'; ")
            assert headers["x-content-type-options"] == "nosniff"
            assert headers["cache-control"] == "no-store"
            assert headers["cross-origin-resource-policy"] == "same-origin"
            assert "server" not in headers


def test_it_listens_on_loopback_alone_and_until_it_is_closed() -> None:
    with view(np.zeros((5, 5), np.uint8), browser=False) as viewer:
        address = viewer.url.split("/")[2]
        host, port = address.split(":")
        assert host == "127.0.0.1"
        with pytest.raises(OSError, match=r"refused|timed out|unreachable"):
            socket.create_connection(("127.0.0.2", int(port)), timeout=2).close()
    with pytest.raises(OSError, match="refused"):
        socket.create_connection((host, int(port)), timeout=2).close()


def test_a_body_is_refused(client: Client) -> None:
    assert client.ask("/about", Content_Length="5")[0] == 400


def test_connections_of_other_users_are_told_by_the_system_s_table(tmp_path: Path) -> None:
    table = f"{tmp_path}/tcp"
    row = "  sl  local_address rem_address st\n   0: 0100007F:C001 0100007F:1F90 01 0:0 00:0 0 {} 0 1 1\n"
    for uid, foreign in ((4242, True), (0, False)):
        with open(table, "w", encoding="ascii") as file:
            file.write(row.format(uid))
        assert is_of_another_user(("127.0.0.1", 0xC001), ("127.0.0.1", 0x1F90), table) == foreign
    assert not is_of_another_user(("127.0.0.1", 1), ("127.0.0.1", 0x1F90), table)
    assert not is_of_another_user(("127.0.0.1", 0xC001), ("127.0.0.1", 0x1F90), table + "2")
