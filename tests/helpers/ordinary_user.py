"""Permissions that count: root may write anywhere, which no test of permissions would notice."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

VERSION_3 = 0x20080522


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Capabilities(ctypes.Structure):
    _fields_ = (("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32))


@contextmanager
def ordinary_user() -> Iterator[None]:
    """Let this thread, and those it starts, do what permissions allow to the owner of a file, and no more."""
    libc = ctypes.CDLL(None, use_errno=True)
    header, before = _Header(VERSION_3, 0), (_Capabilities * 2)()
    assert libc.capget(ctypes.byref(header), before) == 0
    none = (_Capabilities * 2)(*(_Capabilities(0, old.permitted, old.inheritable) for old in before))
    assert libc.capset(ctypes.byref(header), none) == 0
    try:
        yield
    finally:
        assert libc.capset(ctypes.byref(header), before) == 0
