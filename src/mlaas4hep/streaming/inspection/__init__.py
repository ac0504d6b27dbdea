"""What the branches of files look like: one mergeable pass, and tables, a page and plots of it."""

from __future__ import annotations

from mlaas4hep.streaming.inspection.bins import BinCounts, Histogram
from mlaas4hep.streaming.inspection.files import InspectedFile, Inspection, inspect_files
from mlaas4hep.streaming.inspection.summary import BranchSummary

__all__ = ["BinCounts", "BranchSummary", "Histogram", "InspectedFile", "Inspection", "inspect_files"]
