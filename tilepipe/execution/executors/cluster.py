"""This module starts Dask clusters, connects to running ones, and keeps one cluster over the images of a batch.

Nothing listens on the network: a cluster that is started here is for this machine's own processes.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from contextvars import copy_context
from urllib.parse import urlsplit

import distributed.core
from distributed import Client, LocalCluster

from tilepipe.errors import UsageError
from tilepipe.execution.executors.spawned import deaf_to_ctrl_c, main_hidden, own_environment
from tilepipe.inference.device import Compute

CONNECT = "30s"
"""Longest time that a scheduler may take for its first answer."""


class _Clusters:
    """Clusters that are kept while a batch runs, by number of processes."""

    def __init__(self) -> None:
        self.users = 0
        self.found: dict[int, _Started] = {}
        self.lock = threading.Lock()

    def client(self, workers: int) -> Client:
        """Return the client of a kept cluster, which is started if there is none."""
        with self.lock:
            if workers not in self.found:
                self.found[workers] = _Started(workers)
            return self.found[workers].client

    def drop(self, client: Client | None = None) -> None:
        """Close the cluster of a client, or all clusters."""
        with self.lock:
            for key, one in list(self.found.items()):
                if client is None or one.client is client:
                    del self.found[key]
                    one.close()


class _Started:
    """A cluster that one thread may start and another one close."""

    def __init__(self, workers: int) -> None:
        # Dask keeps the current client in a context variable, which can be reset only in the context that has set it.
        self._context = copy_context()
        self._stack = ExitStack()
        self.client: Client = self._context.run(self._stack.enter_context, _own_cluster(workers))

    def close(self) -> None:
        """Close client and cluster."""
        self._context.run(self._stack.close)


_KEPT = _Clusters()


@contextmanager
def cluster_kept() -> Iterator[None]:
    """Keep the cluster of one run for the next runs, until the block ends; without this each run starts its own."""
    _KEPT.users += 1
    try:
        yield
    finally:
        _KEPT.users -= 1
        if not _KEPT.users:
            _KEPT.drop()


def is_kept() -> bool:
    """Return whether a cluster outlives the run that uses it."""
    return _KEPT.users > 0


@contextmanager
def connected(compute: Compute, scheduler: str | None) -> Iterator[Client]:
    """Connect to a running scheduler, or to a cluster that is started here; yield the client. Raises `UsageError`."""
    if scheduler is not None:
        _refuse_open_network(scheduler)
        try:
            client = Client(scheduler, timeout=CONNECT, set_as_default=False)
        except (OSError, TimeoutError) as error:
            raise UsageError(
                f"no Dask scheduler answers at {scheduler} ({error}); start one or leave out `scheduler`"
            ) from None
        with client:
            yield client
    elif is_kept():
        client = _KEPT.client(compute.workers)
        try:
            yield client
        except BaseException:
            # After an error nobody knows what still runs there, and the next run starts afresh.
            _KEPT.drop(client)
            raise
    else:
        with _own_cluster(compute.workers) as client:
            yield client


@contextmanager
def _own_cluster(workers: int) -> Iterator[Client]:
    """Start a cluster of worker processes; yield its client, which is not the caller's default."""
    # Dask's own memory limit would pause or kill workers at a share of the machine's memory, in the middle of a block
    # that the memory promise allows.
    loopback = {"dashboard_address": "127.0.0.1:0", "worker_dashboard_address": "127.0.0.1:0", "memory_limit": None}
    options = {"n_workers": workers, "threads_per_worker": 1, "host": "127.0.0.1"}
    try:
        with (
            main_hidden(),
            own_environment(),
            _local_cluster({**options, **loopback}) as cluster,
            Client(cluster, set_as_default=False) as client,
        ):
            yield client
    finally:
        _forget_cluster()


def _local_cluster(options: Mapping[str, object]) -> LocalCluster:
    """Start a cluster, however slow the disk is. If warnings are errors, a slow disk's warning would end the run."""
    with warnings.catch_warnings(), deaf_to_ctrl_c():
        warnings.filterwarnings("ignore", "Creating scratch directories")
        return LocalCluster(**options, silence_logs=logging.CRITICAL)


def _forget_cluster() -> None:
    """Remove the references that distributed keeps for ever to each scheduler and worker of a closed cluster.

    Python's import caches for their folders are removed too, since the folders are gone.
    """
    for folder in [name for name in sys.path_importer_cache if not os.path.exists(name)]:
        sys.path_importer_cache.pop(folder, None)
    cache = getattr(distributed.core, "_expects_comm", None)
    if clear := getattr(cache, "cache_clear", None):  # it is not documented: if it is gone, nothing is to be cleared
        clear()


def _refuse_open_network(scheduler: str) -> None:
    """Refuse a scheduler that others on the network can reach: Dask runs any code it is sent."""
    parts = urlsplit(scheduler if "://" in scheduler else f"tcp://{scheduler}")
    # An address within this process is that of a client which the caller has made.
    if parts.scheme not in ("tls", "inproc") and parts.hostname not in ("127.0.0.1", "localhost", "::1"):
        raise UsageError(f"scheduler {scheduler} is neither on this machine nor encrypted; use a tls:// address")
