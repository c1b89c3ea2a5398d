"""Runs a module in a network of its own that has the loopback alone; ends with 99 if anything connects elsewhere.

unshare -rn python tests/helpers/without_network.py pytest -q tests/sources
"""

from __future__ import annotations

import fcntl
import os
import runpy
import socket
import struct
import sys

SIOCSIFFLAGS, UP = 0x8914, 0x1
LOOPBACK = ("127.", "::1", "localhost")
CONNECTED_ELSEWHERE = 99


def raise_loopback() -> None:
    """Bring up the loopback, which a new network has, but down."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sH", b"lo", UP) + b"\0" * 22)


def refuse(event: str, arguments: tuple[object, ...]) -> None:
    """End the process if it connects to another machine, or asks for the address of one."""
    if event in ("socket.connect", "socket.sendto"):
        # A connection over UDP sends nothing: Dask asks in that way which address this machine has.
        if event == "socket.connect" and getattr(arguments[0], "type", None) == socket.SOCK_DGRAM:
            return
        address = arguments[1]
        host = str(address[0]) if isinstance(address, tuple) else "127."  # others are sockets of this machine
    elif event == "socket.getaddrinfo":
        host = str(arguments[0] or "127.")
    else:
        return
    if not host.startswith(LOOPBACK):
        os.write(2, f"connects to {host}\n".encode())
        os._exit(CONNECTED_ELSEWHERE)


if __name__ == "__main__":
    raise_loopback()
    sys.addaudithook(refuse)
    sys.argv = sys.argv[1:]
    sys.path.insert(0, "")
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
