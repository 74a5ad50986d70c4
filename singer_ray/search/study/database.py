"""Databases that hold studies: created, continued, or opened read-only."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any, Literal

import sqlalchemy
from optuna.storages import RDBStorage

Access = Literal["create", "write", "read"]
"""What may happen to the place of a study: tables are created, rows are written, or nothing changes."""
_READ_ONLY = {
    "postgresql": "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
    "mysql": "SET SESSION TRANSACTION READ ONLY",
    "mariadb": "SET SESSION TRANSACTION READ ONLY",
}


def database(address: str, access: Access) -> RDBStorage:
    """The studies in the database at `address`.

    Only "create" makes tables; "read" opens a read-only connection. Raises whatever Optuna, SQLAlchemy or the driver
    raise.
    """
    if access == "create":
        return RDBStorage(address)
    url = sqlalchemy.engine.make_url(address)
    options: dict[str, Any] = {}
    kind = url.get_backend_name()
    if kind == "sqlite" and url.database:
        path = Path(url.database)
        if not path.is_file():  # sqlite would make it
            raise FileNotFoundError(f"there is no file {path}")
        mode = "ro" if access == "read" else "rw"
        options["creator"] = lambda: sqlite3.connect(
            f"{path.absolute().as_uri()}?mode={mode}", uri=True, check_same_thread=False
        )
    elif access == "read" and kind in _READ_ONLY:
        options["pool_events"] = [(_reader(_READ_ONLY[kind]), "connect")]
    return RDBStorage(address, engine_kwargs=options, skip_table_creation=True)


def _reader(statement: str) -> Any:
    """A hook that makes new connections read-only."""

    def begin(connection: Any, record: Any) -> None:
        cursor = connection.cursor()
        cursor.execute(statement)
        cursor.close()
        connection.commit()

    return begin
