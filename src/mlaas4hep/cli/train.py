"""``mlaas4hep train``: train a model as a configuration says."""

from __future__ import annotations

import argparse

__all__ = ["HELP", "add_arguments", "run"]

HELP = "train a model as a configuration file says, and write its bundle, numbers and plots"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the command."""
    parser.add_argument(
        "config", nargs="?", metavar="CONFIG", help="the configuration: YAML, JSON or TOML (--init writes an example)"
    )
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="NAME=VALUE",
        help="settings that win over the file, as in training.epochs=3 or model=transformer",
    )
    parser.add_argument(
        "--set", action="extend", nargs="+", default=[], metavar="NAME=VALUE", help="the same, after other options"
    )
    parser.add_argument(
        "--init",
        nargs="?",
        const="",
        metavar="MODEL",
        help="write a commented example to CONFIG (to the terminal where there is none), for a built-in model",
    )
    parser.add_argument(
        "--resume", action="store_true", help="go on from the last checkpoint of this training, where there is one"
    )
    parser.add_argument("--dry-run", action="store_true", help="show the resolved settings and the dataset, and stop")
    parser.add_argument(
        "--verbose", type=int, nargs="?", const=1, choices=(0, 1, 2), help="2: show the traceback of an error"
    )


def run(arguments: argparse.Namespace) -> int:
    """Train, or do what the options ask for instead."""
    overrides = [*arguments.overrides, *arguments.set]
    config = arguments.config
    if config is not None and "=" in config:  # no file, only settings
        overrides, config = [config, *overrides], None
    if arguments.init is not None:
        return _write_example(arguments.init, config)

    from mlaas4hep.cli.console import printable
    from mlaas4hep.training.configuration import read_configuration
    from mlaas4hep.training.configured import describe_dataset, open_configured, train_configured
    from mlaas4hep.training.processes import is_first_process

    configuration = read_configuration(config, overrides)
    if arguments.dry_run:
        print(printable_lines(configuration.to_yaml()))
    dataset = open_configured(configuration)
    if is_first_process():
        with configuration.explaining():
            describe_dataset(dataset, lambda line: print("\n".join(map(printable, line.splitlines()))))
    if arguments.dry_run:
        return 0

    from mlaas4hep.training.progress import progress_for

    done = train_configured(configuration, dataset, progress_for(), resume=arguments.resume)
    if not is_first_process():
        return 0
    print(done.result)
    for path in done.files:
        print(path)
    return 0


def printable_lines(text: str) -> str:
    """Return a text of several lines without what a terminal would take for a command."""
    from mlaas4hep.cli.console import printable

    return "\n".join(map(printable, text.splitlines())) + "\n"


def _write_example(model: str, config: str | None) -> int:
    from pathlib import Path

    from mlaas4hep.errors import SettingError, quoted
    from mlaas4hep.training.config_example import example_configuration
    from mlaas4hep.training.models import BUILT_IN

    if config is None and model not in ("", *BUILT_IN):  # --init config.yaml
        model, config = "", model
    if model and model not in BUILT_IN:
        raise SettingError("--init", f"one of {quoted(BUILT_IN, 20)}", model)
    text = example_configuration(model or "mlp")
    if config is None:
        print(text, end="")
        return 0
    try:
        with Path(config).open("x", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise SettingError("--init", f"the name of a new file ({error.strerror})", config) from error
    print(f"{config}: change data.files and data.labels, then run: mlaas4hep train {config}")
    return 0
