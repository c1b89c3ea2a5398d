"""A Prefect flow that runs a batch every night. It needs a running server: `prefect server start`."""

from __future__ import annotations

import subprocess

from prefect import flow, task

BUSY, SOME_FAILED = 75, 3


@task(retries=2, retry_delay_seconds=600)
def batch(jobs: str) -> int:
    """Run a jobs file; return its exit code. Raises `RuntimeError` if the batch itself failed."""
    code = subprocess.run(["tilepipe", "batch", "run", jobs, "--progress", "plain"], check=False).returncode
    if code not in (0, BUSY, SOME_FAILED):
        raise RuntimeError(f"tilepipe ended with exit code {code}")
    return code


@flow
def forest(jobs: str = "/data/batch_forest.yaml") -> int:
    """Run the batch of the forest maps."""
    return int(batch(jobs))


if __name__ == "__main__":
    forest.serve(name="every-night", cron="15 2 * * *")
