"""What was measured, against which bar, and how both are shown."""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Literal

from msgspec import Struct, json
from rich.console import Console
from rich.table import Table

TIMES = "×"  # noqa: RUF001  as it is written

# --- Numbers -----------------------------------------------------------------------------------------------------


class Series(Struct, frozen=True):
    """Repetitions of one measurement."""

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        return median(self.values)

    @property
    def spread(self) -> float:
        """How far the repetitions lie apart, as a share of their median."""
        return (max(self.values) - min(self.values)) / self.median if self.median else 0.0

    def over(self, other: "Series") -> "Series":
        """The ratio of each repetition to the other side's of the same round: what slowed both cancels out."""
        return Series(tuple(ours / theirs for ours, theirs in zip(self.values, other.values, strict=True)))


def interleaved(sides: dict[str, Callable[[], float]], rounds: int) -> dict[str, Series]:
    """A B A B …: each side once a round, every second round in reverse order."""
    found: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(rounds):
        for name in reversed(sides) if number % 2 else sides:
            found[name].append(sides[name]())
    return {name: Series(tuple(values)) for name, values in found.items()}


def quantile(values: Sequence[float], share: float) -> float:
    """The value that `share` of all values do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


# --- Bars --------------------------------------------------------------------------------------------------------


class Limit(Struct, frozen=True):
    """What must be reached; `unit` as it is shown."""

    sign: Literal["≥", "≤"]
    value: float
    unit: str = TIMES

    def met_by(self, value: float) -> bool:
        return value >= self.value if self.sign == "≥" else value <= self.value


class Bar(Struct, frozen=True, kw_only=True):
    """One line of the table. `limit` None: for comparison only. `proof`: missing it is an error, not slowness."""

    what: str
    series: Series
    limit: Limit | None = None
    unit: str = TIMES
    told: str = ""
    proof: bool = False

    @property
    def met(self) -> bool | None:
        return self.limit.met_by(self.series.median) if self.limit else None

    @property
    def broken(self) -> bool:
        return self.proof and self.met is False


class Group(Struct, frozen=True):
    """The bars of one module, or why there are none. `seconds` is what measuring took."""

    name: str
    bars: tuple[Bar, ...]
    seconds: float
    error: str | None = None


# --- Shown -------------------------------------------------------------------------------------------------------


def show(groups: Sequence[Group], title: str, console: Console) -> None:
    table = Table(title=title, title_justify="left", caption_justify="left", header_style="bold", pad_edge=False)
    for header in ("what", "measured", "spread", "bar", ""):
        table.add_column(header, justify="left" if header == "what" else "right", no_wrap=header != "what")
    for group in groups:
        table.add_section()
        for bar in group.bars:
            what = f"{bar.what}\n[dim]{bar.told}[/dim]" if bar.told else bar.what
            table.add_row(what, _number(bar.series.median, bar.unit), _spread(bar.series), _limit(bar), _verdict(bar))
        if group.error:
            table.add_row(f"{group.name}\n[red]{group.error}[/red]", "", "", "", "[red]failed[/red]")
    console.print(table)
    bars = [bar for group in groups for bar in group.bars if bar.limit]
    missed = [bar.what for bar in bars if not bar.met]
    console.print(f"{len(bars) - len(missed)} of {len(bars)} bars met" + "".join(f"\n  missed: {w}" for w in missed))


def _number(value: float, unit: str) -> str:
    digits = 0 if value >= 100 or value == int(value) else 2 if value < 10 else 1
    return f"{value:,.{digits}f} {unit}"


def _spread(series: Series) -> str:
    return f"±{50 * series.spread:.0f} %" if len(series.values) > 1 else ""


def _limit(bar: Bar) -> str:
    return f"{bar.limit.sign} {bar.limit.value:,g} {bar.limit.unit}" if bar.limit else ""


def _verdict(bar: Bar) -> str:
    return {True: "[green]met[/green]", False: "[bold red]missed[/bold red]", None: ""}[bar.met]


def write(groups: Sequence[Group], machine: Mapping[str, str | int], file: Path, *, quick: bool) -> None:
    """All of it as JSON: each repetition, and what it was measured on."""
    document = {
        "at": datetime.now(UTC),
        "quick": quick,
        "machine": machine,
        "groups": [
            {
                "name": group.name,
                "seconds": round(group.seconds, 1),
                "error": group.error,
                "bars": [
                    {
                        "what": bar.what,
                        "unit": bar.unit,
                        "median": bar.series.median,
                        "values": bar.series.values,
                        "limit": bar.limit and f"{bar.limit.sign} {bar.limit.value:g}",
                        "met": bar.met,
                        "told": bar.told,
                    }
                    for bar in group.bars
                ],
            }
            for group in groups
        ],
    }
    file.write_bytes(json.format(json.encode(document), indent=2) + b"\n")
