"""Tasks whose words are told one by one: names, chunks, parts of speech. The fields of a source of tagged words.

Reference: Tjong Kim Sang and De Meulder 2003 (CoNLL-2003); Tjong Kim Sang and Buchholz 2000 (CoNLL-2000); Silveira et
al. 2014 (UD English EWT); Levow 2006 (MSRA).
"""

from __future__ import annotations

from typing import NamedTuple

from ctxjax.text.tags import known_tags

NAMES = ("LOC", "MISC", "ORG", "PER")
CHUNKS = ("ADJP", "ADVP", "CONJP", "INTJ", "LST", "NP", "PP", "PRT", "SBAR", "UCP", "VP")
UNIVERSAL = "ADJ ADP ADV AUX CCONJ DET INTJ NOUN NUM PART PRON PROPN PUNCT SCONJ SYM VERB X"


class Tagging(NamedTuple):
    """A task's official files and their layout.

    Attributes:
      train, heldout, test: files of its folder, or parts of files.
      read: the scheme of the files, "" where tags say no spans, "any" where some tags break it.
      word, tag: columns.
      kinds: of spans; without spans the tags themselves.
      words: distinct words of the training file, in lower case, and three marks; 0 where it is not known.
      words_without_digits: the same with every digit as 0.
    """

    train: str
    heldout: str
    test: str
    read: str
    word: int
    tag: int
    kinds: tuple[str, ...]
    words: int = 0
    words_without_digits: int = 0

    def labels(self, scheme: str) -> tuple[str, ...]:
        """The tags by number."""
        return known_tags(self.kinds, scheme) if self.read else self.kinds

    def fields(self, scheme: str) -> dict[str, str | int]:
        """Of a source that reads the task with its tags in a scheme."""
        found = {name: getattr(self, name) for name in ("train", "heldout", "test", "read", "word", "tag")}
        return {**found, "scheme": scheme if self.read else ""}


conll2003 = Tagging("eng.train", "eng.testa", "eng.testb", "IOB1", 0, -1, NAMES, 21_012, 17_495)
conll2000 = Tagging("train.txt", "test.txt", "test.txt", "BIO", 0, 2, CHUNKS)
ud_english = Tagging(
    "en_ewt-ud-train.conllu", "en_ewt-ud-dev.conllu", "en_ewt-ud-test.conllu", "", 1, 3, tuple(UNIVERSAL.split()),
    16_657, 15_735,
)  # fmt: skip
# One file of sentences of characters, which nobody divided; a few tags break BIO.
msra = Tagging(
    "dh_msra.txt[:80%]", "dh_msra.txt[80%:90%]", "dh_msra.txt[90%:]", "any", 0, -1, ("LOC", "ORG", "PER"), 4_626, 4_626
)
TASKS = {"conll2003": conll2003, "conll2000": conll2000, "ud_english": ud_english, "msra": msra}
