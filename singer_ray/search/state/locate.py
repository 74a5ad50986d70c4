"""From the address of a search to its folder on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from singer_ray.errors import UserError, printable
from singer_ray.search.state.description import RECORD
from singer_ray.search.state.lock import refuse_driven
from singer_ray.search.state.store import STATE, TRIALS, fetch, is_same
from singer_ray.storage import Folder
from singer_ray.storage.address import Address

if TYPE_CHECKING:
    from singer_ray.config import Config


def bring_search(address: str, endpoint: str | None = None, out: Path | None = None) -> Path:
    """The folder of the search at `address` on this machine, which nobody else on it drives.

    A search in S3 is brought to OUT, runs/NAME by default; one in a folder only where OUT is another. Raises UserError.
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
    """STORAGE/NAME where `address` is that of a search, which may have been moved since; None where it is its OUT."""
    place = Address.of(address, "--resume")
    here = place.folder
    if here is None:
        return place.text
    # With storage elsewhere the checkpoints are there; without, OUT has them and another folder shall go on with them.
    elsewhere, own = config.train.storage is not None, (here / TRIALS).is_dir()
    return str(here) if (own if elsewhere else not is_same(here, folder)) else None
