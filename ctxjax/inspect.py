"""What a checkpoint, a run folder or a prepared corpus holds; needs no device.

python -m ctxjax.inspect runs/mini                    steps, config, parameters of the newest step
python -m ctxjax.inspect runs/mini --verify           the digest of every file of every step
python -m ctxjax.inspect runs/mini --match layer_0    some arrays by regular expression
python -m ctxjax.inspect DATA                         counts, what was dropped, tokenizer
"""

from __future__ import annotations

import argparse
import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from ctxjax import cli

WIDTHS = {"bfloat16": 2, "float16": 2, "float8_e4m3fn": 1, "bool": 1}


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m ctxjax.inspect", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("path", help="run folder (RUN@best its best step), checkpoint step folder or prepared corpus")
    parser.add_argument("--step", type=int, help="the newest step by default")
    parser.add_argument("--match", default="^params/", metavar="REGEX", help="arrays to list (default ^params/)")
    parser.add_argument("--verify", action="store_true", help="check the digest of every file; exit 1 if one differs")
    parser.add_argument("--json", action="store_true", help="everything as one JSON object")
    args = parser.parse_args(argv)

    from ctxjax import digests, folders, paths
    from ctxjax.config import ConfigError

    path = paths.at(args.path)
    if (path / "manifest.json").exists():
        return corpus(path, args.verify, args.json)
    whole = folders.run_folder(path)[0]
    if not any(digests.steps(place) for place in (paths.at(whole) / "checkpoints", whole, path.parent)):
        raise ConfigError(f"{path} holds neither a complete checkpoint nor a prepared corpus")
    found = folders.find(path, args.step)
    steps = [int(found.name)] if found == path else digests.steps(found.parent)
    return checkpoint(found.parent, steps, int(found.name), args)


def checkpoint(parent: Any, steps: list[int], step: int, args: argparse.Namespace) -> int:
    """Print the steps, and one of them in full; 1 where a file is not what was written."""
    from ctxjax import digests
    from ctxjax.config import ConfigError, leaves

    try:
        meta = json.loads((digests.step_folder(parent, step) / "meta.json").read_text())
    except (OSError, ValueError) as error:
        raise ConfigError(f"meta.json of step {step} cannot be read ({error}); use another --step") from None
    try:
        pattern = re.compile(args.match)
    except re.error as error:
        raise ConfigError(f"--match={args.match!r} is not a regular expression: {error}") from None
    arrays = {name: leaf for name, leaf in meta["state"].items() if pattern.search(name)}
    problems = {}
    if args.verify:
        problems = {one: digests.verify(digests.step_folder(parent, one)) for one in steps}
    if args.json:
        about = {name: meta[name] for name in meta if name != "state"} | {"steps": steps, "arrays": arrays}
        print(json.dumps(about | ({"problems": problems} if args.verify else {}), indent=1))
        return int(any(problems.values()))
    print(f"checkpoints  {parent}")
    print(f"steps        {', '.join(map(str, steps))}; this is {step}")
    print(f"code         {', '.join(f'{name} {value}' for name, value in meta.get('code', {}).items())}")
    print(f"tokenizer    {meta.get('tokenizer')}")
    for group in ("params", "opt_state", "carry", "extra"):
        some = {name: leaf for name, leaf in meta["state"].items() if name.startswith(group + "/")}
        if some:
            print(f"{group:<12} {len(some)} arrays, {elements(some):,} elements, {megabytes(some):,.1f} MiB")
    print("config")
    for name, value in leaves(meta["config"]).items():
        print(f"  {name} = {value!r}")
    print(f"arrays that match {args.match!r}")
    for name, (dtype, shape) in arrays.items():
        print(f"  {name}  {dtype}{shape}")
    for one, lines in problems.items():
        print(f"step {one}: " + ("every file is as written" if not lines else "; ".join(lines)))
    return int(any(problems.values()))


def elements(state: Mapping[str, Any]) -> int:
    """Number of array elements."""
    return sum(math.prod(shape) for _, shape in state.values())


def megabytes(state: Mapping[str, Any]) -> float:
    """Size in MiB, by dtype names, since no array library is loaded."""
    total = 0
    for dtype, shape in state.values():
        digits = re.search(r"[0-9]+$", dtype)
        total += math.prod(shape) * (WIDTHS.get(dtype) or (int(digits[0]) // 8 if digits else 1))
    return total / 2**20


def corpus(path: Any, verify: bool, as_json: bool) -> int:
    """Print the manifest of a prepared corpus; 1 where a file is not what was written."""
    from ctxjax import digests
    from ctxjax.config import ConfigError, leaves

    try:
        manifest = json.loads((path / "manifest.json").read_text())
    except ValueError as error:
        raise ConfigError(f"{path / 'manifest.json'} is not JSON ({error}); prepare the corpus again") from None
    problems = []
    files = manifest.get("files", {})
    for name, expected in files.items() if verify else ():
        expected = expected if isinstance(expected, str) else expected.get("xxh3_128", expected.get("digest"))
        try:
            if digests.digest_file(path / name) != expected:
                problems.append(f"{path / name} is not what was written: its digest differs")
        except OSError as error:
            problems.append(f"{path / name} cannot be read ({error.strerror or type(error).__name__})")
    about = {name: value for name, value in manifest.items() if name != "files"}
    if as_json:
        print(json.dumps(about | {"problems": problems}, indent=1))
        return int(bool(problems))
    print(f"corpus       {path}")
    for name, value in leaves(about).items():
        print(f"  {name} = {value!r}")
    print(f"files        {len(files)}" + (", every one as written" if verify and not problems else ""))
    for problem in problems:
        print(problem)
    return int(bool(problems))


if __name__ == "__main__":
    cli.main_guard(main)
