"""The leaderboard that an export reads: checked, since its ids become folder names, and cleaned for publishing."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from typing import Any

import pandas as pd

from singer_ray.errors import UserError, printable
from singer_ray.storage import without_credentials

_TRIAL = re.compile(r"[0-9]{1,12}(-seed[0-9]{1,12})?")
"""Trial ids as searches write them, those of repeats too."""


def read_table(content: bytes, where: str, columns: Sequence[str] = ("rank", "id", "state")) -> pd.DataFrame:
    """Reads a leaderboard that has at least these columns.

    Raises UserError for anything else, and for trial ids that no search assigns, since they become folder names.
    """
    advice = "Restore it; --resume writes it anew."
    try:
        table = pd.read_parquet(io.BytesIO(content))
    except Exception as error:  # pyarrow has many
        raise UserError(f"{where} is damaged ({type(error).__name__}). {advice}") from error
    missing = [name for name in columns if name not in table.columns]
    if missing:
        raise UserError(f"{where} has no column {missing[0]!r}: it is not of singer_ray.tune. {advice}")
    odd = [trial for trial in table["id"] if not isinstance(trial, str) or not _TRIAL.fullmatch(trial)]
    if odd:
        raise UserError(
            f"{where} has a trial {printable(odd[0], 60)!r}. Allowed: numbers, such as 007 or 007-seed1. Do not use "
            f"this table. {advice}"
        )
    if not pd.api.types.is_integer_dtype(table["rank"]) or not (table["rank"] > 0).all():
        raise UserError(f"{where} has ranks that are no numbers from 1. {advice}")
    return table


def trial_in(package: str) -> str | None:
    """The trial's id in the name of its package, RANK-TRIAL; None in other names."""
    rank, _, trial = package.partition("-")
    return trial if rank.isascii() and rank.isdigit() and _TRIAL.fullmatch(trial) else None


def cleaned(name: str, content: bytes) -> bytes:
    """A file's content as it may be published: without the credentials in addresses."""
    if name.endswith(".parquet"):
        table, cleaned = read_table(content, name), io.BytesIO()
        texts = table.select_dtypes(include=["object", "string"])
        for column in texts:
            table[column] = table[column].map(without_credentials, na_action="ignore").astype(table[column].dtype)
        table.to_parquet(cleaned, index=False)
        return cleaned.getvalue()
    text = content.decode("utf-8", "surrogateescape")
    if name.endswith(".html"):  # its scripts hold no secrets and must not be changed
        parts = re.split(r"(<script>.*?</script>)", text, flags=re.DOTALL)
        text = "".join(part if n % 2 else without_credentials(part) for n, part in enumerate(parts))
    else:
        text = without_credentials(text)
    return text.encode("utf-8", "surrogateescape")


def plain(value: Any) -> Any:
    """A table's cell as a plain Python value; None for a missing one."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, list):
        return value
    return None if value is None or pd.isna(value) else value
