r"""The table of pods: what the train step of each model costs a chip, from 8 chips to 256, compiled and not run.

    python experiments/pods/table.py                                     # all of it; hours of one core
    python experiments/pods/table.py --only "BERT large,v5e-8;v4-32"     # models and slices whose names are given
    python experiments/pods/table.py --record                            # what there is, as a record for the ledger

Every step is compiled by `python -m ctxjax.plan --topology` in a process of its own, and what it said is appended to
`--workdir`/steps.jsonl; the same command continues with what is not there yet. No TPU is needed, but the extra [tpu].

A slice's name has its number of chips (v5e) or of cores, two a chip (v4, v5p).
"""

from __future__ import annotations

import argparse
import json
import pathlib
import resource
import subprocess
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

from ctxjax import records

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
SLICES = {
    "v5e-8": "v5e:2x4",
    "v5e-16": "v5e:4x4",
    "v5e-32": "v5e:4x8",
    "v5e-64": "v5e:8x8",
    "v5e-128": "v5e:8x16",
    "v5e-256": "v5e:16x16",
    "v4-32": "v4:2x2x4",
    "v5p-128": "v5p:4x4x4",
}


class Case(NamedTuple):
    """A model: its config, the rows of a chip, chips over which parameters are split, and fields that differ."""

    config: str
    rows: int
    fsdp: int
    fields: dict[str, Any]


HALF = {"model.dtype": "bfloat16"}
MODELS = {
    "BERT base": Case("bert/pretrain.py:size=base", 64, 1, HALF),
    "BERT large": Case("bert/pretrain.py:size=large", 16, 1, HALF),
    "ELMo published": Case("elmo/pretrain.py:size=published", 128, 8, {}),
    "GPT-2 XL": Case("gpt2/pretrain.py:size=xl", 4, 8, HALF | {"model.remat": "full"}),
    "ModernBERT base": Case("modernbert/pretrain.py:size=base", 8, 1, HALF | {"model.remat": "dots"}),
}


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", metavar="MODEL;SLICE,...", help="names of models and slices, by , or ;")
    parser.add_argument("--workdir", type=pathlib.Path, default=pathlib.Path("runs/pods"))
    parser.add_argument("--record", action="store_true", help="write the record of what is there and compile nothing")
    args = parser.parse_args(argv)
    only = {name.strip() for name in args.only.replace(";", ",").split(",") if name.strip()}
    if unknown := only - MODELS.keys() - SLICES.keys():
        parser.error(f"--only: {sorted(unknown)[0]!r} is none of {', '.join([*MODELS, *SLICES])}")
    args.workdir.mkdir(parents=True, exist_ok=True)
    file = args.workdir / "steps.jsonl"
    wanted = [
        (model, name)
        for name in [name for name in SLICES if name in only] or SLICES
        for model in [model for model in MODELS if model in only] or MODELS
    ]
    for model, name in [] if args.record else wanted:
        if (model, name) in done(file):
            continue
        step = compile_one(model, name)
        with open(file, "a", encoding="utf-8") as out:
            out.write(json.dumps(step) + "\n")
        print(f"{model}, {name}: {step.get('failed') or step['bound']}, {step['processor_seconds']:.0f} s", flush=True)
    if args.record or set(done(file)) == {(model, name) for model in MODELS for name in SLICES}:
        print(f"wrote {records.write('pods', {'pods': list(done(file).values())})}")
    return 0


def done(file: pathlib.Path) -> dict[tuple[str, str], dict[str, Any]]:
    """Steps that were compiled as they are asked for now, the latest of each, by model and slice."""
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    steps = {(step["model"], step["slice"]): step for step in map(json.loads, lines)}
    wanted = [(model, name) for model in MODELS for name in SLICES if (model, name) in steps]
    return {key: steps[key] for key in wanted if steps[key]["command"] == shown(*key)}


def command(model: str, name: str) -> list[str]:
    """The plan of one step."""
    case, chips = MODELS[model], chips_of(name)
    fields = {"batch_size": case.rows * chips, "mesh.fsdp": case.fsdp, **case.fields}
    return [
        *(sys.executable, "-m", "ctxjax.plan", "--json", "--topology", SLICES[name]),
        *("--config", f"experiments/{case.config}"),
        *(f"--config.{field}={value}" for field, value in fields.items()),
    ]


def shown(model: str, name: str) -> str:
    """The same, to be read."""
    return " ".join(["python", *command(model, name)[1:]])


def chips_of(name: str) -> int:
    """Chips of a slice."""
    found = 1
    for size in SLICES[name].partition(":")[2].split("x"):
        found *= int(size)
    return found


def compile_one(model: str, name: str) -> dict[str, Any]:
    """What a chip has to do, hold and send in one step; or why there is no such step."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    ran = subprocess.run(command(model, name), cwd=ROOT, capture_output=True, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = sum(getattr(after, part) - getattr(before, part) for part in ("ru_utime", "ru_stime"))
    step = {
        "model": model,
        "slice": name,
        "chips": chips_of(name),
        "rows": MODELS[model].rows,
        "command": shown(model, name),
        "commit": records.commit(),
        "processor_seconds": round(spent, 1),
    }
    if not ran.stdout.strip():
        return step | {"failed": (ran.stderr.strip().splitlines() or [f"code {ran.returncode}"])[-1][:300]}
    plan = json.loads(ran.stdout)
    found = plan["compiled"]
    step |= {"mesh": plan["mesh"], "tokens": plan["tokens_per_step"] / plan["devices"], "fits": found["fits"]}
    if found["refused"]:
        return step | {"failed": found["refused"]}
    return step | {
        "flops": plan["flops_per_step"] / plan["devices"],
        "accessed": found["accessed"],
        "sent": found["sent"],
        "collectives": found["collectives"],
        "memory": found["total"],
        "temporary": found["temporary"],
        "chip_memory": found["chip_memory"],
        "roofline": found["roofline"],
        "bound": found["roofline"]["bound"],
    }


if __name__ == "__main__":
    sys.exit(main())
