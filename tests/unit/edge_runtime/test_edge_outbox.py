"""The outbox: in order, bounded, over restarts; a file that is cut or damaged anywhere is read up to there."""

from __future__ import annotations

import errno
import logging
import os
import random
import shutil
from pathlib import Path
from typing import Any

import pytest

from edge_runtime.uplink.outbox import Outbox
from edge_runtime.uplink.segment import HEADER_BYTES, Mark, Record, Stamp, pack_mark, pack_record
from tests.support.outbox_factory import SET_S, Clocks, killed, message, open_outbox, put, take_all
from wire.protocol.message import Sealed


def lost(outbox: Outbox) -> int:
    """Messages, not releases."""
    return outbox._mark.lost


def files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.log"))


def test_what_was_put_is_taken_in_order_by_the_next_process(tmp_path: Path) -> None:
    outbox = open_outbox(tmp_path)
    put(outbox, *range(200))
    assert outbox.waiting == 400
    killed(outbox)
    outbox = open_outbox(tmp_path)
    assert outbox.waiting == 400
    put(outbox, 200, 201)
    assert take_all(outbox, settle=True) == [*range(202)]
    assert (outbox.waiting, lost(outbox)) == (0, 0)


def test_only_a_sealed_message_is_taken(tmp_path: Path) -> None:
    outbox = open_outbox(tmp_path)
    for other in (b"ok 1", "ok 1", bytearray(b"ok 1"), None):
        with pytest.raises(TypeError, match="not a sealed message"):
            outbox.put("features", other)  # type: ignore[arg-type]  # the point of the test
    outbox.save()
    assert outbox.waiting == 0 and not files(tmp_path)


def test_what_was_delivered_is_not_taken_again(tmp_path: Path) -> None:
    outbox = open_outbox(tmp_path)
    put(outbox, *range(10))
    for _ in range(8):
        parcel = outbox.take()
        assert parcel is not None
        outbox.settle(parcel.number)
    assert outbox.waiting == 12
    outbox.close()
    assert take_all(open_outbox(tmp_path)) == [*range(4, 10)]


def test_an_answer_out_of_order_counts_once_all_before_it_are_answered(tmp_path: Path) -> None:
    outbox = open_outbox(tmp_path)
    put(outbox, *range(4))
    numbers = [parcel.number for parcel in iter(outbox.take, None)]
    for number in numbers[2:]:
        outbox.settle(number)
    assert outbox.waiting == 2
    outbox.close()
    outbox = open_outbox(tmp_path)
    assert take_all(outbox) == [0, 1, 2, 3]  # the same bytes again: at least once


def test_nothing_is_left_of_what_was_delivered(tmp_path: Path) -> None:
    outbox = open_outbox(tmp_path)
    for number in range(3000):
        put(outbox, number, size=200)
        assert take_all(outbox, settle=True) == [number]
        assert sum(path.stat().st_size for path in files(tmp_path)) < 100_000
        assert len(outbox._memory) <= 64


def test_the_bound_on_bytes_drops_the_oldest_and_counts_them(tmp_path: Path) -> None:
    outbox = open_outbox(tmp_path, size=40_000)
    put(outbox, *range(1000), size=100)
    assert sum(path.stat().st_size for path in files(tmp_path)) <= 40_000
    killed(outbox)
    outbox = open_outbox(tmp_path, size=40_000)
    kept = take_all(outbox)
    assert kept == [*range(1000 - len(kept), 1000)] and len(kept) > 100
    assert lost(outbox) == 2 * (1000 - len(kept))  # and a restart does not forget the count


def test_what_is_too_old_is_dropped_with_its_verdict(tmp_path: Path) -> None:
    clocks = Clocks()
    outbox = open_outbox(tmp_path, clocks, age_s=100)
    put(outbox, 0)
    clocks.later(60)
    outbox.put("features", message(1))
    clocks.later(1)
    outbox.put("verdict/edge", message(1))
    outbox.save()
    clocks.later(41)  # 0 is 102 s old
    assert take_all(outbox) == [1]
    assert outbox.expired == lost(outbox) == 2


def test_what_is_too_old_leaves_the_disk_though_nobody_takes_it(tmp_path: Path) -> None:
    clocks = Clocks()
    outbox = open_outbox(tmp_path, clocks, age_s=800)
    for number in range(40):
        put(outbox, number)
        clocks.later(100)
    stamps = [int(path.stem) // 2 for path in files(tmp_path)]
    assert stamps[0] >= 40 - 10 and len(stamps) <= 12
    assert outbox.expired == 2 * stamps[0]


@pytest.mark.parametrize("step_s", [-SET_S, -86_400, 86_400, 10**9])
def test_a_clock_that_is_set_makes_nothing_old(tmp_path: Path, step_s: int) -> None:
    clocks = Clocks()
    outbox = open_outbox(tmp_path, clocks, age_s=100)
    put(outbox, 0)
    clocks.wall_s += step_s
    put(outbox, 1)
    assert outbox.expired == 0
    killed(outbox)
    outbox = open_outbox(tmp_path, clocks, age_s=100)  # the process starts again, the system has not
    assert take_all(outbox) == [0, 1]


def test_age_goes_on_over_a_restart_of_the_system_where_its_clock_tells(tmp_path: Path) -> None:
    for wall_s, kept in ((SET_S, [1]), (86_403, [0, 1])):  # a clock that was never set tells nothing
        clocks, folder = Clocks(), tmp_path / str(wall_s)
        clocks.wall_s = wall_s
        outbox = open_outbox(folder, clocks, age_s=100)
        put(outbox, 0)
        clocks.later(90)
        put(outbox, 1)
        killed(outbox)
        clocks.run, clocks.boot_s, clocks.wall_s = b"2" * 16, 5, SET_S + 90 + 20
        assert take_all(open_outbox(folder, clocks, age_s=100)) == kept


def test_what_is_left_of_its_time_goes_with_a_message(tmp_path: Path) -> None:
    clocks = Clocks()
    outbox = open_outbox(tmp_path, clocks, age_s=1000)
    put(outbox, 0)
    clocks.later(300)
    parcel = outbox.take()
    assert parcel is not None and parcel.left_s == 700


# --- power cuts and damage


def written(folder: Path) -> tuple[bytes, list[int]]:
    """A file of six messages, with marks between, and where each message ends."""
    outbox = open_outbox(folder)
    outbox.put("features", message(0))
    outbox.save()
    ends = [files(folder)[0].stat().st_size]
    for number in range(1, 6):
        parcel = outbox.take()
        assert parcel is not None
        if number == 3:
            outbox.settle(0)
        outbox.put("features", message(number))
        outbox.save()
        ends.append(files(folder)[0].stat().st_size)
    killed(outbox)
    return files(folder)[0].read_bytes(), ends


def found_in(folder: Path, data: bytes) -> tuple[list[int], Outbox]:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700)
    (folder / f"{0:020d}.log").write_bytes(data)
    outbox = open_outbox(folder)
    return [int(parcel.message[3:]) for parcel in iter(outbox.take, None)], outbox


def test_a_file_that_ends_at_any_byte_is_read_up_to_there(tmp_path: Path) -> None:
    data, ends = written(tmp_path / "a")
    whole = found_in(tmp_path / "b", data)[0]
    assert whole == [1, 2, 3, 4, 5]
    for length in range(len(data)):
        intact = sum(end <= length for end in ends)
        found, outbox = found_in(tmp_path / "b", data[:length])
        assert found in ([*range(intact)], [*range(1, intact)]), length  # 0, as long as the mark is not there
        put(outbox, 6)  # and it goes on
        assert take_all(outbox) == [6]
        killed(outbox)


@pytest.mark.parametrize("damage", ["flip", "zero", "rest zero", "rest noise", "repeat"])
def test_a_file_that_is_damaged_at_any_byte_is_read_up_to_there(tmp_path: Path, damage: str) -> None:
    """What is read is what was written, in its place: nothing is invented, and what was intact before is there."""
    data, ends = written(tmp_path / "a")
    rng = random.Random(1)
    for at in range(len(data)):
        bad = bytearray(data)
        if damage == "flip":
            bad[at] ^= 1 << rng.randrange(8)
        elif damage == "zero":
            bad[at : at + 16] = bytes(len(bad[at : at + 16]))
        elif damage == "rest zero":
            bad[at:] = bytes(len(bad) - at)
        elif damage == "rest noise":
            bad[at:] = rng.randbytes(len(bad) - at)
        else:
            bad[at:at] = bad[max(0, at - 31) : at]
        found, outbox = found_in(tmp_path / "b", bytes(bad))
        intact = sum(end <= at for end in ends) if at >= HEADER_BYTES else 0
        assert found == [*range(found[0], found[-1] + 1)] if found else intact <= 1, at
        assert not found or (found[0] in (0, 1) and found[-1] >= intact - 1), at
        assert bytes(bad) == data or outbox._damaged >= (found != [1, 2, 3, 4, 5]), at
        killed(outbox)


def test_a_record_of_another_place_is_not_believed(tmp_path: Path) -> None:
    """Records carry no number, so a checksum that did not know it would let them be exchanged or repeated."""
    data, ends = written(tmp_path / "a")
    first, second = data[HEADER_BYTES : ends[0]], data[ends[0] : ends[1]]
    assert found_in(tmp_path / "b", data[:HEADER_BYTES] + second + first)[0] == []
    assert found_in(tmp_path / "b", data[: ends[0]] + first)[0] == [0]


def test_damage_in_the_middle_costs_one_file_and_is_counted_and_moved_aside(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    outbox = open_outbox(tmp_path, size=64_000)
    put(outbox, *range(300), size=50)
    killed(outbox)
    bad = files(tmp_path)[1]
    data = bytearray(bad.read_bytes())
    data[len(data) // 2] ^= 1
    bad.write_bytes(data)
    outbox = open_outbox(tmp_path, size=64_000)
    numbers = [(parcel.name, int(parcel.message[3:])) for parcel in iter(outbox.take, None)]
    assert numbers == sorted(numbers, key=lambda each: each[1])
    assert len(numbers) == 600 - lost(outbox) and 0 < lost(outbox) < 200
    for number in range(600):
        outbox.settle(number)
    outbox.save()
    put(outbox, 300)
    assert (tmp_path / "damaged").read_bytes() == data
    assert caplog.text.count("moved aside") == 1
    assert take_all(outbox) == [300]


def test_a_file_that_is_none_of_ours_is_moved_aside(tmp_path: Path) -> None:
    outbox = open_outbox(tmp_path)
    put(outbox, *range(5))
    killed(outbox)
    (tmp_path / f"{3:020d}.log").write_bytes(os.urandom(500))
    (tmp_path / f"{4:020d}.log").symlink_to("/etc/passwd")
    (tmp_path / f"{5:020d}.log").mkdir()
    os.mkfifo(tmp_path / f"{6:020d}.log")
    outbox = open_outbox(tmp_path)
    assert take_all(outbox) == [*range(5)]
    assert outbox._damaged == 4 and len(files(tmp_path)) <= 2


def test_what_this_device_has_not_signed_is_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Whoever can write a file there cannot make the device publish its content."""
    data, ends = written(tmp_path / "a")
    planted = pack_record(1, Record("features", b"pixels", Stamp(1000, SET_S)))
    planted += pack_record(2, Record("features", message(7), Stamp(1000, SET_S)))
    found, outbox = found_in(tmp_path / "b", data[: ends[0]] + planted)
    assert found == [0, 7] and outbox._damaged == 1
    assert caplog.text.count("not one of this device") == 1


def test_a_mark_moves_forward_alone(tmp_path: Path) -> None:
    data, _ = written(tmp_path / "a")
    back = pack_mark(6, Mark(0, 0), Stamp(1000, SET_S))
    beyond = pack_mark(6, Mark(10**6, 0), Stamp(1000, SET_S))
    assert found_in(tmp_path / "b", data + back)[0] == [1, 2, 3, 4, 5]
    found, outbox = found_in(tmp_path / "b", data + beyond)
    put(outbox, 6)
    assert found == [] and take_all(outbox) == [6]


# --- disks that take nothing


class Disk:
    """A disk that refuses to be written while `error` is set, or that takes `room` more bytes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.error, self.room = 0, 1 << 40
        write, opened = os.write, os.open

        def limited(file: int, data: Any) -> int:
            self._refuse()
            taken = write(file, data[: self.room])
            self.room -= taken
            if not taken:
                raise OSError(errno.ENOSPC, "No space left on device")
            return taken

        def guarded(path: Any, flags: int, *rest: Any) -> int:
            if flags & os.O_CREAT:
                self._refuse()
            return opened(path, flags, *rest)

        monkeypatch.setattr(os, "write", limited)
        monkeypatch.setattr(os, "open", guarded)

    def _refuse(self) -> None:
        if self.error:
            raise OSError(self.error, os.strerror(self.error))


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EROFS, errno.EIO])
def test_where_the_disk_takes_nothing_the_newest_are_kept_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: int
) -> None:
    disk = Disk(monkeypatch)
    outbox = open_outbox(tmp_path, memory=40)
    put(outbox, 0, 1)
    disk.error = error
    put(outbox, *range(2, 102))
    assert outbox.figures()["kept"] == "memory" and len(outbox._memory) <= 64
    assert caplog.text.count("in memory alone") == 1
    disk.error = 0
    put(outbox, 102)
    assert outbox.figures()["kept"] == "disk"
    killed(outbox)
    outbox = open_outbox(tmp_path)
    found = take_all(outbox)
    assert found[-21:] == [*range(82, 103)]  # all that memory held
    assert 2 * len(found) + lost(outbox) == 206


def test_a_folder_that_cannot_be_made_leaves_an_outbox_in_memory(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    outbox = open_outbox(tmp_path / "file" / "outbox", memory=40)
    put(outbox, *range(100))
    assert outbox.figures()["kept"] == "memory" and caplog.text.count("in memory alone") == 1
    assert take_all(outbox, settle=True) == [*range(80, 100)]
    assert (outbox.dropped, outbox.waiting) == (160, 0)
    outbox.close()


def test_a_folder_has_one_process(tmp_path: Path) -> None:
    outbox = open_outbox(tmp_path)
    put(outbox, 1)
    second = open_outbox(tmp_path)
    put(second, 2)
    assert second.figures()["kept"] == "memory"
    assert (take_all(outbox), take_all(second)) == ([1], [2])


def test_a_full_disk_makes_room_by_the_oldest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = Disk(monkeypatch)
    outbox = open_outbox(tmp_path, size=64_000)
    unlink = os.unlink

    def gives_back(path: Any) -> None:
        disk.room += path.stat().st_size
        unlink(path)

    monkeypatch.setattr(os, "unlink", gives_back)
    disk.room = 30_000
    put(outbox, *range(500), size=100)
    assert outbox.figures()["kept"] == "disk"
    killed(outbox)
    outbox = open_outbox(tmp_path)
    found = take_all(outbox)
    assert found == [*range(500 - len(found), 500)] and len(found) > 70
    assert 2 * len(found) + lost(outbox) == 1000


def test_a_write_that_was_taken_in_part_leaves_no_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outbox = open_outbox(tmp_path)
    put(outbox, 0)
    disk = Disk(monkeypatch)
    for room in range(60):
        disk.room = room
        put(outbox, 1 + room)
        disk.room = 1 << 40
    put(outbox, 61)
    killed(outbox)
    outbox = open_outbox(tmp_path)
    assert take_all(outbox) == [*range(62)]
    assert outbox._damaged == 0


def test_a_file_that_can_be_neither_written_nor_cut_is_left_for_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outbox, cut = open_outbox(tmp_path), os.ftruncate
    disk = Disk(monkeypatch)
    for number, header in enumerate((HEADER_BYTES, 0)):

        def fails(*_: Any) -> None:
            raise OSError(errno.EIO, "Input/output error")

        monkeypatch.setattr(os, "ftruncate", fails)
        disk.room = header + 10  # of the record, ten bytes
        put(outbox, number)
        monkeypatch.setattr(os, "ftruncate", cut)
        disk.room = 1 << 40
    put(outbox, 2)
    assert outbox.figures()["kept"] == "disk"
    killed(outbox)
    assert take_all(open_outbox(tmp_path)) == [0, 1, 2]


# --- everything at once


@pytest.mark.parametrize("seed", range(30))
def test_whatever_happens_each_release_is_taken_once_in_order_or_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """Random puts, deliveries, kills, full disks and steps of the clock."""
    rng, clocks, disk = random.Random(seed), Clocks(), Disk(monkeypatch)
    bounds: dict[str, Any] = {"size": 30_000, "age_s": 1e9, "memory": 10**6}
    outbox = open_outbox(tmp_path, clocks, **bounds)
    delivered: list[int] = []
    on_the_way: list[tuple[int, int]] = []
    number = 0
    for _ in range(300):
        event = rng.choice(("put", "put", "put", "take", "answer", "kill", "clock", "full", "space", "close"))
        if event == "put":
            for _ in range(rng.randrange(12)):
                outbox.put("features", message(number, 40))
                outbox.save()
                number += 1
        elif event == "take":
            for _ in range(rng.randrange(30)):
                parcel = outbox.take() if outbox.name else None
                if parcel is not None:
                    on_the_way.append((parcel.number, int(parcel.message[3:])))
        elif event == "answer":
            for _ in range(rng.randrange(len(on_the_way) + 1)):
                where, what = on_the_way.pop(0)
                delivered.append(what)
                outbox.settle(where)
        elif event in ("kill", "close") and not disk.error:
            killed(outbox) if event == "kill" else outbox.close()
            on_the_way.clear()
            outbox = open_outbox(tmp_path, clocks, **bounds)
        elif event == "clock":
            clocks.wall_s = max(0, clocks.wall_s + rng.randrange(-(10**8), 10**8))
            clocks.boot_s += rng.randrange(100)
        elif event in ("full", "space"):
            disk.error = errno.ENOSPC if event == "full" else 0
            outbox.save()
    delivered += [what for _, what in on_the_way] + take_all_releases(outbox)
    once = [what for k, what in enumerate(delivered) if what not in delivered[:k]]
    assert once == sorted(once)
    assert len(once) + lost(outbox) >= number  # what was dropped while it was on its way may have arrived, too
    assert lost(outbox) <= number - len(once) + 64 * 300 // 30


def take_all_releases(outbox: Outbox) -> list[int]:
    return [int(parcel.message[3:]) for parcel in iter(outbox.take, None)]


def test_a_message_is_the_same_bytes_after_any_way(tmp_path: Path) -> None:
    sent = [Sealed(b"ok " + random.Random(k).randbytes(k * 37)) for k in range(60)]
    outbox = open_outbox(tmp_path)
    for each in sent:
        outbox.put("features", each)
        outbox.save()
    killed(outbox)
    outbox = open_outbox(tmp_path)
    outbox.put("features", sent[0])
    logging.getLogger("veilsight.outbox").info("from memory and from disk")
    assert [parcel.message for parcel in iter(outbox.take, None)] == [*sent, sent[0]]
