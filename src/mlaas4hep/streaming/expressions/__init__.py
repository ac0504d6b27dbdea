"""The expression language of selections, new columns and object cuts: parsed to a small tree, checked, and evaluated on whole columns."""

from __future__ import annotations

from mlaas4hep.streaming.expressions.evaluate import Scope, evaluate
from mlaas4hep.streaming.expressions.functions import FUNCTIONS, Function
from mlaas4hep.streaming.expressions.grammar import Expression, parse
from mlaas4hep.streaming.expressions.values import Numbers, Objects, Value

__all__ = ["FUNCTIONS", "Expression", "Function", "Numbers", "Objects", "Scope", "Value", "evaluate", "parse"]
