"""Run by Airflow's own interpreter: its parser reads a folder, then its test mode runs some DAGs.

Usage: airflow_driver.py ANSWER FOLDER [DAG...]; ANSWER is a JSON file, as Airflow prints its logs.
"""

import json
import sys
from datetime import UTC, datetime
from pathlib import Path

from airflow.dag_processing.dagbag import DagBag

answer, folder, *wanted = sys.argv[1:]
bag = DagBag(folder)
told = {"errors": dict(bag.import_errors), "dags": {}, "runs": []}
for name, dag in bag.dags.items():
    told["dags"][name] = {
        "timetable": type(dag.timetable).__name__,
        "catchup": dag.catchup,
        "retries": {task.task_id: task.retries for task in dag.tasks},
    }
for name in wanted:
    run = bag.dags[name].test(logical_date=datetime(2026, 1, 2, tzinfo=UTC))
    (task,) = run.get_task_instances()
    told["runs"].append([name, str(run.state.value), task.try_number])
Path(answer).write_text(json.dumps(told))
