"""A product that is written in a process whose files may not grow beyond a limit, as on a full disk."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

WRITE = """
import resource, signal, sys
from importlib import import_module
from pathlib import Path
import numpy as np
from tilepipe.errors import StorageError
from tilepipe.products.label_map import Legend, label_map_of
module, name, path, *limits = sys.argv[1:]
write = getattr(import_module(module), name)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
legend = Legend("noise", tuple("abc"), ((1, 1, 1), (2, 2, 2), (3, 3, 3)), 255)
labels = label_map_of(np.random.default_rng(0).integers(0, 3, (1024, 1024), dtype=np.uint8), legend)
for limit in map(int, limits):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    try:
        write(labels, Path(path))
    except StorageError as error:
        print(limit, error)
    else:
        sys.exit(f"{limit} was not noticed")
"""


def check_full_disk(writer: str, path: Path, limits: list[int]) -> None:
    """Check that `writer` ("module:function") notices each limit (bytes), and leaves nothing beside `path`."""
    command = [sys.executable, "-c", WRITE, *writer.split(":"), str(path), *map(str, limits)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == len(limits)
    assert not list(path.parent.iterdir())
