"""Callbacks of frameworks, called as the frameworks call them.

How they are called is written here as lightning 2.x and transformers 4 and 5 do it; neither is a dependency.
"""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest

from tests.node.conftest import Node
from wattledger.callbacks import HuggingFaceCallback, LightningCallback


@pytest.fixture
def here(node: Node, monkeypatch: pytest.MonkeyPatch) -> Node:
    """This process on the node."""
    for name, value in node.env.items():
        if name.startswith(("WATTLEDGER_", "LD_")):
            monkeypatch.setenv(name, value)
    return node


def call_lightning(callback: Any, hook: str, *arguments: Any) -> None:
    """lightning.pytorch.trainer.call._call_callback_hooks"""
    function = getattr(callback, hook)
    if callable(function):
        assert callback.state_key
        function(*arguments)


def test_lightning_calls_every_hook_and_fit_is_a_run(here: Node) -> None:
    callback = LightningCallback("pretrain", host_meter=False, period_s=0.05, quiet=True)
    trainer, module = SimpleNamespace(), SimpleNamespace()
    call_lightning(callback, "setup", trainer, module, "fit")
    for hook in ("on_fit_start", "on_train_start", "on_train_batch_start", "on_train_batch_end"):
        call_lightning(callback, hook, trainer, module)
    assert callback.state_dict() == {}
    callback.load_state_dict({})
    call_lightning(callback, "on_save_checkpoint", trainer, module, {})
    call_lightning(callback, "on_fit_end", trainer, module)
    call_lightning(callback, "teardown", trainer, module, "fit")
    [record] = here.records()
    assert (record["name"], record["ended_by"], record["exit_code"]) == ("pretrain", "exit", 0)
    # Fitting again is another run.
    call_lightning(callback, "on_fit_start", trainer, module)
    call_lightning(callback, "on_exception", trainer, module, RuntimeError("nan"))
    assert sorted(r["exit_code"] for r in here.records()) == [0, 1]


def test_transformers_calls_every_event_and_training_is_a_run(here: Node) -> None:
    callback = HuggingFaceCallback("finetune", host_meter=False, period_s=0.05)
    state = SimpleNamespace(log_history=[])
    control = SimpleNamespace()
    events = ("on_init_end", "on_train_begin", "on_epoch_begin", "on_step_end", "on_log")
    for event in (*events, "on_save", "on_epoch_end", "on_train_end", "on_push_begin"):
        # transformers.trainer_callback.CallbackHandler.call_event
        result = getattr(callback, event)(SimpleNamespace(), state, control, model=None, logs={})
        assert result is None
    [entry] = state.log_history
    assert entry["wattledger"]["gpus"] == 2
    assert entry["wattledger"]["energy_kwh"] > 0
    assert here.records()[0]["name"] == "finetune"


def test_no_framework_is_imported() -> None:
    assert not {"torch", "lightning", "pytorch_lightning", "transformers"} & set(sys.modules)


def test_what_is_no_hook_is_not_there() -> None:
    with pytest.raises(AttributeError):
        LightningCallback().no_such_thing  # noqa: B018
