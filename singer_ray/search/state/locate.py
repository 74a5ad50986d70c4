"""Finds the search at an address, and its folder on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from singer_ray.errors import UserError, printable
from singer_ray.layout import RECORD, TRIALS
from singer_ray.search.state.lock import refuse_driven
from singer_ray.search.state.store import STATE, fetch, is_same
from singer_ray.storage import Folder
from singer_ray.storage.address import Address

if TYPE_CHECKING:
    from singer_ray.config import Config


def bring_search(address: str, endpoint: str | None = None, out: Path | None = None) -> Path:
    """The local folder of the search at `address`; no other process on this machine drives it.

    A search in S3 is downloaded to OUT, by default runs/NAME; one in a folder is copied only if OUT is another folder.
    Raises UserError.
    """
    place = Address.of(address, "--resume")
    here = place.folder
    if here is None:
        folder = out or Path("runs") / place.name
    else:
        folder = out or Path(place.text)
        if not (here / RECORD).exists():
            raise UserError(
                f"There is no search in {printable(place.text)}: it has no {RECORD}. Give the --out of a search, or s3://..."
            )
        refuse_driven(here)
    refuse_driven(folder)
    if here is None or not is_same(here, folder):
        fetch(Folder(address, endpoint, setting="--resume"), folder)
    links = [name for name in STATE if (folder / name).is_symlink()]
    if links:
        raise UserError(f"{folder / links[0]} is a link: --resume would write through it. Put the file itself there.")
    return folder


def checkpoint_storage(address: str, folder: Path, config: Config) -> str | None:
    """Where the search at `address` keeps its checkpoints: STORAGE/NAME, which may have been moved; None for OUT."""
    place = Address.of(address, "--resume")
    here = place.folder
    if here is None:
        return place.text
    # With --storage the checkpoints are there. Without it the old OUT has them, and another OUT goes on with those.
    elsewhere, own = config.train.storage is not None, (here / TRIALS).is_dir()
    return str(here) if (own if elsewhere else not is_same(here, folder)) else None
