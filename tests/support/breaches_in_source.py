"""Breaches of the promise in the source: a change of the code in a copy of it, and the test that must fail on the copy.

text = mutate(source, WRITTEN["a noise sample may be used again"])      LookupError where the place is gone
copy = copy_of_the_code(folder, file, text)
with Runner(folder) as runner:
    status, output = runner.run(copy, ["tests/..."])
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["WRITTEN", "Runner", "Written", "copy_of_the_code", "mutate"]

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Written:
    """A change of the source.

    Attributes:
        breach: What it breaks.
        file: Relative to the project's root.
        changes: (pattern, replacement); each pattern must match once.
        caught_by: The test that must fail, as pytest's node id.
    """

    breach: str
    file: str
    changes: tuple[tuple[str, str], ...]
    caught_by: str


NOISE, LOOP = "edge_runtime/gate/sampler.py", "edge_runtime/gate/loop.py"
T_NOISE, T_LOOP = "tests/unit/edge_runtime/test_edge_sampler.py", "tests/unit/edge_runtime/test_edge_loop.py"
CORE, CLIENTS = "edge_runtime/gate/core.py", "edge_runtime/gate/clients.py"
T_CORE, T_CLIENTS = "tests/unit/edge_runtime/test_edge_core.py", "tests/unit/edge_runtime/test_edge_clients.py"
CLOCK, T_CLOCK = "edge_runtime/capture/clock.py", "tests/unit/edge_runtime/test_edge_window.py"
T_PROMISES = "tests/unit/edge_runtime/test_edge_promises.py"
OUTBOX, PUBLISHER = "edge_runtime/uplink/outbox.py", "edge_runtime/uplink/publisher.py"
T_OUTBOX, T_REPLAY = "tests/unit/edge_runtime/test_edge_outbox.py", "tests/unit/edge_runtime/test_edge_replay.py"
SEND = r'( +)self\.publisher\.send\("features", payload\)\n'

WRITTEN: dict[str, Written] = {
    "the sampler halves what it draws": Written(
        "half sigma",
        NOISE,
        ((r"whole\.astype", "(whole / 2).astype"),),
        f"{T_NOISE}::test_the_variance_is_that_of_sigma_so_half_of_it_is_caught",
    ),
    "every other sign is lost": Written(
        "half sigma",
        NOISE,
        ((r"np\.copysign\(made, signed, made\)", "pass"),),
        f"{T_NOISE}::test_a_sample_is_the_inverse_of_the_table_to_the_last_bit[4-16-sigma2]",
    ),
    "bits are read once": Written(
        "reused noise",
        NOISE,
        ((r"with self:\n( +)while ", r"if True:\n\1while not self._words.any() and "),),
        f"{T_NOISE}::test_two_samples_differ",
    ),
    "a noise sample may be used again": Written(
        "reused noise",
        NOISE,
        ((r"        self\._owner = 0\n        return (self\._array)", r"        return \1"),),
        f"{T_NOISE}::test_a_sample_is_used_once",
    ),
    "the search is done in single precision": Written(
        "noise in floats",
        NOISE,
        ((r"(self\._steps = np\.zeros\(\(.*?\))\)", r"\1, np.float32)"),),
        f"{T_NOISE}::test_no_tie_is_missed_where_the_entries_lie_one_apart[sigma2]",
    ),
    "the noise is scaled as a float, then rounded": Written(
        "noise in floats",
        NOISE,
        ((r"return whole(\.astype\(np\.int32\))", r"return np.rint(1.01 * whole)\1"),),
        f"{T_NOISE}::test_the_magnitude_turns_where_the_rounded_gaussian_says",
    ),
    "numpy's generator fills the bits": Written(
        "numpy's generator",
        NOISE,
        (
            (
                r"            return NoiseSample\(self\._invert\(\)\)",
                "            self._words[:] = np.random.default_rng().integers(0, 2**64, len(self._words), np.uint64)\n"
                "            return NoiseSample(self._invert())",
            ),
        ),
        f"{T_NOISE}::test_bits_come_from_the_kernel_and_noise_from_the_sampler",
    ),
    "a release is sent again under other noise": Written(
        "a retry with fresh noise",
        LOOP,
        (
            (
                SEND,
                r'\1self.publisher.send("features", payload)\n'
                r"\1with self.noise[level].draw() as sample:\n"
                r"\1    again = release(None, sample, manifest.clip_norm)\n"
                r"\1made = fill_message(self.boot_id, manifest.model_id, charge, again, level, flags, time_s)\n"
                r'\1self.publisher.send("features", made.seal(self.key, *self.names))\n',
            ),
        ),
        f"{T_LOOP}::test_every_slot_is_released_with_its_number_and_read_as_events",
    ),
    "the clip is skipped": Written(
        "clip skipped",
        CORE,
        ((r"    mu \*= int\(mu @ mu\) <= clip_norm \* clip_norm\n", ""),),
        f"{T_CORE}::test_every_small_case_is_as_the_rule_says",
    ),
    "the code is released without noise": Written(
        "half sigma",
        CORE,
        ((r"    mu \+= noise\n", ""),),
        f"{T_CORE}::test_every_small_case_is_as_the_rule_says",
    ),
    "the code is not wiped": Written(
        "what is used is kept",
        CORE,
        ((r"\(a, mu, noise\)", "(mu, noise)"),),
        f"{T_CORE}::test_any_code_is_moved_by_the_noise_and_by_at_most_c",
    ),
    "the noise is not wiped": Written(
        "what is used is kept",
        CORE,
        ((r"\(a, mu, noise\)", "(a, mu)"),),
        f"{T_CORE}::test_any_code_is_moved_by_the_noise_and_by_at_most_c",
    ),
    "what came of a slot that is lost is not wiped": Written(
        "what is used is kept",
        CLIENTS,
        ((r"self\._record\.fill\(0\)\n( +)opens =", r"opens ="),),
        f"{T_CLIENTS}::test_what_is_no_record_of_the_slot_is_no_code",
    ),
    "a record of another slot is read": Written(
        "a code of another slot",
        CORE,
        ((r' or int\(record\[:8\]\.view\("<u8"\)\[0\]\) != slot', ""),),
        f"{T_CORE}::test_a_record_of_another_slot_is_none[6]",
    ),
    "the code is released where the budget is spent": Written(
        "a code that was not granted",
        LOOP,
        ((r"code if charge\.granted else None", "code"),),
        f"{T_PROMISES}::test_a_release_of_a_spent_budget_is_the_noise_itself",
    ),
    "the clock is read after the eye": Written(
        "a bit in another field",
        LOOP,
        ((r"(flags, time_s\)\.seal)", "flags, coarse_time(time.time())).seal"),),
        f"{T_PROMISES}::test_the_time_in_a_release_is_read_before_the_eye_is_asked",
    ),
    "a release goes out as soon as its code is there": Written(
        "a time of the eye's",
        LOOP,
        ((r"clock\.wait_to_release\(slot\)", "clock.wait(clock.end(slot))"),),
        f"{T_PROMISES}::test_a_release_is_handed_over_at_the_time_that_was_drawn",
    ),
    "releases leave at their deadline, so what loads the processor moves them": Written(
        "a time of the eye's",
        CLOCK,
        ((r"_SPREAD \* self\.slot_s", "0.0"),),
        f"{T_CLOCK}::test_a_release_leaves_at_a_random_time_of_the_fifth_of_a_slot_after_its_deadline",
    ),
    "one random time serves for all releases": Written(
        "a time of the eye's",
        CLOCK,
        ((r"random\.SystemRandom\(\)", "type('', (), {'uniform': staticmethod(lambda low, high: high / 2)})"),),
        f"{T_CLOCK}::test_a_release_leaves_at_a_random_time_of_the_fifth_of_a_slot_after_its_deadline",
    ),
    "not watching is told at once": Written(
        "a bit in the state",
        "edge_runtime/gate/watching.py",
        ((r"self\._at \+ self\._hour", "self._at + 1"),),
        f"{T_CLIENTS}::test_watching_changes_at_fixed_slots_alone_whatever_the_eye_does",
    ),
    "a live camera ends when the eye says so": Written(
        "an end by the eye",
        CLIENTS,
        ((r"self\._follows and self\._said\.last", "self._said.last"),),
        f"{T_CLIENTS}::test_only_a_source_that_can_end_may_say_so",
    ),
    "a slot is charged after it is published": Written(
        "a charge after publish",
        LOOP,
        (
            (
                r"( +)charge = (self\.ledger\.charge\(.*?\))(  #.*)?\n",
                r"\1from edge_runtime.gate.ledger import Charge\n\1charge, late = Charge(slot, True), lambda: \2\n",
            ),
            (SEND, r'\1self.publisher.send("features", payload)\n\1late()\n'),
        ),
        f"{T_LOOP}::test_every_release_is_charged_before_it_is_published",
    ),
    "what waited is sent by what it says": Written(
        "a time by what waits",
        PUBLISHER,
        ((r'name == "features" and not pace\.take\(\)', r"\g<0> and outbox._ahead().message[90] < 128"),),
        f"{T_REPLAY}::test_what_is_sent_and_when_depends_on_the_connection_alone",
    ),
    "anything may wait on disk": Written(
        "pixels on disk",
        OUTBOX,
        ((r"if not isinstance\(message, Sealed\)", "if False"),),
        f"{T_OUTBOX}::test_only_a_sealed_message_is_taken",
    ),
    "what is on disk is sent unread": Written(
        "pixels on disk",
        OUTBOX,
        ((r"self\._check\((record\.name, )(record\.payload)\)", r"Sealed(\2)"),),
        f"{T_OUTBOX}::test_what_this_device_has_not_signed_is_left_out",
    ),
    "the slot's number is a varint": Written(
        "a varint in the message",
        "wire/protocol/veilsight_pb2.py",
        ((r"(61tures.*?slot\\x18\\x03 \\x01\()\\x06", r"\1\\x04"),),
        "tests/unit/wire/test_wire_message.py::test_a_release_has_the_same_size_whatever_it_says",
    ),
}


def mutate(text: str, mutation: Written) -> str:
    """The source with the mutation; a place that is gone, or not the only one, is an error."""
    for pattern, new in mutation.changes:
        text, count = re.subn(pattern, new, text)
        if count != 1:
            raise LookupError(f"{mutation.file}: {count} places match {pattern!r}, not one: write the mutation anew")
    return text


def copy_of_the_code(folder: Path, file: str = "", text: str = "") -> Path:
    """Copy the project to `folder`: what a mutation may change and the tests are copied, the rest is linked."""
    folder.mkdir()
    for path in ROOT.iterdir():
        if path.name in ("edge_runtime", "wire", "tests", "pyproject.toml"):
            copy = shutil.copytree if path.is_dir() else shutil.copy
            copy(path, folder / path.name)
        elif not path.name.startswith((".", "build")):
            (folder / path.name).symlink_to(path)
    if file:
        (folder / file).write_text(text)
    return folder


# It imports the third-party packages once, and forks for every copy. Not onnxruntime: it starts a thread, and a fork
# beside a thread may inherit a lock that nobody opens.
_SERVER = """
import json, os, sys
import cryptography.hazmat.primitives.asymmetric.ed25519, cv2, google.protobuf.message, mpmath, numpy, onnx
import hypothesis, paho.mqtt.client, pytest, pytest_timeout

# that it fails is enough: making the example small takes minutes of a slow machine
phases = [hypothesis.Phase.explicit, hypothesis.Phase.generate]
hypothesis.settings.register_profile("copy", phases=phases)
hypothesis.settings.load_profile("copy")

def run(folder, tests):
    os.chdir(folder)
    sys.path.insert(0, folder)
    out = os.open("out.txt", os.O_WRONLY | os.O_CREAT)
    os.dup2(out, 1), os.dup2(out, 2)
    quiet = ["-W", "ignore::pytest.PytestAssertRewriteWarning"]  # hypothesis is imported already
    return int(pytest.main(["-q", "-x", "-p", "no:cacheprovider", "--tb=line", "--timeout=600", *quiet, *tests]))

for line in sys.stdin:
    pid = os.fork()
    if pid == 0:
        status = 99
        try:
            status = run(*json.loads(line))
        finally:
            os._exit(status)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""


class Runner:
    """Runs tests in copies of the code, one copy after another.

    with Runner(folder) as runner:
        status, output = runner.run(copy, ["tests/..."])
    """

    def __init__(self, folder: Path) -> None:
        self._environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        self._environment["HYPOTHESIS_STORAGE_DIRECTORY"] = str(folder / "hypothesis")
        self._server: subprocess.Popen[str] | None = None

    def __enter__(self) -> Runner:
        return self

    def __exit__(self, *_: object) -> None:
        if self._server:
            os.killpg(self._server.pid, signal.SIGKILL)  # with a copy that hangs
            self._server.communicate()
            self._server = None

    def run(self, copy: Path, tests: Sequence[str]) -> tuple[int, str]:
        """(pytest's exit status, its output) of some tests in a copy of the code."""
        try:
            status = self._ask(json.dumps([str(copy), [*tests]]))
        except BaseException:  # the time limit of the test that asked: a fresh server for the next one
            self.__exit__()
            raise
        return status, (copy / "out.txt").read_text()

    def _ask(self, line: str) -> int:
        if not self._server:
            self._server = subprocess.Popen(
                [sys.executable, "-c", _SERVER],
                env=self._environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )
        assert self._server.stdin and self._server.stdout
        print(line, file=self._server.stdin, flush=True)
        return int(self._server.stdout.readline())
