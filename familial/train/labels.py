"""Labels that a base does not know yet: `familial.train --labels` grows prototypes, words and rows.

config of the base --with_labels--> config with more labels, their tokens behind those of the others
LABEL in the manifest, or a tag of the renderer (`synth.tags.TAGS`) --tagged--> what there is to learn it from

Class prototypes follow from the number of labels (`model.code_space`): those that there were stay where they are.
`checkpoint.adopt` copies the rows of every label and word that the base has; a new one begins fresh.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from familial.data.events import Annotation, LabelledClip
from familial.data.labels import LABELS, plain_caption
from familial.data.manifests import UNSCORED
from familial.model.code_space import MOST_LABELS
from familial.model.config import FamilyConfig
from familial.model.vocabulary import FIRST_LABEL, Vocabulary
from familial.synth.tags import TAGS
from wire.errors import ConfigError

__all__ = ["rendered_labels", "tagged", "with_labels", "with_words"]

_NAME = re.compile(r"[a-z][a-z_]{0,30}")
_LEAST_S = 1.0  # of a tag, to be a label


def with_labels(config: FamilyConfig, labels: Sequence[str]) -> FamilyConfig:
    """Return `config` with these labels; the first are those that it has, in their order.

    Raises:
        ConfigError: labels of the config that are missing or elsewhere, names that are no words, too many.
    """
    known = config.labels
    if tuple(labels[: len(known)]) != known:
        raise ConfigError(
            f"--labels {','.join(labels)}: begin with {','.join(known)}, in this order, then the new ones"
        )
    wrong = [name for name in labels if not _NAME.fullmatch(name) or name == UNSCORED]
    if wrong or len(set(labels)) != len(labels):
        what = f"{wrong[0]!r} is no name" if wrong else "a name is there twice"
        raise ConfigError(f"--labels {','.join(labels)}: {what}; give different lower-case words, _ for a space")
    if len(labels) > MOST_LABELS:
        raise ConfigError(f"--labels: {len(labels)} labels; the circle of class prototypes has room for {MOST_LABELS}")
    special = Vocabulary.of_captions((), tuple(labels), config.attributes).words
    words = config.words[FIRST_LABEL + len(known) + len(config.attributes) :]
    risk = config.label_bias[-1]  # all risks of a base have one bias
    bias = (*config.label_bias, *(risk for _ in labels[len(known) :]))
    code_bias = (*config.code_bias, *(0.0 for _ in labels[len(known) :])) if config.code_gain else ()
    return replace(config, labels=tuple(labels), words=(*special, *words), label_bias=bias, code_bias=code_bias)


def with_words(config: FamilyConfig, clips: Sequence[LabelledClip], of_base: bool) -> FamilyConfig:
    """Return `config` with the words of all captions: behind its own where it is `of_base`, else in their place."""
    words = Vocabulary.of_captions((clip.caption for clip in clips), config.labels, config.attributes).words
    known = config.words if of_base else ()  # begin with the special tokens, as `words` do
    return replace(config, words=(*known, *(word for word in words if word not in known)))


def rendered_labels(labels: Sequence[str]) -> set[str]:
    """Those of `labels` that rendered clips show."""
    return {label for label in labels if label in LABELS or label in TAGS}


def tagged(clip: LabelledClip, labels: Sequence[str]) -> LabelledClip:
    """Return a rendered clip with the labels that are tags of the renderer, where it is normal but for them.

    The first of `labels` that holds for `_LEAST_S` becomes the clip's label, from the frame where it first holds to
    the last; a clip with a risk stays as it is.
    """
    if clip.label or clip.truth is None:
        return clip
    times = clip.footage.times
    for index, label in enumerate(labels):
        if label not in TAGS:
            continue
        shown = np.flatnonzero(clip.truth.tags[:, TAGS.index(label)] > 0)
        if len(shown) and times[shown[-1]] - times[shown[0]] >= _LEAST_S:
            when = Annotation(index, float(times[shown[0]]), float(times[shown[-1]]), sudden=False)
            return replace(clip, label=index, caption=plain_caption(label), annotations=(when,))
    return clip
