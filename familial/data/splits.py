"""Who renders which clips: one table of seed ranges, so that what is measured was never seen in training.

    clip_seeds("frontier", 150) -> range of 150 seeds for `render_clip`        identities("audit_people", 20) -> range

A rendered clip is a function of its seed, so two users with disjoint ranges share no scene. To render clips for
something new, add a row; a test holds that no two rows overlap. Moving a row changes the figures measured on it.
"""

from __future__ import annotations

from dataclasses import dataclass

from wire.errors import DataError

__all__ = ["CLIPS", "IDENTITIES", "SeedRange", "clip_seeds", "identities"]


@dataclass(frozen=True, slots=True)
class SeedRange:
    """The seeds first..end-1, and what they are for."""

    first: int
    end: int
    use: str

    def take(self, count: int) -> range:
        """The first `count` seeds; DataError where the range has fewer."""
        if not 0 <= count <= self.end - self.first:
            raise DataError(f"{self.use}: {count} rendered clips asked for; give 0 to {self.end - self.first}")
        return range(self.first, self.first + count)


# fmt: off
CLIPS = {
    "training":       SeedRange(        0,   400_000, "clips that familial.train learns from"),
    "fusion":         SeedRange(  400_000,   500_000, "clips of familial.train --freeze-motion: new to that tower"),
    "people":         SeedRange(  500_000,   900_000, "people without a picture that familial.train learns from"),
    "audit_people":   SeedRange(  900_000, 1_000_000, "rooms of the people whom calibration.audit tries to name"),
    "held_out":       SeedRange(1_000_000, 1_400_000, "clips on which familial.train scores and calibrates"),
    "audit_bodies":   SeedRange(1_400_000, 1_500_000, "rooms of people whose build calibration.audit tries to infer"),
    "ood_reference":  SeedRange(2_000_000, 2_100_000, "rooms that familial.evaluate.ood counts as known"),
    "int8":           SeedRange(7_300_000, 7_400_000, "clips on which calibration.int8 measures quantisation ranges"),
    "quantization":   SeedRange(7_400_000, 7_450_000, "clips on which familial.quantize calibrates"),
    "quantization_judged": SeedRange(7_450_000, 7_500_000, "clips of benchmarks.quantized"),
    "engines":        SeedRange(8_100_000, 8_200_000, "clips of benchmarks.engines"),
    "frontier":       SeedRange(8_200_000, 8_300_000, "clips of benchmarks.frontier"),
    "attributes":     SeedRange(8_300_000, 8_400_000, "clips of benchmarks.attributes"),
    "adaptive_level": SeedRange(8_400_000, 8_500_000, "clips of benchmarks.adaptive_level"),
    "alarms":         SeedRange(8_600_000, 8_700_000, "rooms and risks of benchmarks.alarms"),
    "alerts":         SeedRange(8_700_000, 8_800_000, "rooms and risks of calibration.alerts"),
    "dfil":           SeedRange(8_500_000, 8_600_000, "clips of benchmarks.dfil"),
    "detector":       SeedRange(8_800_000, 8_900_000, "clips of benchmarks.detector"),
    "contour":        SeedRange(8_900_000, 8_980_000, "clips that familial.contour.train learns from"),
    "contour_judged": SeedRange(8_980_000, 9_000_000, "clips of benchmarks.contour"),
    "scenes":         SeedRange(9_000_000, 9_100_000, "scenes of benchmarks.scenes, seen by two cameras"),
    "long_memory":    SeedRange(9_100_000, 9_200_000, "rooms of benchmarks.long_memory"),
    "sentences":      SeedRange(9_210_000, 9_300_000, "clips of benchmarks.sentences"),
    "mistakes":       SeedRange(9_300_000, 9_400_000, "clips of benchmarks.mistakes"),
    "encounters":     SeedRange(9_400_000, 9_500_000, "two who meet, without a picture, for familial.train"),
    "aided":          SeedRange(9_500_000, 9_600_000, "wheelchairs and walking frames, likewise"),
    "kinds":          SeedRange(9_600_000, 9_700_000, "clips of benchmarks.kinds"),
    "everyday":       SeedRange(9_700_000, 9_800_000, "people on an ordinary day, as encounters"),
}
"""Use -> seeds of `render_clip`."""

IDENTITIES = {
    "audit_people": SeedRange(40_000,  60_000, "people whom calibration.audit tries to name"),
    "audit_bodies": SeedRange(60_000, 100_000, "people whose build calibration.audit tries to infer"),
}
# fmt: on
"""Use -> seeds of a person's build and clothes (`cast`). Clips without a cast draw theirs from 2^31 numbers."""


def clip_seeds(use: str, count: int) -> range:
    """`count` seeds of the row `use` of `CLIPS`; DataError where it has fewer, and for a use without a row."""
    return _row(CLIPS, use).take(count)


def identities(use: str, count: int) -> range:
    """`count` identities of the row `use` of `IDENTITIES`; DataError as in `clip_seeds`."""
    return _row(IDENTITIES, use).take(count)


def _row(table: dict[str, SeedRange], use: str) -> SeedRange:
    if use not in table:
        raise DataError(f"{use!r} has no range of seeds; known are {', '.join(table)}: add a row in data/splits.py")
    return table[use]
