"""Finds the URL that is asked for a file of an object store: obstore signs it with keys of the environment.

Signing asks no server. Without keys the URL is not signed, which is right for public buckets.
"""

from __future__ import annotations

import os
import time
from datetime import timedelta
from functools import lru_cache
from typing import Any

from tilepipe.errors import InputError, UsageError
from tilepipe.sources.address import HERE, Address

KEYS = {
    "s3": ("AWS_ACCESS_KEY_ID",),
    "gs": ("GOOGLE_SERVICE_ACCOUNT", "GOOGLE_SERVICE_ACCOUNT_KEY", "GOOGLE_APPLICATION_CREDENTIALS"),
    "az": ("AZURE_STORAGE_ACCOUNT_KEY",),
}
"""Variables of the environment that hold keys, or name the file that does."""
ENDPOINTS = {
    "s3": ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"),
    "gs": ("GOOGLE_BASE_URL",),
    "az": ("AZURE_ENDPOINT_URL",),
}
"""Variables that name a server in place of the usual one."""
VALID_FOR = timedelta(hours=1)
"""Time for which a signed URL is valid."""
SIGNED_AGAIN = 600
"""Time after which a URL is signed again [seconds]."""


def url_of(address: Address) -> str:
    """Return the URL of a file. Raises `UsageError` if obstore is needed and not installed, or keys are no keys."""
    if address.scheme in ("https", "http"):
        query = f"?{address.query}" if address.query else ""
        return f"{address.scheme}://{address.place}/{address.encoded}{query}"
    if _first(KEYS[address.scheme]):
        return _signed(address, int(time.monotonic() // SIGNED_AGAIN), tuple(_settings()))
    sas = os.environ.get("AZURE_STORAGE_SAS_TOKEN", "").lstrip("?") if address.scheme == "az" else ""
    return f"{_base(address)}/{address.encoded}" + (f"?{sas}" if sas else "")


def credentials_hint(address: Address) -> str:
    """Return what to do if a server lets nobody read a file."""
    if address.scheme not in KEYS:
        return "the address needs a signature, or the file is not public"
    named = " or ".join(KEYS[address.scheme])
    if _first(KEYS[address.scheme]):
        return f"check the keys in the environment ({named}) and their rights"
    return f"it is asked for without keys; if it is not public, set {named} in the environment, see docs/inputs.md"


def _first(names: tuple[str, ...]) -> str:
    """Return the value of the first variable that is set; '' if none is."""
    return next((os.environ[name] for name in names if os.environ.get(name)), "")


def _settings() -> list[tuple[str, str]]:
    return sorted((k, v) for k, v in os.environ.items() if k.startswith(("AWS_", "GOOGLE_", "AZURE_")))


def _endpoint(address: Address) -> str:
    """Return the server that a variable names; '' if none does. Raises `UsageError` if it is not encrypted."""
    named = _first(ENDPOINTS[address.scheme]).rstrip("/")
    here = named.removeprefix("http://").rsplit(":", 1)[0] in HERE
    if named and not (named.startswith("https://") or (named.startswith("http://") and here)):
        raise UsageError(f"{' or '.join(ENDPOINTS[address.scheme])} must begin with https://, or be this machine")
    return named


def _region() -> str:
    return _first(("AWS_REGION", "AWS_DEFAULT_REGION")) or "us-east-1"


def _base(address: Address) -> str:
    """Return the URL of a bucket or a container."""
    endpoint = _endpoint(address)
    if address.scheme == "az":
        account = _account()
        return f"{endpoint or f'https://{account}.blob.core.windows.net'}/{address.place}"
    if address.scheme == "gs":
        return f"{endpoint or 'https://storage.googleapis.com'}/{address.place}"
    if endpoint or "." in address.place:  # a certificate fits no name with dots in it
        return f"{endpoint or f'https://s3.{_region()}.amazonaws.com'}/{address.place}"
    return f"https://{address.place}.s3.{_region()}.amazonaws.com"


def _account() -> str:
    account = os.environ.get("AZURE_STORAGE_ACCOUNT_NAME", "")
    if not account.isalnum():
        raise UsageError("az:// needs the name of the account in the environment: AZURE_STORAGE_ACCOUNT_NAME")
    return account


@lru_cache(maxsize=1 << 12)
def _signed(address: Address, _moment: int, _environment: tuple[tuple[str, str], ...]) -> str:
    try:
        import obstore
    except ImportError:
        raise UsageError(
            f"{address} is signed with obstore, which is not installed; run: pip install 'tilepipe[remote]'"
        ) from None
    try:
        return str(obstore.sign(_store(address), "GET", address.key, VALID_FOR))
    except Exception as error:  # its errors have no common class, and their texts may hold keys
        raise InputError(
            f"{address} cannot be signed with the keys of the environment ({type(error).__name__}); check "
            f"{' or '.join(KEYS[address.scheme])}"
        ) from None


def _store(address: Address) -> Any:
    from obstore.store import AzureStore, GCSStore, S3Store

    endpoint = _endpoint(address)
    # Only signatures are made with it, so no request is sent, also none that is not encrypted.
    options: dict[str, Any] = {"client_options": {"allow_http": True}}
    if endpoint and address.scheme != "gs":
        options["endpoint"] = endpoint
    if address.scheme == "az":
        key = os.environ["AZURE_STORAGE_ACCOUNT_KEY"]
        return AzureStore(address.place, account_name=_account(), account_key=key, **options)
    if address.scheme == "gs":
        return GCSStore(address.place, **options)
    virtual = not endpoint and "." not in address.place
    return S3Store(address.place, region=_region(), virtual_hosted_style_request=virtual, **options)
