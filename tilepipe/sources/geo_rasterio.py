"""rasterio, imported without boto3 in a process that tilepipe has started to label images.

rasterio imports boto3 if it is installed, which takes 0.2 s, for sessions that sign requests to servers. tilepipe opens
no such session: it reads images on servers by itself (`remote_file`).
"""

import sys

from tilepipe.supervisor import owns_process

if owns_process() and not {"boto3", "rasterio"} & sys.modules.keys():
    # With None in its place, Python says that a module is not there. It is there again for whoever wants it later.
    sys.modules["boto3"] = None  # type: ignore[assignment]
    try:
        import rasterio
    finally:
        del sys.modules["boto3"]
else:
    import rasterio

__all__ = ["rasterio"]
