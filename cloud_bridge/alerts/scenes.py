"""Cameras that look at one scene, read together: a fall that one camera half sees, and another half, is an alert.

    readings of one camera --its own rule, as without a scene--------------------> its own alert
             `-> its log odds + w * what the others add, while their events overlap --> the scene's alert, a warning

What another view adds is its log odds of a label above those of a view that cannot tell, and never less than nothing:
one that sees nothing, is offline or lies takes nothing away (docs/scenes.md has what a veto would cost). What a camera
raises alone is raised whatever others of its scene say. Pure: it is told the time.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from cloud_bridge.alerts.lifecycle import CONDITIONS, AlertBook, AlertChange, CountingRule, Together
from cloud_bridge.alerts.rules import AlertRule
from cloud_bridge.alerts.severity import severity_of
from familial.evaluate.sequential import Moment
from wire.errors import ConfigError
from wire.privacy.certificate import CAMERAS
from wire.protocol.message import SEVERITIES

__all__ = ["WEIGHT", "SceneBook", "SceneConfig", "Scenes", "prior_log_odds", "read_together"]

WEIGHT = 1.0
"""What another view counts against the own one; learned on 70 rendered scenes (python -m benchmarks.scenes)."""

_SURE = 1e-6  # of a probability: its log odds are not without bound
_OWN, _SCENE, _COUNT = "own ", "scene ", "count "  # before a label, in what is kept over a restart
_WARNING = SEVERITIES[1]
_NOWHERE = Moment(0, 0, 0)  # a rule that counts verdicts does not look where they lie


@dataclass(frozen=True, slots=True)
class SceneConfig:
    """One scene.

    Attributes:
        name: Shown in its alerts.
        cameras: `site/camera` of those that look at it, all of one site.
        weight: What another view counts against a camera's own, 0 to 1.

    Raises:
        ConfigError: There are fewer than two or more than four, one is there twice, or they are of several sites.
    """

    name: str
    cameras: list[str] | tuple[str, ...]
    weight: float = WEIGHT

    def __post_init__(self) -> None:
        if not 1 <= len(self.name) <= 64 or not self.name.isprintable():
            raise ConfigError(f"name is {self.name!r}; write 1 to 64 printable characters")
        if len(set(self.cameras)) != len(self.cameras) or not 2 <= len(self.cameras) <= CAMERAS[-1]:
            most = f"a scene has two or more, up to the {CAMERAS[-1]} that certificates state"
            raise ConfigError(f"{self.name}: cameras has {len(set(self.cameras))} different ones; {most}")
        sites = sorted({each.partition("/")[0] for each in self.cameras})
        if len(sites) > 1:
            raise ConfigError(f"{self.name}: its cameras are of {', '.join(sites)}; a scene is of one site")
        if not 0.0 <= self.weight <= 1.0:
            raise ConfigError(
                f"{self.name}: weight is {self.weight}; give 0 to 1: no view counts more than the own one"
            )


@dataclass(slots=True)
class _View:
    end_s: float = -math.inf
    probabilities: Mapping[str, float] = field(default_factory=dict)


class Scenes:
    """The newest reading of each camera that is of a scene."""

    def __init__(self, scenes: Sequence[SceneConfig], event_s: float) -> None:
        """Begin without a reading. event_s: how long an event lasts."""
        self._event_s = event_s
        self._of = {camera: scene for scene in scenes for camera in scene.cameras}
        self._views = {camera: _View() for camera in self._of}

    def has(self, camera: str) -> bool:
        """Whether a camera is of a scene."""
        return camera in self._of

    def others(self, camera: str) -> Sequence[str]:
        """The other cameras of a camera's scene; none where it is of none."""
        return [each for each in self._of[camera].cameras if each != camera] if camera in self._of else []

    def take(
        self, camera: str, probabilities: Mapping[str, float], now_s: float, raised: Mapping[str, Sequence[str]]
    ) -> Together | None:
        """Take the reading of a camera's newest event; None where the camera is of no scene.

        Args:
            camera: Whose it is.
            probabilities: Label -> probability, in the model's order; the first label is no risk.
            now_s: When its newest release came, by this machine's clock: devices tell whole minutes.
            raised: Each of the `others` that is read here -> labels of its open alerts.
        """
        scene = self._of.get(camera)
        if scene is None:
            return None
        self._views[camera] = _View(now_s, probabilities)
        there = {name: self._views[name].probabilities for name in raised if self._overlaps(name, now_s)}
        risks = list(probabilities)[1:]
        prior = prior_log_odds(len(probabilities))
        found = {
            label: read_together(probabilities[label], [each[label] for each in there.values()], scene.weight, prior)
            for label in risks
        }
        words = {label: _words(scene.name, camera, label, {camera: probabilities, **there}) for label in risks}
        opened = {label for labels in raised.values() for label in labels}
        return Together({**probabilities, **found}, opened, words)

    def _overlaps(self, camera: str, now_s: float) -> bool:
        return abs(now_s - self._views[camera].end_s) < self._event_s


class SceneBook(AlertBook):
    """The raised alerts of a camera of a scene: its own, and those that only the views together raise.

    An alert of the views together is a warning; it becomes critical, and is told again, when the camera's own reading
    raises it. While another camera of the scene has the same alert open, the views together raise no second one.
    """

    def __init__(self, rule: AlertRule, raised: list[str], in_a_row: Mapping[str, int] = MappingProxyType({})) -> None:
        """Begin with what is raised; the arguments are those of `AlertBook`."""
        super().__init__(rule, raised, _without(in_a_row, (_OWN, _SCENE, _COUNT)))
        self._together = CountingRule(rule, _only(in_a_row, _COUNT))
        own, scene = ([*_only(in_a_row, which)] for which in (_OWN, _SCENE))
        risks = [label for label in raised if label not in (*own, *scene, *CONDITIONS)]
        self._own, self._scene = [label for label in own if label in raised] + risks, scene

    def update(
        self,
        probabilities: Mapping[str, float],
        attributes: Mapping[str, float] = MappingProxyType({}),
        at: Moment = _NOWHERE,
        views: Together | None = None,
    ) -> list[AlertChange]:
        """Take the reading of the next event and return what changes; views: of its scene."""
        views = views or Together(probabilities)
        before, found = set(self._own), list[AlertChange]()
        for label, p in self._rule.turning(probabilities, attributes, at, self._own):
            _toggle(self._own, label)
            found += [self._turn(label, p)] if label not in probabilities else []  # of a budget that is no more
        for label, _ in self._together.turning(views.probabilities, attributes, at, self._scene):
            _toggle(self._scene, label)
        for label in list(probabilities)[1:]:
            found += self._change(label, probabilities[label], views, label in before)
        return found

    def _change(self, label: str, p: float, views: Together, was_own: bool) -> list[AlertChange]:
        own, is_open = label in self._own, label in self.raised
        by_all = label in self._scene and (is_open or label not in views.open)
        words = views.words.get(label, "")
        if is_open != (own or by_all):
            severity = "" if own or is_open else _WARNING
            turned = self._turn(label, p if own or is_open else views.probabilities[label])
            return [AlertChange(label, turned.raised, turned.probability, severity, words if turned.raised else "")]
        if is_open and own and not was_own:
            return [AlertChange(label, True, p, severity_of(label), words)]
        return []

    def pause(self) -> None:
        super().pause()
        self._together.pause()

    @property
    def in_a_row(self) -> dict[str, int]:
        """What both rules keep over a restart."""
        flags = {_OWN + label: 1 for label in self._own} | {_SCENE + label: 1 for label in self._scene}
        counts = {_COUNT + label: count for label, count in self._together.saved.items()}
        return {**super().in_a_row, **flags, **counts}


def read_together(own: float, others: Iterable[float], weight: float, prior: float) -> float:
    """The probability of a label by all views: at least `own`.

    Args:
        own: Probability by the camera itself.
        others: By the other views.
        weight: What one of those counts.
        prior: Log odds of a view that cannot tell.
    """
    added = weight * sum(max(0.0, _log_odds(p) - prior) for p in others)
    return max(own, 1.0 / (1.0 + math.exp(-_log_odds(own) - added))) if added else own


def prior_log_odds(labels: int) -> float:
    """Log odds of one label where all are as likely."""
    return -math.log(max(1, labels - 1))


def _log_odds(p: float) -> float:
    bounded = min(max(p, _SURE), 1.0 - _SURE)
    return math.log(bounded) - math.log1p(-bounded)


def _words(scene: str, camera: str, label: str, views: Mapping[str, Mapping[str, float]]) -> str:
    """Such as `scene room-3: door 0.55, bed 0.48`."""
    said = ", ".join(f"{name.partition('/')[2]} {each[label]:.2f}" for name, each in views.items())
    return f"scene {scene}: {said}"


def _toggle(labels: list[str], label: str) -> None:
    if label in labels:
        labels.remove(label)
    else:
        labels.append(label)


def _only(saved: Mapping[str, int], start: str) -> dict[str, int]:
    return {name.removeprefix(start): count for name, count in saved.items() if name.startswith(start)}


def _without(saved: Mapping[str, int], starts: tuple[str, ...]) -> dict[str, int]:
    return {name: count for name, count in saved.items() if not name.startswith(starts)}
