"""What a LightningModule says of its training: its loss, its optimiser and its scheduler.

Its ``forward`` and its ``configure_optimizers`` are used as they are. Its ``training_step`` is not called: the loop here resumes in the middle of an
epoch, weights events and takes the mask, of which such a method knows nothing. So the loss must be an attribute.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from mlaas4hep.errors import ModelFileError

__all__ = ["is_lightning", "of_lightning"]

PACKAGES = ("lightning", "pytorch_lightning")
LOSSES = ("loss", "loss_fn", "loss_function", "criterion")


def is_lightning(module: nn.Module) -> bool:
    """Return whether a module is a LightningModule, of either package."""
    return any(base.__name__ == "LightningModule" for base in _bases(type(module)))


def of_lightning(module: Any, beside: tuple[object, ...], source: str) -> tuple[object, object, object]:
    """Return loss, optimiser and scheduler of a LightningModule.

    Parameters
    ----------
    module : LightningModule
    beside : tuple
        What was returned beside it, which comes first: loss, optimiser, scheduler.
    source : str
        Where it comes from, for messages.

    Raises
    ------
    ModelFileError
        If its loss stands in ``training_step`` only, or it has several optimisers.
    """
    loss, optimiser, scheduler = (*beside, None, None, None)[:3]
    if loss is None:
        loss = next((getattr(module, name) for name in LOSSES if callable(getattr(module, name, None))), None)
        has_step = any(
            "training_step" in vars(base) for base in type(module).__mro__ if base not in _bases(type(module))
        )
        if loss is None and has_step:
            raise ModelFileError(
                source,
                "its training_step is not called here; make its loss an attribute, as self.loss = nn.BCEWithLogitsLoss(),"
                " or return (module, loss)",
            )
    if optimiser is None and any(
        "configure_optimizers" in vars(base) for base in type(module).__mro__ if base not in _bases(type(module))
    ):
        optimiser, scheduler = _configured(module, source)
    return loss, optimiser, scheduler


def _configured(module: Any, source: str) -> tuple[object, object]:
    """Return optimiser and scheduler from any of the forms in which ``configure_optimizers`` gives them."""
    try:
        given = module.configure_optimizers()
    except Exception as error:  # whatever the user's code raises
        raise ModelFileError(source, f"configure_optimizers fails: {type(error).__name__}: {error}") from error
    if isinstance(given, Mapping):
        return given.get("optimizer"), given.get("lr_scheduler")
    optimisers, schedulers = given, None
    if isinstance(given, tuple) and len(given) == 2 and all(isinstance(part, (list, tuple)) for part in given):
        optimisers, schedulers = given
    optimisers = optimisers if isinstance(optimisers, (list, tuple)) else [optimisers]
    if len(optimisers) != 1 or len(schedulers or []) > 1:
        raise ModelFileError(source, f"it has {len(optimisers)} optimisers; right is one, with one scheduler at most")
    if isinstance(optimisers[0], Mapping):
        return optimisers[0].get("optimizer"), optimisers[0].get("lr_scheduler")
    return optimisers[0], schedulers[0] if schedulers else None


def _bases(kind: type) -> list[type]:
    return [base for base in kind.__mro__ if base.__module__.partition(".")[0] in PACKAGES]
