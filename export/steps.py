"""The steps of a build, in order; each prints one line. Imports torch (by trace.py and parity.py) and ONNX.

load --> trace --> set precision --> write noise, certificate, manifest --> prove --> open --> compare --> check

A family whose tower sees people has a third graph, `perceive`, which is made from the person network's own weights.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_runtime.gate.sampler import Sampler
from export import parity, trace
from export.backends.runners import Backend, Runner
from export.describe import described
from export.inputs import Inputs
from export.perceive.weights import FOLDER
from export.person_network import compare_half_heads, compare_heads, person_graph
from export.precision.convert import PRECISIONS, Calibration, in_precision
from export.proof.structure import OPSET, WEIGHTS_SUFFIX, save_graph
from export.proof.verify_graph import prove_folder, prove_graph
from export.requirements import requirements
from export.trace import Family
from wire.artifact.interface import GRAPHS
from wire.artifact.manifest import FILES, EngineManifest, sha256_file
from wire.errors import CheckpointError
from wire.privacy.certificate import Certificate
from wire.privacy.level_rule import LevelRule
from wire.privacy.noise_table import NoiseTable

if TYPE_CHECKING:
    from onnx import ModelProto

__all__ = ["Build"]

_STEPS = 7


class _Progress:
    """Prints a line for each step: number, name, seconds, results; and lines within a step that takes long."""

    def __init__(self) -> None:
        self._step, self._lead = 0, ""

    def say(self, text: str) -> None:
        """Print a line within a step."""
        print(f"\n      {text}", end="", flush=True)
        self._lead = f"\n{'':32}"

    @contextmanager
    def step(self, name: str) -> Iterator[list[str]]:
        """Time a block, which appends its results to the list."""
        self._step += 1
        print(f"[{self._step}/{_STEPS}] {name:26}", end="", flush=True)
        started, results = time.monotonic(), list[str]()
        try:
            yield results
        except BaseException:
            print("failed", flush=True)
            raise
        print(f"{self._lead}{time.monotonic() - started:6.1f} s  {'; '.join(results)}", flush=True)
        self._lead = ""


@dataclass
class Build:
    """One build of an engine.

    Attributes:
        checkpoint: The checkpoint folder.
        folder: An empty folder, which receives all files of the engine.
        inputs: Hashes and versions of the checkpoint when it was read; they go into the manifest.
        engine: The backend in which the graphs are opened and compared with torch.
        weights: Where the person network's weights lie; read for a family that sees people.
    """

    checkpoint: Path
    folder: Path
    inputs: Inputs
    engine: Backend
    weights: Path = FOLDER
    _progress: _Progress = field(default_factory=_Progress)

    def run(self) -> EngineManifest:
        """Make the engine. Raises a VeilsightError that names the step's fault and its cure."""
        family, tables = self._load()
        traced, weights_in = self._trace(family)
        certificate = self._certificate(family)
        graphs, half = self._set_precision(family, traced, tables[0], weights_in, certificate)
        manifest = self._write_manifest(family, tables, graphs, certificate)
        self._prove(graphs, manifest)
        self._compare(family, self._open(), tables[0], traced.get("perceive"), half)
        with self._progress.step("final check") as said:
            for _ in prove_folder(self.folder):
                pass
            said.append(f"model {manifest.model_id:016x}")
        return manifest

    def _load(self) -> tuple[Family, tuple[NoiseTable, ...]]:
        """The family's edge half, and its noise tables: the profile's first, then those of the other levels."""
        with self._progress.step("load checkpoint") as said:
            family = trace.load_family(self.checkpoint)
            config = family.config
            tables = self._noise_tables(config.clip_norm)
            for table in tables:
                Sampler(table, config.tokens * config.width)  # raises for a table that is not sigma's distribution
            said.append(
                f"{config.family}: {_count(family) / 1e6:.2f} M weights, noise of profile {self.inputs.profile}"
            )
        return family, tables

    def _noise_tables(self, clip_norm: int) -> tuple[NoiseTable, ...]:
        """Load the checkpoint's tables and compare them with noise.json and config.json."""
        inputs, checkpoint = self.inputs, self.checkpoint
        cure = f"run: python -m calibration.noise --checkpoint {checkpoint}"
        if inputs.clip_norm != clip_norm:
            raise CheckpointError(
                f"{checkpoint}: noise.json was made for clip_norm {inputs.clip_norm}, config.json says {clip_norm}; "
                f"{cure}"
            )
        tables = NoiseTable.load_all(checkpoint / "noise_table.bin", inputs.noise_table)
        sigmas = [table.sigma for table in tables]
        if sigmas[0] != inputs.sigma or sorted(sigmas[1:]) != sorted(inputs.levels.values()):
            raise CheckpointError(
                f"{checkpoint}: noise_table.bin is for sigma {', '.join(map(str, sigmas))}, noise.json says "
                f"{', '.join(map(str, (inputs.sigma, *inputs.levels.values())))}; {cure}"
            )
        return tables

    def _trace(self, family: Family) -> tuple[dict[str, ModelProto], Path | None]:
        """Make every graph in fp32; returns them and the folder of their large weights (None: in the graphs)."""
        precision = PRECISIONS[self.inputs.precision]
        folders = {"engine": self.folder, "aside": self.folder.with_name("traced"), "graph": None}
        weights_in = folders[precision.traced_weights]
        with self._progress.step("trace") as said:
            trace.require_space(_count(family), self.folder, precision.disk_bytes, self.checkpoint)
            if weights_in is not None:
                weights_in.mkdir(exist_ok=True)
            traced = {
                **self._person_network(family),
                "encode": trace.trace_encode(family, weights_in and weights_in / f"encode{WEIGHTS_SUFFIX}"),
                "decide": trace.trace_decide(family, weights_in and weights_in / f"decide{WEIGHTS_SUFFIX}"),
            }
            said += _sizes(traced)
        return traced, weights_in

    def _person_network(self, family: Family) -> dict[str, ModelProto]:
        """`perceive` in fp32, for a family that sees people. Raises CheckpointError where its weights are not there."""
        if not family.tower.sees_people:
            return {}
        return {"perceive": person_graph(self.inputs.person_frame, self.weights)}

    def _certificate(self, family: Family) -> Certificate:
        config = family.config
        return Certificate(
            clip_norm=config.clip_norm,
            sigma=self.inputs.sigma,
            n=config.n,
            slot_s=config.window.slot_s,
            receptive_field_s=config.window.receptive_field_s,
            event_releases=config.event_releases,
        )

    def _set_precision(
        self,
        family: Family,
        traced: Mapping[str, ModelProto],
        table: NoiseTable,
        weights_in: Path | None,
        certificate: Certificate,
    ) -> tuple[dict[str, ModelProto], dict[str, Any]]:
        """Convert and write the graphs to ship; returns them, and for fp16 the report of `parity.compare_half`."""
        inputs, place = self.inputs, str(weights_in or "")
        with self._progress.step(f"set precision {inputs.precision}") as said:
            calibration = Calibration.load(self.checkpoint, inputs.checkpoint) if inputs.calibration else None
            graphs, half = dict[str, Any](), dict[str, Any]()
            for part, graph in traced.items():
                made = in_precision(part, graph, inputs.precision, calibration, place)
                graphs[part] = described(made, part, inputs.checkpoint, certificate.sha256())
                save_graph(graphs[part], self.folder / GRAPHS[part])
            said += _sizes(graphs)
            if inputs.precision == "fp16":
                half = parity.compare_half(family, traced, graphs, table, place, str(self.folder))
                if "perceive" in traced:
                    half["perceive"] = compare_half_heads(traced["perceive"], graphs["perceive"])
            said += [f"{part} at most {found['peak']:.3g} in float16" for part, found in half.items()]
        return graphs, half

    def _write_manifest(
        self,
        family: Family,
        tables: tuple[NoiseTable, ...],
        graphs: Mapping[str, ModelProto],
        certificate: Certificate,
    ) -> EngineManifest:
        """Write noise tables, certificate, and the manifest that pins every file."""
        made, inputs, config = self.folder, self.inputs, family.config
        (made / FILES["noise_table"]).write_bytes(b"".join(table.to_bytes() for table in tables))
        sees, names = family.tower.sees_people, {**GRAPHS, "noise_table": FILES["noise_table"]}
        hashes = {part: sha256_file(made / name) for part, name in names.items() if sees or part != "perceive"}
        (made / FILES["certificate"]).write_text(certificate.to_json())
        hashes |= {"checkpoint": inputs.checkpoint, "calibration": inputs.calibration}
        hashes["certificate"] = certificate.sha256()
        manifest = EngineManifest(
            family=config.family,
            labels=tuple(config.labels),
            window=config.window,
            tokens=config.tokens,
            width=config.width,
            event_releases=config.event_releases,
            clip_norm=config.clip_norm,
            sigma=inputs.sigma,
            levels=inputs.levels,
            adaptive_level=self._adaptive_level(family),
            profile=inputs.profile,
            precision=inputs.precision,
            opset=OPSET,
            hashes=hashes,
            tools=inputs.tools,
            person_frame=inputs.person_frame if sees else None,
            requires=requirements(graphs),
            external={file.name: sha256_file(file) for file in sorted(made.glob(f"*{WEIGHTS_SUFFIX}"))},
        )
        manifest.save(made)
        return manifest

    def _adaptive_level(self, family: Family) -> LevelRule | None:
        """The level rule around the profile; None unless there are both a level with more noise and one with less."""
        sigmas = sorted({self.inputs.sigma, *self.inputs.levels.values()}, reverse=True)
        level = sigmas.index(self.inputs.sigma)
        if not 0 < level < len(sigmas) - 1:
            return None
        directions = trace.directions(family.config)
        return LevelRule.around(directions, self.inputs.clip_norm, sigmas, level, family.config.event_releases)

    def _prove(self, graphs: Mapping[str, ModelProto], manifest: EngineManifest) -> None:
        with self._progress.step("prove the graphs") as said:
            proved = sum(len(prove_graph(part, graph, manifest, self.folder)) for part, graph in graphs.items())
            said.append(f"{proved} statements; no state")

    def _open(self) -> Runner:
        engine = self.engine
        with self._progress.step(f"open in {engine.name}") as said:
            runner = engine.build(self.folder, self._progress.say)
            said.append(f"{engine.name} {engine.version}, {self.inputs.precision}")
        return runner

    def _compare(
        self, family: Family, runner: Runner, table: NoiseTable, exact: ModelProto | None, half: Mapping[str, Any]
    ) -> None:
        """Compare with torch, and the person network with its fp32 graph `exact`; write parity.json."""
        with self._progress.step(f"compare {self.engine.runs_in}, torch") as said:
            report = parity.compare(family, runner, table, self.inputs.precision)
            report |= {"people": compare_heads(runner, exact, self.inputs.precision)} if exact is not None else {}
            report |= {"half": half} if half else {}
            parity.write({"ran_in": self.engine.runs_in, **report}, self.engine.name, self.folder)
            said += parity.words(report)


def _count(family: Family) -> int:
    """Count the numbers in the family's parameters and buffers."""
    return sum(value.numel() for value in family.state_dict().values())


def _sizes(graphs: Mapping[str, ModelProto]) -> list[str]:
    return [f"{GRAPHS[part]} {len(graph.graph.node)} nodes" for part, graph in graphs.items()]
