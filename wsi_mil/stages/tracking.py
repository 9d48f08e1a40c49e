"""What a training run tells while it runs: a line of JSON an epoch and one at its end; MLflow where asked for."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wsi_mil import files
from wsi_mil.errors import StageError
from wsi_mil.stages import ledger

if TYPE_CHECKING:
    from wsi_mil.stages.stage import Item, Stage
    from wsi_mil.stages.work import Work

LOG = "log"
"""Folder beside the checkpoints of a model: log/seed-0-fold-0.jsonl. It is appended to, also when a run goes on."""


@dataclass
class Tracked:
    """One run, while it is told of."""

    path: Path
    about: dict[str, Any]
    """In every line: the run's name and the digest of its configuration."""
    mlflow: Mlflow | None
    begun: float = field(default_factory=time.monotonic)

    def telling(self, further: Callable[[int], None]) -> Callable[[dict[str, float]], None]:
        """What to call with the row of each epoch; `further` is told its number."""

        def tell(row: dict[str, float]) -> None:
            self.write("epoch", {**row, "epoch": int(row["epoch"])})
            if self.mlflow is not None:
                self.mlflow.metrics(row, step=int(row["epoch"]))
            further(int(row["epoch"]))

        return tell

    def write(self, event: str, told: Mapping[str, Any]) -> None:
        """Append a line; numbers that JSON does not know become null."""
        when = {"at": datetime.now(UTC).isoformat(timespec="seconds")}
        line = {"event": event, **self.about, **when, "seconds": round(time.monotonic() - self.begun, 3), **told}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({name: _plain(value) for name, value in line.items()}) + "\n")

    def ended(self, outcome: str, told: Mapping[str, Any]) -> None:
        """The last line of the run."""
        self.write("run", {"outcome": outcome, **told})
        if self.mlflow is not None:
            numbers = {name: value for name, value in told.items() if isinstance(value, (int, float))}
            self.mlflow.metrics({f"run_{name}": float(value) for name, value in numbers.items()}, step=0)
            self.mlflow.end(failed=outcome == "failed")


class Mlflow:
    """A run in an MLflow store, through its client: nothing global is set."""

    def __init__(self, uri: str, *, experiment: str, name: str, parameters: Mapping[str, Any]) -> None:
        """StageError where mlflow is not installed or the store cannot be used."""
        if uri.startswith("file:"):
            # Without it MLflow 3 refuses plain files, which need neither a server nor a database.
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
        try:
            from mlflow import MlflowClient
            from mlflow.exceptions import MlflowException
        except ImportError as error:
            raise StageError("runtime.tracker: mlflow needs the extra: pip install 'wsi_mil[mlflow]'") from error
        try:
            self._client = MlflowClient(tracking_uri=uri)
            found = self._client.get_experiment_by_name(experiment)
            number = found.experiment_id if found else self._client.create_experiment(experiment)
            self._run = self._client.create_run(number, run_name=name).info.run_id
            for key, value in parameters.items():
                self._client.log_param(self._run, key, str(value)[:500])
        except MlflowException as error:
            raise StageError(f"MLflow cannot keep runs at {uri} ({error}): set runtime.tracker_uri, or none") from error

    def metrics(self, told: Mapping[str, float], *, step: int) -> None:
        """Numbers of one epoch."""
        for name, value in told.items():
            self._client.log_metric(self._run, name, float(value), step=step)

    def end(self, *, failed: bool) -> None:
        """Close the run."""
        self._client.set_terminated(self._run, status="FAILED" if failed else "FINISHED")


@contextmanager
def tracked(stage: Stage, item: Item, work: Work) -> Iterator[Tracked]:
    """Tell of one run of a stage; one that ends by an error leaves a line with its reason."""
    digest = files.digest_json(ledger.chain(stage, work))
    folder, name = stage.folder(work), item.name.replace("/", "-")
    run = Tracked(folder / LOG / f"{name}.jsonl", {"run": item.name, "configuration": digest}, None)
    if work.study.runtime.tracker == "mlflow":
        uri = work.study.runtime.tracker_uri or (work.root / "mlruns").absolute().as_uri()
        sections = ("task", "extract", "split", "model", "train")
        told = {key: one for part in sections for key, one in _flat(part, ledger.chain(stage, work).get(part, {}))}
        run.mlflow = Mlflow(
            uri,
            experiment=work.root.absolute().name,
            name=f"{folder.name}/{item.name}",
            parameters={"configuration": digest, **told},
        )
    try:
        yield run
    except BaseException as error:
        run.ended("failed", {"why": " ".join(str(error).split()) or type(error).__name__})
        raise


def _flat(prefix: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from _flat(f"{prefix}.{key}", inner)
    else:
        yield prefix, value


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
