"""The reader of a device's packets and calls: whatever is no TLS to the broker, or is written elsewhere, is named."""

from __future__ import annotations

import socket
import struct
from pathlib import Path

import pytest

from benchmarks.device.trace_read import Call, judge_calls, judge_packets, read_calls

BROKER, PORT, SOURCE = "10.99.0.1", 8883, 40_000
HELLO = b"\x16\x03\x01\x00\x04\x01\x00\x00\x00"  # a handshake record that begins with ClientHello
DATA = b"\x17\x03\x03\x00\x03abc"
FOLDER = Path("/var/lib/veilsight")


def packet(
    data: bytes, at: int, *, syn: bool = False, to: str = BROKER, port: int = PORT, protocol: int = 6
) -> tuple[bool, bytes]:
    """An IPv4 packet from the device; at: its first byte's place in the stream."""
    number = (0xFFFFFFF0 + at + (not syn)) & 0xFFFFFFFF  # the numbers wrap soon
    segment = struct.pack(">HHIIBBHHH", SOURCE, port, number, 0, 5 << 4, 2 if syn else 16, 1000, 0, 0) + data
    head = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(segment), 1, 0, 64, protocol, 0)
    return True, head + socket.inet_aton("10.99.0.2") + socket.inet_aton(to) + segment


def connection(stream: bytes, cut: int = 7) -> list[tuple[bool, bytes]]:
    """A connection's packets: SYN, and the stream in pieces."""
    return [packet(b"", 0, syn=True)] + [packet(stream[at : at + cut], at) for at in range(0, len(stream), cut)]


def wrong_of(kept: list[tuple[bool, bytes]]) -> list[str]:
    return judge_packets(kept, BROKER, PORT)[1]


def test_a_connection_of_tls_is_read_whole() -> None:
    figures, wrong = judge_packets(connection(HELLO + DATA * 40), BROKER, PORT)
    assert wrong == []
    assert (figures["connections"], figures["tls_records"]) == (1, 41)


def test_packets_that_come_twice_late_or_not_at_all_change_nothing() -> None:
    whole = connection(HELLO + DATA * 10)
    mixed = [whole[0], whole[3], whole[1], whole[2], whole[2], *whole[4:]]
    figures, wrong = judge_packets(mixed, BROKER, PORT)
    assert (wrong, figures["tls_records"]) == ([], judge_packets(whole, BROKER, PORT)[0]["tls_records"])
    assert wrong_of([*whole[:5], *whole[6:]]) == []  # behind a gap nothing is known
    assert wrong_of([(False, b"whatever came back")]) == []


@pytest.mark.parametrize(
    ("planted", "words"),
    [
        (connection(b"\x10\x0c\x00\x04MQTT"), "which is no TLS"),
        (connection(HELLO + DATA + b"\x30\x05veilsight/v1"), "which is no TLS"),
        (connection(DATA), "which is no TLS"),
        (connection(b"\x16\x03\x01\x00\x04\x02\x00\x00\x00"), "which is no TLS"),
        (connection(HELLO + b"\x17\x03\x03\xff\xff" + bytes(70_000), 1400), "which is no TLS"),
        ([packet(b"", 0, syn=True, port=1883)], "a packet to 10.99.0.1:1883, protocol 6"),
        ([packet(b"", 0, syn=True, to="20.1.2.3", port=443)], "a packet to 20.1.2.3:443, protocol 6"),
        ([packet(b"", 0, to="10.0.0.53", port=53, protocol=17)], "a packet to 10.0.0.53:53, protocol 17"),
        ([packet(b"", 0, protocol=17)], "a packet to 10.99.0.1:8883, protocol 17"),
        ([packet(b"", 0, protocol=1)], "protocol 1"),
        (
            [(True, b"\x60" + bytes(5) + b"\x3a\xff" + bytes(16) + socket.inet_pton(socket.AF_INET6, "ff02::2"))],
            "ff02::2",
        ),
        ([(True, b"")], "no IP"),
        ([(True, b"\x45\x00")], "no IP"),
    ],
)
def test_whatever_is_no_tls_to_the_broker_is_named(planted: list[tuple[bool, bytes]], words: str) -> None:
    wrong = wrong_of([*connection(HELLO + DATA), *planted])
    assert any(words in each for each in wrong), wrong


def test_a_connection_whose_beginning_was_not_seen_is_named() -> None:
    assert "was seen to begin" in wrong_of([packet(DATA, 0)])[0]


LINES = """\
openat(AT_FDCWD</var/lib/veilsight>, "/etc/hosts", O_RDONLY|O_CLOEXEC) = 3</etc/hosts>
openat(AT_FDCWD</>, "ledger.json.new", O_WRONLY|O_CREAT|O_EXCL, 0600) = 5</var/lib/veilsight/ledger.json.new>
rename("/var/lib/veilsight/ledger.json.new", "/var/lib/veilsight/ledger.json") = 0
openat(AT_FDCWD</>, "/dev/null", O_RDWR|O_CLOEXEC) = 3</dev/null>
openat(AT_FDCWD</>, "/usr/lib/x.pyc", O_WRONLY|O_CREAT, 0644) = -1 EROFS (Read-only file system)
unlinkat(7</var/lib/veilsight/outbox>, "00.log", 0) = 0
connect(8<socket:[1]>, {sa_family=AF_INET, sin_port=htons(8883), sin_addr=inet_addr("10.99.0.1")}, 16) = -1 EINPROGRESS
connect(3<socket:[2]>, {sa_family=AF_UNIX, sun_path="/var/run/nscd/socket"}, 110) = -1 ENOENT (No such file)
sendto(8<socket:[3]>, "GET / HTTP/1.1"..., 146, MSG_NOSIGNAL, NULL, 0) = 146
+++ exited with 0 +++
"""


def calls(tmp_path: Path, *more: str) -> list[Call]:
    (tmp_path / "gate.1").write_text(LINES + "\n".join(more))
    return read_calls(tmp_path)


def test_calls_that_write_inside_the_folder_are_good(tmp_path: Path) -> None:
    figures, wrong = judge_calls(calls(tmp_path), FOLDER, [f"{BROKER}:{PORT}"])
    assert wrong == []
    assert figures == {"writing_calls": 5, "in_the_folder": 4, "refused": 1}


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('openat(AT_FDCWD</>, "/tmp/x", O_WRONLY|O_CREAT, 0600) = 5</tmp/x>', "openat of /tmp/x"),
        ('openat(AT_FDCWD</>, "/var/lib/veilsight-other", O_RDWR) = 5</var/lib/veilsight-other>', "veilsight-other"),
        ('openat(5</var/lib/veilsight>, "../x", O_WRONLY) = 5</var/lib/x>', "openat of /var/lib/x"),
        ('rename("/var/lib/veilsight/a", "/home/a") = 0', "rename of /home/a"),
        ('mkdir("/root/.cache", 0777) = 0', "mkdir of /root/.cache"),
        ('unlinkat(3</tmp>, "z", 0) = 0', "unlinkat of /tmp/z"),
        ('mkdirat(AT_FDCWD</var/lib/veilsight>, "../y", 0700) = 0', "mkdirat of /var/lib/y"),
        ('symlink("/var/lib/veilsight", "/tmp/link") = 0', "symlink of /tmp/link"),
        (
            'connect(5<socket:[1]>, {sa_family=AF_INET, sin_port=htons(53), sin_addr=inet_addr("10.255.255.53")}, 16) '
            "= -1 ENETUNREACH (Network is unreachable)",
            "connect to 10.255.255.53:53",
        ),
        (
            'sendto(5<socket:[1]>, "..", 2, 0, {sa_family=AF_INET6, sin6_port=htons(443), sin6_flowinfo=htonl(0), '
            'inet_pton(AF_INET6, "2001:db8::1", &sin6_addr), sin6_scope_id=0}, 28) = 2',
            "sendto to 2001:db8::1:443",
        ),
        ('connect(3<socket:[2]>, {sa_family=AF_UNIX, sun_path=@"/tmp/dbus"}, 110) = 0', "connect to /tmp/dbus"),
    ],
)
def test_whatever_is_written_or_asked_elsewhere_is_named(tmp_path: Path, line: str, words: str) -> None:
    wrong = judge_calls(calls(tmp_path, line), FOLDER, [f"{BROKER}:{PORT}"])[1]
    assert len(wrong) == 1 and words in wrong[0], wrong


def test_the_weight_of_a_session_may_be_written(tmp_path: Path) -> None:
    """A child counts beside its gate by it; whatever else lies in /proc is another thing."""
    for place, wrong in (("/proc/31/autogroup", 0), ("/proc/31/oom_score_adj", 1), ("/proc/31/../x/autogroup", 1)):
        line = f'openat(AT_FDCWD, "{place}", O_WRONLY) = 7<{place}>'
        assert len(judge_calls(calls(tmp_path, line), FOLDER, [f"{BROKER}:{PORT}"])[1]) == wrong, place
