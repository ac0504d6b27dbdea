"""The frameworks that models are trained with, each behind one protocol; a module is imported when a model needs it."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from mlaas4hep.errors import ModelFileError

if TYPE_CHECKING:
    from mlaas4hep.training.frameworks.base import Task, Trainer

__all__ = ["FRAMEWORKS", "framework_of", "trainer_for"]

FRAMEWORKS = {
    "torch": "mlaas4hep.training.frameworks.torch.trainer",
    "keras": "mlaas4hep.training.frameworks.keras.trainer",
    "xgboost": "mlaas4hep.training.frameworks.xgboost.trainer",
    "sklearn": "mlaas4hep.training.frameworks.sklearn.trainer",
}
"""Framework, as its package is called → module with a function ``make_trainer(returned, task, source)``."""

RIGHT = (
    "a model of PyTorch, Keras, XGBoost or scikit-learn, a dict of XGBoost's parameters,"
    " or for PyTorch (module, loss) or (module, loss, optimiser)"
)


def framework_of(model: object) -> str:
    """Return the package that a model's class comes from, or from which it is derived; the class's own name if there is none.

    The nearest ancestor counts: a Keras model on PyTorch is a torch module too, and XGBoost's estimators are scikit-learn's.

    Examples
    --------
    >>> import collections
    >>> framework_of(collections.OrderedDict()), framework_of({"max_depth": 4})
    ('OrderedDict', 'xgboost')
    """
    if type(model) is dict:
        return "xgboost"
    packages = [base.__module__.partition(".")[0] for base in type(model).__mro__]
    return next((package for package in packages if package in FRAMEWORKS), type(model).__name__)


def trainer_for(returned: object, task: Task, source: str) -> Trainer:
    """Make the trainer for what a user's ``model`` function returned.

    Parameters
    ----------
    returned : object
        A model, or a tuple that begins with one.
    task : Task
        What it has to learn.
    source : str
        The file or object that it came from, for messages.

    Raises
    ------
    ModelFileError
        If it is no model of a framework that is supported, or not one for this task.
    MissingExtraError
        If a package that its training needs is not installed.
    """
    model = returned[0] if isinstance(returned, tuple) and returned else returned
    framework = framework_of(model)
    if framework not in FRAMEWORKS:
        what = "nothing (is there a 'return'?)" if model is None else f"{framework}"
        raise ModelFileError(source, f"model(idim) returned {what}; it must return {RIGHT}")
    trainer: Trainer = importlib.import_module(FRAMEWORKS[framework]).make_trainer(returned, task, source)
    return trainer
