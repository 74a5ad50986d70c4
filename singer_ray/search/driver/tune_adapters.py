"""What Ray Tune needs of us: a searcher, a scheduler, a stopper and a callback, all of which ask the AskTell."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ray import cloudpickle
from ray.tune import Callback, Stopper
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from singer_ray.errors import printable
from singer_ray.search.study.schema import FAULT, REMARK, UNSAVED
from singer_ray.search.workers.errors import DIED, in_words

if TYPE_CHECKING:
    from ray.tune.execution.tune_controller import TuneController
    from ray.tune.experiment import Trial

    from singer_ray.search.driver.ask_tell import AskTell


Returned = TypeVar("Returned")


class Failure:
    """The first error of the search's own bookkeeping: a full disk, a store or database that is away.

    It ends the session and leaves the rows as they are, for a resume. Tune would blame the trial for it, or turn it
    into text.
    """

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.of_trials: dict[str, str] = {}
        """Tune's trial id -> why its last incarnation died, in words."""

    def guard(self, call: Callable[[], Returned], otherwise: Returned) -> Returned:
        """What `call` returns; `otherwise` when it fails, or something has failed before."""
        if self.error is None:
            try:
                return call()
            except Exception as error:
                self.error = error
        return otherwise


class StudySearcher(Searcher):
    """Suggests what AskTell assigns: `{"number", "label", "parameters", "overrides"}`. Tells it every end.

    Args:
        most: gives how many trials may live at a time just now. Tune itself takes one number for the whole search.
    """

    def __init__(self, ask_tell: AskTell, failure: Failure, most: Callable[[], int] = lambda: sys.maxsize) -> None:
        super().__init__()
        self.ask_tell, self.failure, self.most = ask_tell, failure, most
        self.live: set[str] = set()
        self.numbers: dict[str, int] = {}
        """Tune's trial id -> row of the study."""

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        if self.live and len(self.live) >= self.most():
            return None  # ask again
        assignment = self.failure.guard(lambda: self.ask_tell.ask(trial_id), None)
        if assignment is None:
            return Searcher.FINISHED  # type: ignore[return-value]
        self.numbers[trial_id] = assignment.number
        self.live.add(trial_id)
        return {
            "number": assignment.number,
            "label": assignment.label,
            "parameters": assignment.parameters,
            "overrides": assignment.overrides,
        }

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Nothing: the scheduler, which Tune asks first, has reported it."""

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        self.live.discard(trial_id)
        if error:
            result = {FAULT: self.failure.of_trials.get(trial_id, DIED)}
        self.failure.guard(lambda: self.ask_tell.end(self.numbers[trial_id], result, error=error), "")

    def save(self, checkpoint_path: str) -> None:
        """Tune's own snapshots hold nothing of the study: a search resumes from the study itself."""
        Path(checkpoint_path).write_bytes(b"")

    def restore(self, checkpoint_path: str) -> None:
        """Nothing, for the same reason."""

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles its settings; locks and connections stay here


class StudyScheduler(FIFOScheduler):
    """Reports each epoch to AskTell and stops the trials that its pruner names.

    `remarked` hears what a trial wants to be said.
    """

    def __init__(
        self, ask_tell: AskTell, failure: Failure, remarked: Callable[[str], None] = lambda remark: None
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.ask_tell, self.failure, self.remarked = ask_tell, failure, remarked

    def on_trial_result(self, tune_controller: TuneController, trial: Trial, result: dict[str, Any]) -> str:
        stop = self.failure.guard(lambda: self._stops(trial.config["number"], result), True)
        return TrialScheduler.STOP if stop else TrialScheduler.CONTINUE

    def on_trial_error(self, tune_controller: TuneController, trial: Trial) -> None:
        """Tune asks the searcher next, and tells it nothing of the error."""
        self.failure.of_trials[trial.trial_id] = _why(trial)

    def _stops(self, number: int, result: dict[str, Any]) -> bool:
        if UNSAVED in result:
            raise OSError(result[UNSAVED])
        if REMARK in result:
            self.remarked(str(result[REMARK]))
        self.ask_tell.report(number, result)
        return self.ask_tell.should_stop(number)

    def __getstate__(self) -> dict[str, Any]:
        return {}


class Recoveries(Callback):
    """Logs one line where Tune would print a traceback: a trial's process or machine died, and it goes on."""

    def __init__(self, log: Callable[[str], None]) -> None:
        self.log = log

    def on_trial_recover(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        self.log(f"trial {trial.config['label']}: {printable(_why(trial))}; it goes on from its last epoch")

    def __getstate__(self) -> dict[str, Any]:
        return {}


def _why(trial: Trial) -> str:
    """What a trial failed of, in words."""
    path = trial.pickled_error_file  # here; what Tune's own getter reads is brought to its place later
    if path is None or not Path(path).exists():
        return DIED
    return in_words(cloudpickle.loads(Path(path).read_bytes()))


class LimitStopper(Stopper):
    """Ends all trials when `reached` says so."""

    def __init__(self, reached: Callable[[], bool]) -> None:
        self.reached = reached

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        return self.reached()

    def __getstate__(self) -> dict[str, Any]:
        return {}
