"""How loader processes start: without running the script again, and with data sets that the script defines itself."""

from __future__ import annotations

import contextlib
import io
import multiprocessing.context
import pickle
import sys
import threading
from collections import ChainMap
from collections.abc import Iterator
from multiprocessing.popen_spawn_posix import Popen
from multiprocessing.process import BaseProcess
from multiprocessing.reduction import ForkingPickler
from typing import Any

from torch.utils.data import Dataset

_ONE_AT_A_TIME = threading.Lock()


class NotSendable(Exception):  # noqa: N818 (a reason to go another way)
    """A data set that no other process can be given."""


class _Process(multiprocessing.context.SpawnProcess):
    @staticmethod
    def _Popen(process_obj: BaseProcess) -> Popen:  # noqa: N802 (multiprocessing's name)
        with _script_hidden():
            return Popen(process_obj)


class LoaderContext(multiprocessing.context.SpawnContext):
    """Spawned processes that do not import the main module.

    multiprocessing does so to find what is pickled by name, which runs a script without a guard
    (`if __name__ == "__main__"`) once more in each process. `Portable` needs no names.
    """

    Process = _Process


class Portable(Dataset[Any]):
    """An object on its way into a loader process; there it arrives as itself.

    Classes and functions that a script or notebook defines, local ones too, travel by value; tensors in shared memory,
    as torch sends them. Raises NotSendable when it is pickled and cannot be.
    """

    def __init__(self, content: Any) -> None:
        self.content = content

    def __len__(self) -> int:
        return len(self.content)

    def __getitem__(self, key: Any) -> Any:
        return self.content[key]

    def __reduce__(self) -> tuple[Any, ...]:
        import cloudpickle

        buffer = io.BytesIO()
        pickler = cloudpickle.Pickler(buffer)
        shared = ForkingPickler(io.BytesIO()).dispatch_table
        pickler.dispatch_table = ChainMap(shared, pickler.dispatch_table)
        try:
            pickler.dump(self.content)
        except Exception as error:  # whatever the data set holds raises what it likes
            raise NotSendable(str(error) or type(error).__name__) from error
        return pickle.loads, (buffer.getvalue(),)


def why_not_sendable(content: Any) -> str | None:
    """Why no other process can be given an object; None for one that can be sent. Keeps no copy of it."""
    import cloudpickle

    try:
        cloudpickle.Pickler(_Nowhere(), protocol=5, buffer_callback=lambda buffer: None).dump(content)
    except Exception as error:  # whatever it holds raises what it likes
        return str(error) or type(error).__name__
    return None


class _Nowhere:
    def write(self, data: bytes) -> int:
        return len(data)


@contextlib.contextmanager
def _script_hidden() -> Iterator[None]:
    """Within, the main module has neither file nor name, as in an interactive session."""
    main = sys.modules["__main__"]
    names = ("__file__", "__spec__")
    with _ONE_AT_A_TIME:
        kept = {name: vars(main)[name] for name in names if name in vars(main)}
        try:
            vars(main).pop("__file__", None)
            main.__spec__ = None
            yield
        finally:
            vars(main).update(kept)
