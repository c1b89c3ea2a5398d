"""An Airflow DAG that runs a batch every night: one task, since tilepipe itself knows which images are done."""

from __future__ import annotations

import datetime

from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG

with DAG(
    dag_id="tilepipe_forest",
    schedule="15 2 * * *",
    start_date=datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC),
    catchup=False,
    max_active_runs=1,
    default_args={"retries": 2, "retry_delay": datetime.timedelta(minutes=10)},
):
    # Exit code 75 means that another batch is at work: the task is skipped and not failed.
    BashOperator(
        task_id="batch",
        bash_command="tilepipe batch run /data/batch_forest.yaml --progress plain",
        skip_on_exit_code=75,
    )
