"""One frozen description of a family: everything that shapes its weights, and nothing of a machine.

    FamilyConfig --save--> config.json (Hugging Face form: model_type, architectures) --load--> FamilyConfig

The noise is not here: `calibration.noise` chooses it and writes it beside config.json. The config holds the profile
of the training alone, since the adapter measures z in units of that sigma.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from familial.data.labels import LABELS
from wire.artifact.manifest import WindowSpec
from wire.errors import CheckpointError
from wire.privacy.certificate import PROFILES, sigma_for

__all__ = ["HUB_CODE", "HUB_FILE", "FamilyConfig", "Quantization", "VisionSpec", "nano"]

_HUB = "veilsight_hub"
_AUTO = {"AutoConfig": f"{_HUB}.VeilsightConfig", "AutoModel": f"{_HUB}.VeilsightModel"}
_FORM = {"model_type": "veilsight", "architectures": ["VeilsightModel"], "auto_map": _AUTO}
HUB_FILE = f"{_HUB}.py"
HUB_CODE = '''"""What AutoConfig and AutoModel load this folder with."""

from familial.model.hub import VeilsightConfig, VeilsightModel

__all__ = ["VeilsightConfig", "VeilsightModel"]
'''
"""What lies beside config.json for transformers' AutoModel."""
_RENAMED = {"risk_at": "decision_threshold", "answers": "attributes"}  # what older checkpoints call them
_STORAGE = ("float16", "bfloat16", "float32")


@dataclass(frozen=True, slots=True)
class VisionSpec:
    """Sizes of a Qwen3-VL vision tower, as in the `vision_config` of its config.json.

    Attributes:
        depth: number of blocks.
        hidden: width of a patch's token.
        mlp: inner width of a block's feed-forward part.
        heads: attention heads.
        out: width of a merged token.
        positions: length of the learned position table.
        patch: side of a patch, pixels.
        merge: patches a side that become one token.
        temporal: frames that become one temporal patch.
        mean: the processor's, per colour channel.
        std: the processor's, per colour channel.
    """

    depth: int
    hidden: int
    mlp: int
    heads: int
    out: int
    positions: int = 2304
    patch: int = 16
    merge: int = 2
    temporal: int = 2
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    std: tuple[float, ...] = (0.5, 0.5, 0.5)

    @property
    def grain(self) -> int:
        """Pixels that a frame's sides must be multiples of: one merged token."""
        return self.patch * self.merge


@dataclass(frozen=True, slots=True)
class Quantization:
    """How a folder holds the matrices of the blocks behind the edge's exit (`model.packed`); CheckpointError else.

    Attributes:
        bits: of a weight: 2, 3, 4 or 8.
        group: weights of a row that share a scale and a zero point.
        method: how the integers were chosen, one of METHODS.
        base: hash of the checkpoint that was quantised.
    """

    bits: int
    group: int
    method: str
    base: str

    BITS: ClassVar[tuple[int, ...]] = (2, 3, 4, 8)
    METHODS: ClassVar[tuple[str, ...]] = ("nearest", "gptq", "vlmq")

    def __post_init__(self) -> None:
        found = []
        if type(self.bits) is not int or self.bits not in self.BITS:
            found.append(f"bits is {self.bits!r}, known are {', '.join(map(str, self.BITS))}")
        if type(self.group) is not int or not 8 <= self.group <= 4096:
            found.append(f"group is {self.group!r}, it must be 8 to 4096 weights")
        if self.method not in self.METHODS:
            found.append(f"method is {self.method!r}, known are {', '.join(self.METHODS)}")
        if not isinstance(self.base, str) or not re.fullmatch(r"[0-9a-f]{64}", self.base):
            found.append(f"base is {self.base!r}, it must be a hash of 64 hex digits")
        if found:
            raise CheckpointError("quantization: " + "; ".join(found))


@dataclass(frozen=True, slots=True)
class FamilyConfig:
    """The sizes of one family; CheckpointError for sizes that do not fit together.

    Attributes:
        window: what the edge sees.
        words: the vocabulary, at most 1,000 words; special and label tokens first.
        family: its name.
        labels: what a verdict may be; `labels[0]` is the one without risk.
        tokens: K, tokens of a code.
        width: d, integers of a token.
        clip_norm: C, the largest Euclidean norm of a code.
        event_releases: R, releases of an event.
        profile: the privacy profile that gives the noise in training.
        tower: a name in `towers.registry.TOWERS`.
        channels: of the motion tower's convolutions.
        crop: side of the motion tower's crops, pixels.
        people_width: of the people tower's convolutions, where the tower is "fused".
        adapter: "tokens": every release is read as K tokens of d integers; "plane": as one token, of the coordinates in
            the plane in which codes lie; it needs a `rank`.
        rank: directions in which the labels' codes lie, 0 for all n. A code of few carries little but the verdict.
        code_gain: above 0, codes are sharpened towards the prototypes (`desensitizer.Sharpen`); it needs a `rank` of 2.
        code_bias: of each label in that, one for each label.
        late_fusion: weights of the logits of a fused tower's motion and people, whose sum the codes then say, and the
            people's logit of label 0 where nobody is seen (`desensitizer.LateFusion`); it needs a `code_gain` and
            `attributes`. Empty: codes are learned from the features of both.
        attributes: what else the cloud says of an event without risk: the share of the time in which each holds. Their
            codes lie in further directions beside the labels' plane, one fewer than there are attributes.
        drop: dropout rate before the code, in training.
        hidden: width of the backbone.
        layers: blocks of the backbone.
        heads: attention heads of the backbone.
        mlp: inner width of a block's feed-forward part.
        caption_words: longest caption.
        label_bias: added to the calibrated logits of both exits.
        temperature: divides the label logits of both exits. It and the bias are fitted on held-out events, so that
            probabilities are calibrated where risk and normal are equally frequent.
        decision_threshold: a clip is called by its likeliest risk when its probability of risk reaches this.
        kv_heads: key and value heads; 0 stands for `heads`.
        head_dim: width of a head; 0 stands for hidden / heads.
        rope_theta: base of the rotary positions.
        norm_eps: of the RMS norms.
        tied: the word embedding is also the word head.
        exit_at: the edge's exit comes after so many blocks, the cloud's after all.
        exit_block: "shared": the edge's last block is the cloud's own; "branch": the edge has one of its own there.
        vision: sizes of the Qwen tower.
        experts: of every block of the backbone, a mixture of experts; 0: blocks are dense. The edge's own block always
            is, so its exit is a branch before the first block of experts.
        experts_chosen: experts that compute a token.
        expert_mlp: inner width of an expert.
        storage: number format of the weights of a base in the checkpoint.
        quantization: how the folder holds the blocks behind the edge's exit; None: like all other weights. A family in
            memory has floats and None.
    """

    window: WindowSpec
    words: tuple[str, ...]
    family: str = "nano"
    labels: tuple[str, ...] = LABELS
    tokens: int = 4
    width: int = 16
    clip_norm: int = 64
    event_releases: int = 8
    profile: str = "balanced"
    tower: str = "snippets"
    channels: tuple[int, ...] = (24, 48, 64, 64, 96, 96)
    crop: int = 56
    people_width: int = 96
    adapter: str = "tokens"
    rank: int = 0
    code_gain: float = 0.0
    code_bias: tuple[float, ...] = ()
    late_fusion: tuple[float, ...] = ()
    attributes: tuple[str, ...] = ()
    drop: float = 0.0
    hidden: int = 128
    layers: int = 4
    heads: int = 4
    mlp: int = 256
    caption_words: int = 12
    label_bias: tuple[float, ...] = field(default=())
    temperature: float = 1.0
    decision_threshold: float = 0.5
    kv_heads: int = 0
    head_dim: int = 0
    rope_theta: float = 10000.0
    norm_eps: float = 1e-6
    tied: bool = True
    exit_at: int = 1
    exit_block: str = "shared"
    vision: VisionSpec | None = None
    storage: str = "float16"
    experts: int = 0
    experts_chosen: int = 0
    expert_mlp: int = 0
    quantization: Quantization | None = None

    def __post_init__(self) -> None:
        if not self.label_bias:
            object.__setattr__(self, "label_bias", (0.0,) * len(self.labels))
        problems = list(self._problems())
        if problems:
            raise CheckpointError("family config: " + "; ".join(problems))

    def _problems(self) -> list[str]:
        found = []
        if self.tokens * self.width * self.clip_norm**2 >= 2**31:
            found.append(
                f"tokens * width * clip_norm^2 with clip_norm {self.clip_norm} overflows int32: lower clip_norm"
            )
        if self.clip_norm < 2:
            found.append(f"clip_norm is {self.clip_norm}, it must be at least 2")
        if len(self.words) > 1000:
            found.append(f"words has {len(self.words)} entries, a vocabulary holds at most 1000")
        if not self.head_dim and (self.hidden % self.heads or (self.hidden // self.heads) % 2):
            found.append(f"hidden {self.hidden} does not divide into {self.heads} heads of even width")
        if self.kv_heads and self.heads % self.kv_heads:
            found.append(f"heads {self.heads} do not share {self.kv_heads} kv_heads evenly")
        if not 1 <= self.exit_at <= self.layers:
            found.append(f"exit_at is {self.exit_at}, the backbone has blocks 1 to {self.layers}")
        if self.exit_block not in ("shared", "branch"):
            found.append(f"exit_block is {self.exit_block!r}, known are 'shared' and 'branch'")
        if self.experts and (self.exit_block != "branch" or self.exit_at != 1):
            found.append(f"{self.experts} experts, which no edge holds: exit_block must be 'branch', exit_at 1")
        if self.experts and not (1 <= self.experts_chosen <= self.experts and self.expert_mlp > 0):
            found.append(
                f"{self.experts} experts, {self.experts_chosen} chosen, of width {self.expert_mlp}: no mixture"
            )
        if not all(math.isfinite(value) for value in (self.code_gain, *self.code_bias)):
            found.append(f"code_gain is {self.code_gain}, code_bias {self.code_bias}: give finite numbers")
        if self.adapter not in ("tokens", "plane"):
            found.append(f"adapter is {self.adapter!r}, known are 'tokens' and 'plane'")
        if self.adapter == "plane" and not self.rank:
            found.append("adapter is 'plane', but rank is 0: codes lie in all directions; give 'tokens'")
        if self.code_gain < 0 or (self.code_gain and self.rank != 2):
            found.append(f"code_gain is {self.code_gain:g}, rank {self.rank}: give 0, or more and a rank of 2")
        if self.late_fusion:
            found += self._fusion_problems()
        if len(self.code_bias) != (len(self.labels) if self.code_gain else 0):
            found.append(f"code_bias has {len(self.code_bias)} entries: one for each label with a code_gain, else none")
        if self.storage not in _STORAGE:
            found.append(f"storage is {self.storage!r}, known are {', '.join(_STORAGE)}")
        if self.tower == "qwen":
            found += self._vision_problems()
        if not self.temperature > 0:
            found.append(f"temperature is {self.temperature}, it must be positive")
        if len(self.label_bias) != len(self.labels):
            found.append(f"label_bias has {len(self.label_bias)} entries for {len(self.labels)} labels")
        if self.attributes and (not self.rank or self.rank + len(self.attributes) - 1 > self.n):
            found.append(f"attributes has {len(self.attributes)} entries: rank {self.rank} of {self.n} leaves no room")
        if self.profile not in PROFILES:
            found.append(f"profile is {self.profile!r}, known are {sorted(PROFILES)}")
        return found

    def _fusion_problems(self) -> list[str]:
        found, given = [], ",".join(f"{share:g}" for share in self.late_fusion)
        if len(self.late_fusion) != 3 or not all(0 < each < math.inf for each in self.late_fusion):
            found.append(f"late_fusion is {given}: give three numbers above 0, for motion, people and nobody")
        if self.tower != "fused" or not self.code_gain or not self.attributes:
            found.append(f"late_fusion is {given}: it needs a fused tower, a code_gain and attributes")
        return found

    def _vision_problems(self) -> list[str]:
        if self.vision is None:
            return ["tower is 'qwen', but there is no vision"]
        window, grain, found = self.window, self.vision.grain, []
        if window.height % grain or window.width % grain:
            found.append(f"frames of {window.width} x {window.height} are not made of {grain} x {grain} pixels")
        if window.frames % self.vision.temporal:
            found.append(f"{window.frames} frames are not made of {self.vision.temporal} at a time")
        if self.vision.hidden % self.vision.heads or (self.vision.hidden // self.vision.heads) % 4:
            found.append(f"vision.hidden {self.vision.hidden} does not divide into {self.vision.heads} heads by fours")
        return found

    @property
    def n(self) -> int:
        """Coordinates of one code."""
        return self.tokens * self.width

    @property
    def release_tokens(self) -> int:
        """T, tokens of the backbone that one release becomes."""
        return 1 if self.adapter == "plane" else self.tokens

    @property
    def aside(self) -> int:
        """Number of directions of the attributes' codes."""
        return max(0, len(self.attributes) - 1)

    @property
    def sigma(self) -> float:
        """Standard deviation of the noise in training: a scale for the adapter, not the sampler's parameter."""
        return float(sigma_for(self.clip_norm, PROFILES[self.profile], self.event_releases))

    def save(self, path: Path) -> None:
        """Write config.json."""
        form = _FORM | {"torch_dtype": self.storage}
        path.write_text(json.dumps(form | dataclasses.asdict(self), indent=1) + "\n")

    @classmethod
    def load(cls, path: Path) -> FamilyConfig:
        """Read config.json; CheckpointError for fields that are unknown, missing or of the wrong type."""
        try:
            found: dict[str, Any] = json.loads(path.read_text())
        except (OSError, ValueError) as error:
            raise CheckpointError(f"{path}: not readable as JSON ({error})") from error
        if found.get("model_type") != _FORM["model_type"]:
            raise CheckpointError(f"{path}: model_type is {found.get('model_type')!r}, expected 'veilsight'")
        fields = {_RENAMED.get(key, key): value for key, value in found.items() if key not in (*_FORM, "torch_dtype")}
        try:
            fields["window"] = WindowSpec(**fields["window"])
            if fields.get("vision") is not None:
                fields["vision"] = VisionSpec(**_tuples(fields["vision"]))
            if fields.get("quantization") is not None:
                fields["quantization"] = Quantization(**fields["quantization"])
            return cls(**_tuples(fields))
        except (KeyError, TypeError) as error:
            raise CheckpointError(f"{path}: {error}; the file belongs to another version of the family") from error


def _tuples(fields: dict[str, Any]) -> dict[str, Any]:
    """Lists, as JSON has them, as tuples."""
    return {key: tuple(value) if isinstance(value, list) else value for key, value in fields.items()}


def nano(words: tuple[str, ...]) -> FamilyConfig:
    """The shipped size: under 1.9 million parameters, so its fp16 weights stay below 4 MB."""
    window = WindowSpec(
        height=128, width=128, slot_s=1.0, new_frames=8, context_frames=52, context_step_s=0.125, hold_s=0.5
    )
    return FamilyConfig(window=window, words=words, rank=2, drop=0.2)
