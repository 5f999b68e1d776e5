"""What a kind of input is: small valid files, how they are spoilt, and the reader that a user's command would call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from random import Random

from fuzzkit import mutations
from fuzzkit.files import Files

UNALTERED = 50  # every so many cases one is left as it is: it must be read, or the others would show nothing


@dataclass(frozen=True)
class Kind:
    """A kind of input.

    Attributes:
        name: "wfdb".
        make: the valid cases.
        read: reads a case's folder; draws options from the generator.
        first: for each valid case, the file that is mutated most ("" for none).
        spoil: mutations of its own: (rng, files) -> files; one of them in `share` of the cases comes first.
        mend: what an attacker would do at the end: make hashes and lengths right again.
        also: what a refusal may name in place of a file: a data set, whose splits come from several.
        elsewhere: its files may name files of other folders, as recipes name bases.
        links: a link out of the folder, and a pipe, is among the attacks; data folders may hold links, and are trusted.
    """

    name: str
    make: Callable[[], Sequence[Files]]
    read: Callable[[Path, Random], object]
    first: Sequence[str] = ("",)
    spoil: Sequence[Callable[[Random, Files], Files]] = ()
    share: float = 0.3
    mend: Callable[[Random, Files], Files] | None = None
    links: bool = False
    also: Sequence[str] = ()
    elsewhere: bool = False

    @cached_property
    def valid(self) -> Sequence[Files]:
        """The valid cases, made once a process."""
        return self.make()

    def case(self, rng: Random, number: int) -> tuple[Files, bool]:
        """The files of case `number`, and whether they must be read."""
        chosen = rng.randrange(len(self.valid))
        files = self.valid[chosen]
        if number % UNALTERED == 0:
            return files, True
        if self.spoil and rng.random() < self.share:
            files = rng.choice(self.spoil)(rng, dict(files))
            if rng.random() < 0.5:
                return self._mended(rng, files), False
        files = mutations.mutate(rng, files, links=self.links, first=self.first[chosen % len(self.first)])
        return self._mended(rng, files), False

    def _mended(self, rng: Random, files: Files) -> Files:
        return files if self.mend is None or rng.random() < 0.15 else self.mend(rng, files)
