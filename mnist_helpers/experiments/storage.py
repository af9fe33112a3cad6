"""The database of a sweep: opened by its address or path, waited for while it restarts."""

import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import optuna
from sqlalchemy import URL, event
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import NullPool

from ..environment import runs_folder
from ..files import user_path

MAX_RETRIES = 3  # of a lost trial, of a failing query, and of workers that die in a row
PATIENCE = 60  # seconds that a database which does not answer is waited for; less than the usual grace


class SearchError(RuntimeError):
    """A study cannot begin or go on."""


class _Storage(optuna.storages.RDBStorage):
    """A database, one of whose heartbeats may be missed: the next one is sent all the same."""

    def record_heartbeat(self, trial_id: int) -> None:
        with suppress(optuna.exceptions.StorageInternalError, SearchError):
            super().record_heartbeat(trial_id)


def open_storage(storage: str | Path | None, grace: int, attempts: int) -> optuna.storages.RDBStorage:
    """Return the storage behind a database's address or an SQLite file's path; see `sweep`.

    Raises SearchError where it cannot be used after so many `attempts`.
    """
    if storage is None:
        runs_folder().mkdir(parents=True, exist_ok=True)
        storage = runs_folder() / "sweeps.db"
    url = str(storage)
    if "://" not in url:  # a path, in which ? and % mean themselves
        url = URL.create("sqlite", database=str(user_path(storage).absolute())).render_as_string()
    # No connection outlives its query, so none breaks when the server restarts
    engine: dict[str, Any] = {"poolclass": NullPool}
    if url.startswith("sqlite"):
        engine["connect_args"] = {"timeout": PATIENCE}  # for a lock
    for attempt in range(attempts):
        time.sleep(min(attempt / 10, 1))
        try:
            with no_experimental_warnings():
                opened = _Storage(
                    url,
                    engine,
                    heartbeat_interval=max(1, min(60, grace // 3)),
                    grace_period=grace,
                    heartbeat_stale_trial_callback=optuna.storages.RetryHeartbeatStaleTrialCallback(MAX_RETRIES),
                )
        except ImportError as error:
            raise SearchError(
                f"the database {shown(storage)} needs a driver that is not installed ({error.__cause__}); for "
                "PostgreSQL: python -m pip install 'psycopg[binary]'"
            ) from error
        except (SQLAlchemyError, ValueError) as error:
            fault = error
        else:
            event.listen(opened.engine, "do_connect", _patient_connection(shown(storage)))
            return opened
    reason = str(getattr(fault, "orig", fault)).splitlines()[0]
    raise SearchError(f"the database {shown(storage)} cannot be used: {reason}") from fault


def _patient_connection(name: str) -> Callable[..., Any]:
    """Return what connects to a database that has answered before, and waits for it while it restarts."""

    def connect(dialect: Any, record: Any, arguments: Any, options: Any) -> Any:
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                return dialect.connect(*arguments, **options)
            except dialect.loaded_dbapi.OperationalError as error:
                if time.monotonic() > deadline:
                    raise SearchError(
                        f"the database {name} has not answered for {PATIENCE} seconds: start the same sweep when it "
                        "works again, and it goes on"
                    ) from error
                time.sleep(1)

    return connect


def shown(storage: str | Path | None) -> str:
    """Return a storage's name without a password."""
    text = "sweeps.db" if storage is None else str(storage)
    if "://" not in text:
        return text
    head, at, tail = text.partition("?")[0].rpartition("@")
    return f"{head.partition('://')[0]}://...@{tail}" if at else tail


@contextmanager
def no_experimental_warnings() -> Iterator[None]:
    """Keep quiet that Optuna's heartbeats may change some day."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        yield
