r"""Every way to use a pretrained model, on every task, from models that were pretrained on the same text.

    python experiments/tasks/compare.py --lineage lineage --output comparison                       # two CPU cores
    python experiments/tasks/compare.py --lineage lineage --output comparison --size accelerator    # one GPU or TPU

The folder of a finished experiments/lineage/run.py has the pretrained models. Static vectors, ELMo's features, ULMFiT's
second and third stage, and GPT and BERT fine-tuned, are each trained by the config of the task (experiments/tasks,
tagging, ulmfit) on the same examples: on cpu at most so many a task (source.limit), in few passes and short rows, on an
accelerator all of them, as published. Files of the tasks are read from CTXJAX_DATA. Every figure is of the held-out
split at the end of training, of one seed; nothing is chosen by it. ULMFiT reads one text and one direction, and GPT
tells a word's tag before it has read what follows; ELMo's tagger needs the run of GloVe or word2vec, too.

Every stage is a program of this repository, printed before it runs; the same command continues after an interruption.
At the end OUTPUT has record.json with every figure, comparison.md and comparison.html; into the ledger it is put by
python -m ctxjax.report --add OUTPUT --name comparison --ledger.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

# system -> run of the lineage
SYSTEMS = {"word2vec": "word2vec", "GloVe": "GloVe", "ELMo": "ELMo", "ULMFiT": "AWD-LSTM", "GPT": "GPT", "BERT": "BERT"}
STATIC = ("word2vec", "GloVe")
PROBED = ("ELMo", "GPT", "BERT")


class Kind(NamedTuple):
    """A task: its name in ctxjax/data/tasks, its folder under tasks/, and pieces of a row on cpu."""

    name: str
    folder: str
    length: int

    @property
    def words(self) -> bool:
        """Whether words are told, not texts."""
        return "." not in self.name


TASKS = {
    "CoLA": Kind("glue.cola", "glue/CoLA", 64),
    "SST-2": Kind("glue.sst2", "glue/SST-2", 64),
    "SST-5": Kind("sentiment.sst5", "sst5", 64),
    "TREC-6": Kind("topics.trec6", "trec6", 64),
    "IMDb": Kind("sentiment.imdb", "imdb", 128),  # no further than BERT's positions were pretrained
    "MRPC": Kind("glue.mrpc", "glue/MRPC", 128),
    "STS-B": Kind("glue.stsb", "glue/STS-B", 128),
    "RTE": Kind("glue.rte", "glue/RTE", 128),
    "CODAH": Kind("choices.codah", "codah/cv_split/fold_0", 64),
    "CoNLL-2003": Kind("conll2003", "conll2003", 128),
    "UD POS": Kind("ud_english", "ud_ewt", 128),
}
CURVE = "IMDb"  # trained on fewer labels, too
COUNTS = (100, 500)
# What a processor has time for. Of training examples, and of held-out sentences whose words are told.
EXAMPLES, TOLD = 2_000, 1_000
PASSES = {"word2vec": 20, "GloVe": 20, "ELMo": 6, "ULMFiT": 8, "GPT": 3, "BERT": 4}
LM_PASSES = {"IMDb": 1}  # of ULMFiT's second stage; 4 over shorter texts
TAGGING_PASSES = {"word2vec": 8, "GloVe": 8, "ELMo": 8, "GPT": 4, "BERT": 4}
FEWEST = 100  # steps, where there are few labels
BATCH = 32
SHARE = {"IMDb": 0.04}  # held out of a training file that is long; 0.1 of others without a held-out one
RATES = {"BERT": 3e-4, "GPT": 3e-4}  # small models: of the grid for them; that of its pretraining
TOGETHER = "--config.source.together=16"  # rows of like length in a batch
PROBE = 1_000  # sentences of each task


class Job(NamedTuple):
    """One system on one task: its stages, the last of which makes `run`."""

    task: str
    system: str
    count: int
    run: pathlib.Path
    stages: list[tuple[str, list[str]]]


class Plan(NamedTuple):
    """What is compared.

    Attributes:
      lineage, output, data: folders of the pretrained runs, of what is made, and of the tasks' files.
      small: for a processor.
      examples: to train on at most; 0 for all.
      counts: fewer labels, for the curve.
    """

    lineage: pathlib.Path
    output: pathlib.Path
    data: pathlib.Path
    small: bool
    examples: int
    counts: tuple[int, ...]

    def job(self, task: str, system: str, count: int) -> Job | None:
        """None where the system does not read the task."""
        folder = self.output / "runs" / (task if count == self.examples else f"{task}-{count}").replace(" ", "-")
        run = folder / system
        kind = TASKS[task]
        if kind.words:
            stages = self._tagging(task, system, run)
        elif system == "ULMFiT":
            stages = self._ulmfit(task, count, folder, run)
        else:
            stages = self._finetune(task, system, count, run)
        return Job(task, system, count, run, stages) if stages else None

    def _data(self, task: str) -> str:
        return str(self.data / "tasks" / TASKS[task].folder)

    def _model(self, run: str) -> dict[str, Any]:
        """The fields of a pretrained model."""
        return json.loads((self.lineage / run / "config.json").read_text(encoding="utf-8"))["model"]

    def _cadences(self, passes: int, count: int) -> list[str]:
        """One evaluation and one checkpoint, at the end."""
        found = ["--config.eval_every=100 percent", "--config.save_every=100 percent", "--config.keep=1"]
        if not self.small:
            return found
        return [*found, f"--config.total={max(passes, math.ceil(FEWEST * BATCH / count))} epochs"]

    def _train(self, config: str, task: str, run: pathlib.Path, begins: pathlib.Path | None) -> list[str]:
        made = ["-m", "ctxjax.train", "--config", f"experiments/{config}", "--workdir", str(run)]
        made += [f"--config.source.corpus={self._data(task)}"]
        return made + ([f"--config.init_from.path={begins}"] if begins else [])

    def _finetune(self, task: str, system: str, count: int, run: pathlib.Path) -> list[tuple[str, list[str]]]:
        kind, name = TASKS[task], system.lower()
        size = ",size=small" if system == "BERT" and self.small else ""
        config = f"tasks/finetune.py:task={kind.name},system={name}{size}"
        made = self._train(config, task, run, self.lineage / SYSTEMS[system])
        made += [f"--config.source.limit={count}", f"--config.source.share={SHARE.get(task, 0.1)}"]
        if system in STATIC:
            made.append(f"--config.model.encoder.width={self._model(system)['width']}")
        if self.small:
            made += [f"--config.source.length={kind.length}", f"--config.batch_size={BATCH}", TOGETHER]
            made += [f"--config.optim.lr={RATES[system]}"] if system in RATES else []
        return [("train", [*made, *self._cadences(PASSES[system], count)])]

    def _ulmfit(self, task: str, count: int, folder: pathlib.Path, run: pathlib.Path) -> list[tuple[str, list[str]]]:
        """The texts that the other systems read, a corpus of them, the language model, the classifier."""
        from ctxjax.data.tasks import open_task

        kind = TASKS[task]
        found = open_task(kind.name)
        if found.kind != "classify" or found.parts != 1:
            return []
        texts, corpus, model = (folder / f"ULMFiT-{name}" for name in ("texts", "corpus", "lm"))
        size = "small" if self.small else "published"
        same = ["--share", str(SHARE.get(task, 0.1)), "--limit", str(count)]
        files = [f"{texts / name}.jsonl" for name in ("train", "heldout")]
        prepare = ["-m", "ctxjax.prepare", "--input", files[0], "--heldout_input", files[1], "--output", str(corpus)]
        if count:  # a part of the texts has too few words to learn a vocabulary of: that of the first stage
            prepare += ["--vocab", str(self.lineage / SYSTEMS["ULMFiT"] / "tokenizer")]
        else:
            prepare += ["--tokenizer", "words", "--vocab_size", "30000", "--lowercase"]
        language = ["-m", "ctxjax.train", "--config", f"experiments/ulmfit/finetune_lm.py:size={size}"]
        language += [
            "--workdir",
            str(model),
            f"--config.source.corpus={corpus}",
            f"--config.model.vocab_size=@{corpus}",
        ]
        language += [f"--config.init_from.path={self.lineage / SYSTEMS['ULMFiT']}"]
        language += ["--config.eval_every=100 percent", "--config.save_every=100 percent"]
        classify = ["-m", "ctxjax.train", "--config", f"experiments/ulmfit/classify.py:task={kind.name},size={size}"]
        classify += ["--workdir", str(run), f"--config.source.corpus={texts}", f"--config.init_from.path={model}"]
        classify += self._cadences(PASSES["ULMFiT"], count)
        if self.small:
            language.append(f"--config.total={LM_PASSES.get(task, 4)} epochs")
            rows = math.ceil(kind.length / 70) * 70  # whole windows
            classify += [f"--config.source.length={rows}", f"--config.batch_size={BATCH}"]
        return [
            ("texts", ["experiments/ulmfit/texts.py", "--task", kind.name, "--input", self._data(task),
                       "--output", str(texts), *same]),
            ("corpus", prepare), ("language model", language), ("train", classify),
        ]  # fmt: skip

    def _parts(self, task: str) -> list[str]:
        """The sentences that are trained on and told."""
        from ctxjax.data.tasks.tagging import TASKS as TAGGING

        found = TAGGING[TASKS[task].name]
        if not self.examples:
            return []
        return [
            f"--config.source.train={found.train}[:{self.examples}]",
            f"--config.source.heldout={found.heldout}[:{TOLD}]",
        ]

    def _tagging(self, task: str, system: str, run: pathlib.Path) -> list[tuple[str, list[str]]]:
        kind = TASKS[task]
        if system == "ULMFiT":
            return []
        cadences = [*self._parts(task), *self._cadences(TAGGING_PASSES[system], self.examples or BATCH)]
        size = f",size={'small' if self.small else 'published'}"
        if system in ("BERT", "GPT"):
            made = self._train(f"tagging/finetune.py:task={kind.name}{size}", task, run, self.lineage / SYSTEMS[system])
            made += [f"--config.model.encoder.name={system.lower()}"] if system != "BERT" else []
            if self.small:
                made += [f"--config.source.length={kind.length}", "--config.source.context=False"]
                made += [f"--config.optim.lr={RATES[system]}", TOGETHER]
            return [("train", made + cadences)]
        # ELMo's tagger begins with static vectors of words, as AllenNLP's with GloVe's.
        static = system if system in STATIC else next((name for name in reversed(STATIC) if self.has(name)), None)
        if static is None:
            return []
        sizes, words = self._model(static), self.lineage / static
        config = f"tagging/features.py:kind={'static' if system in STATIC else 'elmo'},task={kind.name}{size}"
        made = self._train(config, task, run, words)
        made += [f"--config.source.vocab={words / 'tokenizer'}", f"--config.model.vocab_size={sizes['vocab_size']}"]
        made += [f"--config.model.embed_width={sizes['width']}", "--config.init_from.pattern=^embed/tokens"]
        made += [TOGETHER] if self.small else []
        if system in STATIC:
            return [("train", made + cadences)]
        elmo, run_of = self._model(SYSTEMS[system]), self.lineage / SYSTEMS[system]
        shape = [f"--config.model.features={2 * elmo['projection']}"]
        shape += [f"--config.model.feature_layers={elmo['depth'] + 1}"]
        given = [f"--config.source.vectors_of={json.dumps([str(run_of)])}"]
        features = ["-m", "ctxjax.features", "--splits", "train,heldout", "--config", f"experiments/{config}"]
        features += [f"--config.source.corpus={self._data(task)}", *given, *self._parts(task)]
        return [("features", features), ("train", [*made, *given, *shape, *cadences])]

    def has(self, name: str) -> bool:
        """Whether a pretrained run has ended."""
        """Whether a pretrained run has ended."""
        return (self.lineage / name / "record.json").exists()

    def probes(self, systems: Sequence[str]) -> tuple[str, list[str]]:
        """What each layer of the contextual models knows, on the same sentences as the taggers had."""
        models = [str(self.lineage / SYSTEMS[name]) for name in systems]
        size = "small" if self.small else "full"
        made = ["-m", "ctxjax.probe", "--config", f"experiments/probe/layers.py:size={size}"]
        made += [f"--config.models={json.dumps(models)}", "--output", str(self.output / "probes")]
        if self.small and self.examples < PROBE:
            cut = {"pos": "en_ewt-ud-train.conllu", "ner": "eng.train"}
            made += [f"--config.tasks.{name}.train={file}[:{self.examples}]" for name, file in cut.items()]
        return "probes", made

    def page(self) -> tuple[str, list[str]]:
        """The pretrained models and what became of them, with what the suite of the lineage found, if it is there."""
        runs = dict.fromkeys(self.lineage / run for run in SYSTEMS.values() if self.has(run))
        made = ["-m", "ctxjax.report", *map(str, runs), "--tasks", str(self.output / "record.json")]
        suite = [str(path) for path in sorted((self.lineage / "suite").glob("*.json"))]
        made += ["--suite", *suite] if suite else []
        return "page", [*made, "--page", str(self.output / "comparison.html")]


def jobs(plan: Plan, tasks: Sequence[str], systems: Sequence[str]) -> list[Job]:
    """Every system on every task, and on fewer labels of `CURVE`."""
    points = [(task, plan.examples) for task in tasks]
    points += [(CURVE, count) for count in plan.counts if CURVE in tasks]
    found = [plan.job(task, system, count) for task, count in points for system in systems]
    return [one for one in found if one is not None]


def stages(wanted: Sequence[Job]) -> list[tuple[str, list[str]]]:
    """What is left to run, in order: jobs whose run has ended are left alone."""
    return [
        (f"{job.run.parent.name}, {job.system}: {title}", arguments)
        for job in wanted
        if not (job.run / "record.json").exists()
        for title, arguments in job.stages
    ]


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lineage", type=pathlib.Path, required=True, help="what experiments/lineage/run.py made")
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("comparison"))
    parser.add_argument("--size", choices=("cpu", "accelerator"), default="cpu", help="as of the lineage (default cpu)")
    parser.add_argument(
        "--examples", type=int, help=f"to train on at most (default {EXAMPLES:,} on cpu, all on accelerator)"
    )
    parser.add_argument(
        "--counts", type=int, nargs="*", default=list(COUNTS), help=f"fewer labels of {CURVE} (default 100 500)"
    )
    parser.add_argument("--only", nargs="+", choices=tuple(SYSTEMS), metavar="SYSTEM", help=f"of {', '.join(SYSTEMS)}")
    parser.add_argument("--tasks", nargs="+", choices=tuple(TASKS), metavar="TASK", help=f"of {', '.join(TASKS)}")
    parser.add_argument("--no-probes", action="store_true", help="no probes of the layers")
    options = parser.parse_args(argv)

    from ctxjax.config import ConfigError
    from ctxjax.stages import pieces_of, run_stages

    data = os.environ.get("CTXJAX_DATA")
    if not data:
        raise ConfigError("CTXJAX_DATA is not set: set it to the folder that has the tasks' files under tasks/")
    small = options.size == "cpu"
    examples = EXAMPLES * small if options.examples is None else options.examples
    folders = (options.lineage.resolve(), options.output.resolve(), pathlib.Path(data).resolve())
    plan = Plan(*folders, small, examples, tuple(options.counts))
    systems = options.only or list(SYSTEMS)
    for name in systems:
        if not plan.has(SYSTEMS[name]):
            raise ConfigError(f"{options.lineage / SYSTEMS[name]} has not ended; wait for it, or name others by --only")
    keep_settings(plan, options.size)
    tasks = options.tasks or list(TASKS)
    found = stages(jobs(plan, tasks, systems))
    probed = [name for name in systems if name in PROBED]
    probes = plan.output / "probes" / "probes.json"
    if probed and not options.no_probes and (not probes.exists() or models_of(probes) != len(probed)):
        found.append(plan.probes(probed))
    if code := run_stages(found, pieces_of):
        return code
    write(plan)
    return run_stages([plan.page()])


def models_of(probes: pathlib.Path) -> int:
    """How many models were probed."""
    return len(json.loads(probes.read_text(encoding="utf-8"))["probes"])


def keep_settings(plan: Plan, size: str) -> None:
    """Refuse an output that was made with others."""
    from ctxjax.config import ConfigError

    file, ours = plan.output / "settings.json", {"size": size, "examples": plan.examples}
    plan.output.mkdir(parents=True, exist_ok=True)
    if file.exists() and (theirs := json.loads(file.read_text(encoding="utf-8"))) != ours:
        raise ConfigError(f"{plan.output} holds a comparison of {theirs}, and this is {ours}: name another --output")
    file.write_text(json.dumps(ours) + "\n", encoding="utf-8")


# --- what was found ---


def write(plan: Plan) -> None:
    """record.json and comparison.md, of all that has ended."""
    from ctxjax import comparison, records

    rows = ended(plan)
    found = gather(plan, rows)
    places = [one["hardware"] for runs in rows.values() for one in runs.values()]  # this process has opened no device
    record = records.stamp("comparison", {"comparison": found, **({"hardware": places[-1]} if places else {})})
    records.write_json(plan.output / "record.json", record)
    text = "\n".join(comparison.markdown(found)) + "\n"
    (plan.output / "comparison.md").write_text(text, encoding="utf-8")
    print(f"\n{text}\nwrote {plan.output / 'record.json'} and comparison.md")


Rows = dict[tuple[str, int], dict[str, Mapping[str, Any]]]


def ended(plan: Plan) -> Rows:
    """Task and number of examples -> system -> record, of the runs that have ended."""
    rows: Rows = {}
    for job in jobs(plan, list(TASKS), [name for name in SYSTEMS if plan.has(SYSTEMS[name])]):
        if (job.run / "record.json").exists():
            record = json.loads((job.run / "record.json").read_text(encoding="utf-8"))
            rows.setdefault((job.task, job.count), {})[job.system] = record
    return rows


def gather(plan: Plan, rows: Rows) -> dict[str, Any]:
    """Every figure, from the records of the runs."""
    from ctxjax import comparison

    systems = [name for name in SYSTEMS if any(name in runs for runs in rows.values())]
    table = [
        comparison.row(task, TASKS[task].name, rows[task, plan.examples])
        for task in TASKS
        if (task, plan.examples) in rows
    ]
    points = sorted((count for task, count in rows if task == CURVE), key=lambda count: count or math.inf)
    curve = [comparison.row(CURVE, TASKS[CURVE].name, rows[CURVE, count]) for count in points]
    probes = plan.output / "probes" / "probes.json"
    return {
        "systems": {name: _pretrained(plan.lineage / SYSTEMS[name]) for name in systems},
        "tasks": table,
        "curves": {CURVE: curve} if len(curve) > 1 else {},
        "mixes": comparison.mixes({task: runs for (task, count), runs in rows.items() if count == plan.examples}),
        "probes": json.loads(probes.read_text(encoding="utf-8"))["probes"] if probes.exists() else {},
        "seconds": round(sum(float(one["wall_seconds"]) for runs in rows.values() for one in runs.values()), 1),
    }


def _pretrained(run: pathlib.Path) -> dict[str, Any]:
    record = json.loads((run / "record.json").read_text(encoding="utf-8"))
    return {"run": run.name, **{name: record[name] for name in ("parameters", "tokens", "steps", "commit")}}


if __name__ == "__main__":
    from ctxjax import cli

    cli.main_guard(main)
