"""Adapters for training frameworks. They import none of them: they have the methods that a framework calls.

from wattledger.callbacks import HuggingFaceCallback
Trainer(..., callbacks=[HuggingFaceCallback("finetune")])

from wattledger.callbacks import LightningCallback
Trainer(callbacks=[LightningCallback("pretrain")])
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import wattledger


def _do_nothing(*positional: Any, **named: Any) -> None:
    """A hook that needs no answer."""


class _Callback:
    def __init__(self, name: str = "", **options: Any) -> None:
        self._name, self._options = name, options
        self.run: wattledger.Tracked | None = None

    def __getattr__(self, hook: str) -> Callable[..., None]:
        # Frameworks call every hook they know on every callback.
        if hook.startswith("on_") or hook in ("setup", "teardown"):
            return _do_nothing
        raise AttributeError(hook)

    def _start(self) -> None:
        if self.run is None:
            self.run = wattledger.track(self._name, **self._options).start()

    def _stop(self, exit_code: int = 0) -> None:
        if self.run is not None:
            self.run.stop(exit_code)


class HuggingFaceCallback(_Callback):
    """For `transformers.Trainer`: a run from the start to the end of training.

    The summary is added to the trainer's log history when the run has ended.
    """

    def on_train_begin(self, args: Any, state: Any, control: Any, **named: Any) -> None:
        self._start()

    def on_train_end(self, args: Any, state: Any, control: Any, **named: Any) -> None:
        self._stop()
        if self.run is not None and self.run.summary:
            state.log_history.append({"wattledger": self.run.summary})


class LightningCallback(_Callback):
    """For `lightning.pytorch.Trainer` (and `pytorch_lightning`): a run per `fit`."""

    state_key = "wattledger"

    def state_dict(self) -> dict[str, Any]:
        """Nothing to keep in checkpoints: a resumed training is a run of its own."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing was kept."""

    def on_fit_start(self, trainer: Any, module: Any) -> None:
        self.run = None
        self._start()

    def on_fit_end(self, trainer: Any, module: Any) -> None:
        self._stop()

    def on_exception(self, trainer: Any, module: Any, exception: BaseException) -> None:
        self._stop(1)
