"""What the programs share: `--config FILE.py:ARG --config.field=value`, and errors as one line and exit code 2.

    parser = argparse.ArgumentParser(...)
    cli.add_config(parser)
    args, config = cli.parse(parser, argv)

Nothing heavy is imported here, so that `--help` answers at once.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import ml_collections


def add_config(parser: argparse.ArgumentParser, required: bool = True) -> None:
    """Add `--config`, and say in the help how its fields are overridden."""
    parser.add_argument(
        "--config",
        required=required,
        metavar="FILE.py[:ARG]",
        help="config file and the argument of its get_config, as in experiments/bert/pretrain.py:size=mini,smoke; "
        "any field is changed by --config.FIELD=VALUE, as in --config.optim.lr=1e-4 (a config is code and is run)",
    )


def split_overrides(argv: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Take `--config.a.b=v` and `--config.a.b v` out of an argument list."""
    from ctxjax.config import ConfigError

    rest: list[str] = []
    settings: dict[str, str] = {}
    items = iter(argv)
    for item in items:
        if item == "--":
            rest += [item, *items]
        elif item.startswith("--config."):
            name, equals, value = item.removeprefix("--config.").partition("=")
            if not equals:
                following = next(items, None)
                if following is None or following.startswith("--"):
                    raise ConfigError(f"--config.{name} needs a value, as in --config.{name}=VALUE")
                value = following
            settings[name] = value
        else:
            rest.append(item)
    return rest, settings


def parse_config(spec: str, settings: dict[str, str]) -> ml_collections.ConfigDict:
    """Load `FILE.py:ARG`, apply dotted settings, lock it.

    Raises:
      ConfigError: a missing file, an unknown field (with a suggestion), a value of the wrong type.
    """
    from ctxjax import config as configs

    config = configs.load(spec)
    configs.override(config, settings)
    return config


def parse_with_settings(
    parser: argparse.ArgumentParser, argv: Sequence[str] | None = None
) -> tuple[argparse.Namespace, dict[str, str]]:
    """Parse the flags of a program, and give the dotted settings as they are."""
    argv = sys.argv[1:] if argv is None else argv
    if any(item in ("-h", "--help") for item in argv):
        parser.parse_args(["--help"])
    rest, settings = split_overrides(argv)
    return parser.parse_args(rest), settings


def parse(parser: argparse.ArgumentParser, argv: Sequence[str] | None = None) -> tuple[argparse.Namespace, Any]:
    """Parse the flags of a program and the config that they name; the config is None where no `--config` is given."""
    args, settings = parse_with_settings(parser, argv)
    if args.config is None:
        if settings:
            from ctxjax.config import ConfigError

            raise ConfigError(f"--config.{next(iter(settings))} is given without --config FILE.py")
        return args, None
    return args, parse_config(args.config, settings)


def main_guard(main: Callable[[], int | None]) -> None:
    """Run a program's `main` and exit: 2 with one line on a user's mistake, 130 on Ctrl-C, quietly on a closed pipe."""
    try:
        code = main() or 0
        sys.stdout.flush()
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        code = 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the interpreter complains at exit
        code = 141
    except ValueError as error:
        from ctxjax.config import ConfigError

        if not isinstance(error, ConfigError):
            raise
        print(f"error: {error}", file=sys.stderr)
        code = getattr(error, "exit_code", 2)  # 3: what ended a run was no mistake of the user's
    sys.exit(code)
