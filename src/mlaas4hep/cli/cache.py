"""``mlaas4hep cache``: what a cache of encoded events holds, and how it is made smaller."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlaas4hep.streaming.cache.cache_folder import CachedDataset

__all__ = ["HELP", "add_arguments", "run"]

HELP = "list or prune a cache of encoded events"

FOLDER = "folder of the cache (default: $MLAAS4HEP_CACHE)"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the command."""
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    listing = actions.add_parser("list", help="show what the cache holds", description="Show what the cache holds.")
    listing.add_argument("folder", nargs="?", metavar="DIR", help=FOLDER)
    listing.set_defaults(action=_list)
    what = "remove what was not used for the longest time"
    pruning = actions.add_parser("prune", help=what, description=f"{what[0].upper()}{what[1:]}.")
    add = pruning.add_argument
    add("folder", nargs="?", metavar="DIR", help=FOLDER)
    add("--older-than", metavar="AGE", help="remove what was not used for so long: 30d, 12h, 2w")
    add("--max-size", metavar="SIZE", help="remove until no more than this is left: 20GB, 500MiB")
    add("--all", action="store_true", dest="everything", help="remove everything")
    add("--dry-run", action="store_true", help="only show what would be removed")
    pruning.set_defaults(action=_prune)
    for action in (listing, pruning):
        action.add_argument("--json", action="store_true", help="print as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Do what was asked for."""
    arguments.action(arguments)
    return 0


def _list(arguments: argparse.Namespace) -> None:
    from mlaas4hep.cli.console import show_table
    from mlaas4hep.streaming.cache.cache_folder import CacheFolder

    cache = CacheFolder.existing(arguments.folder)
    datasets = cache.datasets()
    if arguments.json:
        described = [dataset.to_dict() for dataset in datasets]
        print(json.dumps({"folder": str(cache.path), "datasets": described}, allow_nan=False))
        return
    if not datasets:
        print(f"{cache.path} holds nothing")
        return
    rows = [
        (
            _name(dataset),
            dataset.about.get("fold") or "all",
            f"{dataset.events:,}",
            f"{dataset.nbytes / 1e6:,.1f}",
            _time(dataset.created),
            _time(dataset.last_used),
            dataset.key[:12],
        )
        for dataset in datasets
    ]
    titles = ("dataset", "fold", "events", "MB", "created", "last used", "key")
    show_table(titles, rows, numbers=("events", "MB"))
    print(f"{sum(dataset.nbytes for dataset in datasets) / 1e6:,.1f} MB in {cache.path}")


def _prune(arguments: argparse.Namespace) -> None:
    from mlaas4hep.streaming.cache.cache_folder import CacheFolder

    pruned = CacheFolder.existing(arguments.folder).prune(
        older_than=arguments.older_than,
        max_size=arguments.max_size,
        everything=arguments.everything,
        dry_run=arguments.dry_run,
    )
    if arguments.json:
        print(json.dumps(pruned.to_dict()))
        return
    leftovers = f" and {pruned.leftovers} unfinished" if pruned.leftovers else ""
    print(
        f"{'would remove' if arguments.dry_run else 'removed'} {pruned.shards} shard{'s' * (pruned.shards != 1)}{leftovers}, "
        f"{pruned.nbytes / 1e6:,.1f} MB; {pruned.kept} shard{'s' * (pruned.kept != 1)}, {pruned.kept_bytes / 1e6:,.1f} MB are left"
    )


def _name(dataset: CachedDataset) -> str:
    """Return the names of the first files, and how many more there are."""
    files = [str(file.get("path", "?")) for file in dataset.about.get("files", ())]
    more = f" and {len(files) - 1} more" if len(files) > 1 else ""
    return files[0].rpartition("/")[2] + more if files else "not described"


def _time(seconds: float) -> str:
    import datetime

    return datetime.datetime.fromtimestamp(seconds).astimezone().isoformat(" ", "minutes")[:16]
