"""The steps of `building.py` under Apache Beam, for corpora past one machine: the same functions, the same bytes.

Three pipelines: digests of the inputs, word counts (where a vocabulary is learned), then documents to shards. The last
is in two parts, since shards are ranges of keys whose number follows from the size of the whole: every document is
tokenised and measured, then goes to its shard. No worker holds more than some documents, or one shard. The driver
learns the vocabulary from words and their counts, and joins the side arrays; it never sees text.
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ctxjax.config import ConfigError
from ctxjax.data import building, cleaning, corpus, piecework, preparation, reading, word_counts
from ctxjax.data.preparation import Settings
from ctxjax.text import open_tokenizer
from ctxjax.text.tokenizer import SETTINGS, Tokenizer

try:
    import apache_beam as beam

    from ctxjax.data import beam_work
except ImportError as error:
    raise ConfigError(f"--runner needs Apache Beam ({error}); pip install 'ctxjax[beam]'") from None

# Beam's own choice for the name would be a program that it downloads.
_DIRECT = "apache_beam.runners.portability.fn_api_runner.FnApiRunner"
_MISTAKE = re.compile(r"(?:ConfigError|CorpusError): (.+?)(?: \[while running|\\n|\n|$)")


def prepare(settings: Settings) -> dict[str, Any]:
    """As `building.prepare`, under `settings.runner`; the output may be in a store (`gs://...`).

    Raises:
      ConfigError: as there, or a runner that there is not.
    """
    _check_runner(settings)
    with contextlib.ExitStack() as stack:
        remote = "://" in settings.output
        here = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()) if remote else settings.output)
        output = reading.located(settings.output)
        if remote and (output / corpus.MANIFEST).exists():
            (here / corpus.MANIFEST).write_bytes((output / corpus.MANIFEST).read_bytes())
        given = preparation.given_tokenizer(settings)
        work = _Work(settings, here, output / preparation.WORK)
        inputs = preparation.find_pairs(settings) if settings.pairs else work.find_inputs(settings.input)
        apart = work.find_inputs(settings.heldout_input)
        plan = preparation.make_plan(settings, inputs, given, apart)
        manifest = preparation.finished(here, plan)
        if manifest is None:
            scratch = here / preparation.WORK
            scratch.mkdir(parents=True, exist_ok=True)
            with preparation.lock(here, scratch):
                preparation.start_or_continue(here, scratch, plan)
                try:
                    manifest = _build(work, inputs, apart, plan, given, 0.0 if apart else settings.heldout)
                except building.NothingUsableError:
                    work.clear()
                    if not remote and not any(here.iterdir()):
                        here.rmdir()
                    raise
        work.clear()
        return manifest


def _check_runner(settings: Settings) -> None:
    from apache_beam.runners import create_runner

    try:
        create_runner(settings.runner)
    except (ValueError, ImportError, AttributeError) as error:
        raise ConfigError(f"--runner {settings.runner} cannot be used ({error})") from None
    if settings.workers and settings.runner != "DirectRunner":
        raise ConfigError(
            f"--workers is of this machine; give {settings.runner} an option of its own in --runner_options"
        )


def _build(
    work: _Work,
    inputs: Sequence[reading.Input],
    apart: Sequence[reading.Input],
    plan: dict[str, Any],
    tokenizer: Tokenizer | None,
    heldout: float,
) -> dict[str, Any]:
    """From inputs to the manifest."""
    saved = work.here / preparation.WORK / "tokenizer"
    if (saved / SETTINGS).exists():
        tokenizer = open_tokenizer(saved)
    tokenizer = tokenizer or _learn(work, inputs, plan["settings"], heldout)
    tokenizer.save(saved)
    selection = work.settings.selection
    once = selection.duplicates != "keep"
    shards: dict[str, dict[str, Any]] = {}
    splits: dict[str, list[str]] = {}
    reports: list[dict[str, Any]] = []
    with work.pipeline("shards") as pipeline:
        for title, read in (("input", inputs), ("heldout_input", apart)):
            if read:
                found = beam_work.encode(pipeline, title, read, selection, str(saved), work.remote)
                about = (heldout, read is apart, building.SHARD_BYTES)
                layout = found.report | f"{title} layout" >> beam.Map(beam_work.layout, *about)
                places = (work.settings.output, work.folder)
                made = beam_work.write(title, found, layout, *places, tokenizer.unk_id, once)
                work.keep(found.report, f"report-{title}")
                work.keep(layout, f"layout-{title}")
                work.keep(made, f"shards-{title}")
    for title, read in (("input", inputs), ("heldout_input", apart)):
        if read:
            (report,), (layout,) = work.results(f"report-{title}"), work.results(f"layout-{title}")
            if not report["documents"]:
                raise building.nothing_left(report["counts"], report["fields"], selection.field)
            reports.append(report)
            shards |= {about["name"]: about for about in work.results(f"shards-{title}")}
            for split, ranges in layout.items():
                splits[split] = [name for name, _, _ in ranges]
    counts = piecework.merge_reports(reports)["counts"]
    for about in shards.values():
        building.count_duplicates(counts, piecework.Duplicates(**about["duplicates"]), once)
    manifest = corpus.finish(
        work.here,
        tokenizer,
        splits,
        {reason: counts[reason] for reason in cleaning.DROPPED if reason in counts},
        counted=lambda name: (work.counted(name), shards[name]["file"]),
        repaired={reason: counts[reason] for reason in cleaning.REPAIRED if reason in counts},
        **plan,
    )
    work.publish(name for name in manifest["files"] if name not in shards)
    return manifest


def _learn(work: _Work, inputs: Sequence[reading.Input], plan: dict[str, Any], heldout: float) -> Tokenizer:
    """A vocabulary of the training documents."""
    limit = word_counts.most_words(plan)
    with work.pipeline("words") as pipeline:
        found = beam_work.count(pipeline, inputs, work.settings.selection, word_counts.counting(plan, heldout), limit)
        work.keep(found.words, "words")
        work.keep(found.report, "report-words")
    counts = dict(sorted(work.results("words")))
    if not counts and heldout:
        return _learn(work, inputs, plan, 0.0)  # so few documents that all of them fell on that side
    if not counts:
        (report,) = work.results("report-words")
        raise building.nothing_left(report["counts"], report["fields"], work.settings.field)
    return building.learn(counts, plan)


class _Work:
    """Where the workers and the driver meet: a folder that all of them see, and pipelines that leave results there.

    Args:
      settings: runner, options and output.
      here: the driver's own folder; the output, where that is on this machine.
      folder: of what workers leave, below the output.
    """

    def __init__(self, settings: Settings, here: pathlib.Path, folder: Any):
        self.settings, self.here, self.folder = settings, here, str(folder)
        self.remote = "://" in settings.output
        self._results = folder / "results"

    def find_inputs(self, given: Sequence[str]) -> list[reading.Input]:
        """As `preparation.find_inputs`, the digests made by workers."""
        return preparation.find_inputs(self.settings, given, self._digests)

    def _digests(self, files: Sequence[str]) -> Mapping[str, str]:
        with self.pipeline("digests") as pipeline:
            self.keep(beam_work.digests(pipeline, files), "digests")
        found = dict(self.results("digests"))
        if not self.remote:  # nothing has been decided yet, so nothing stays that was not there
            shutil.rmtree(self._results)
            with contextlib.suppress(OSError):
                self._results.parent.rmdir()
                self.here.rmdir()
        return found

    @contextlib.contextmanager
    def pipeline(self, title: str) -> Iterator[Any]:
        """Run a pipeline; a worker's complaint about a file is the user's, in one sentence."""
        if self._results.exists():
            self._results.rmtree() if self.remote else shutil.rmtree(self._results)
        try:
            with beam.Pipeline(options=self._options(title)) as pipeline:
                yield pipeline
        except Exception as error:
            found = _MISTAKE.search(f"{type(error).__name__}: {error}")
            if isinstance(error, ConfigError) or not found:
                raise
            raise ConfigError(found.group(1)) from None

    def _options(self, title: str) -> Any:
        from apache_beam.options.pipeline_options import PipelineOptions

        runner, workers = self.settings.runner, self.settings.workers
        flags = [f"--{option}" for option in self.settings.runner_options]
        if not any(option.startswith("job_name=") for option in self.settings.runner_options):
            flags.append(f"--job_name=prepare-{title}")
        if runner != "DirectRunner":
            return PipelineOptions([f"--runner={runner}", *flags])
        workers = workers or len(os.sched_getaffinity(0))
        mode = "multi_processing" if workers > 1 else "in_memory"
        flags += [f"--direct_num_workers={workers}", f"--direct_running_mode={mode}"]
        return PipelineOptions([f"--runner={_DIRECT}", *flags])

    def keep(self, found: Any, name: str) -> None:
        """Have a pipeline write what it finds."""
        beam_work.keep(found, name, str(self._results / name))

    def results(self, name: str) -> list[Any]:
        """What a finished pipeline kept."""
        files = sorted((self._results / name).iterdir()) if (self._results / name).exists() else ()
        return [json.loads(line) for file in files for line in file.read_text().splitlines()]

    def counted(self, name: str) -> list[corpus.ShardCounts]:
        """What the worker that wrote a shard counted in it."""
        with reading.located(f"{self.folder}/counts/{name}.npz").open("rb") as file:
            arrays = np.load(file, allow_pickle=False)
            counts = corpus.ShardCounts(*(arrays[field] for field in corpus.ShardCounts._fields))
        return [counts] if len(counts.sections) else []

    def publish(self, names: Iterator[str]) -> None:
        """Copy what the driver wrote to the store, the manifest last."""
        for name in [*names, corpus.MANIFEST] if self.remote else ():
            beam_work.put(self.here / name, f"{self.settings.output}/{name}")

    def clear(self) -> None:
        """Delete what was left for the driver."""
        shutil.rmtree(self.here / preparation.WORK, ignore_errors=True)
        folder = reading.located(self.folder)
        if self.remote and folder.exists():
            folder.rmtree()
