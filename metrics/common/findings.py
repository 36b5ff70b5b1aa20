"""What the judgement has to say beside numbers: problems, which void it, and warnings."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd


NAMED_AT_MOST = 5


@dataclass(frozen=True)
class Finding:
    """One statement, the pictures that it is about, and what to do next."""

    text: str
    names: list[str] = field(default_factory=list)
    advice: str = ""

    def __str__(self) -> str:
        names = f": {self.named()}" if self.names else ""
        return f"{self.text}{names}" + (f"; {self.advice}" if self.advice else "")

    def named(self) -> str:
        """The first names, and how many more there are."""
        more = len(self.names) - NAMED_AT_MOST
        first = ", ".join(map(repr, self.names[:NAMED_AT_MOST]))
        return f"{first} and {more:,} more" if more > 0 else first


def names_of(rows: "pd.DataFrame") -> list[str]:
    """The pictures of `rows`, each once."""
    return list(dict.fromkeys(rows["image_key"]))
