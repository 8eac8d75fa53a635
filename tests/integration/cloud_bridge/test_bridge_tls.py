"""The bridge's connection under TLS, with a password and a certificate of its own; an unknown broker is refused."""

from __future__ import annotations

import datetime
import gc
import ipaddress
import queue
import subprocess
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from cloud_bridge.ingest.transport import MqttTransport
from tests.support.services import PATIENCE_S, Broker, find
from wire.broker import BrokerConfig
from wire.errors import BrokerError, ConfigError
from wire.mqtt import Message

TOPIC = "veilsight/v1/lab/door/features"


def self_signed(folder: Path, name: str) -> tuple[Path, Path]:
    """(certificate, key) for 127.0.0.1, PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    who = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.timezone.utc)
    made = (
        x509.CertificateBuilder(who, who, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    certificate, secret = folder / f"{name}.pem", folder / f"{name}.key"
    certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    secret.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return certificate, secret


@pytest.fixture
def secured(tmp_path: Path, broker: Broker) -> Broker:
    """Mosquitto that wants TLS, a client certificate and a password."""
    broker.stop()
    certificate, secret = self_signed(tmp_path, "broker")
    client, _ = self_signed(tmp_path, "client")
    users = tmp_path / "users"
    subprocess.run([find("mosquitto_passwd"), "-b", "-c", str(users), "bridge", "open sesame"], check=True)
    users.chmod(0o644)
    for file in (certificate, secret, client, users):
        file.chmod(0o644)
    (tmp_path / "mosquitto.conf").write_text(
        f"listener {broker.port} 127.0.0.1\ncertfile {certificate}\nkeyfile {secret}\ncafile {client}\n"
        f"require_certificate true\nallow_anonymous false\npassword_file {users}\nuser root\n"
    )
    (tmp_path / "password").write_text("open sesame\n")
    broker.start()
    return broker


def config(broker: Broker, folder: Path, **changes: str) -> BrokerConfig:
    values = {
        "url": f"mqtts://127.0.0.1:{broker.port}",
        "username": "bridge",
        "password_file": str(folder / "password"),
        "ca": str(folder / "broker.pem"),
        "cert": str(folder / "client.pem"),
        "key": str(folder / "client.key"),
    }
    return BrokerConfig(**{**values, **changes})


def test_messages_pass_under_tls_with_certificate_and_password(secured: Broker, tmp_path: Path) -> None:
    got = queue.Queue[bytes]()
    with MqttTransport(config(secured, tmp_path), "t", [(TOPIC, 1)], lambda _t, payload, *_: got.put(payload)) as link:
        link.publish(Message(TOPIC, b"one", 1, False))
        assert got.get(timeout=PATIENCE_S) == b"one"
    assert "sesame" not in repr(config(secured, tmp_path))


# paho leaves the socket to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_broker_with_a_certificate_of_another_authority_is_refused(secured: Broker, tmp_path: Path) -> None:
    self_signed(tmp_path, "stranger")
    stranger = config(secured, tmp_path, ca=str(tmp_path / "stranger.pem"))
    with pytest.raises(BrokerError, match="certificate verify failed"):
        MqttTransport(stranger, "t", [(TOPIC, 1)], lambda *_: None).__enter__()
    gc.collect()


def test_a_wrong_password_is_refused(secured: Broker, tmp_path: Path) -> None:
    (tmp_path / "password").write_text("guess")
    with pytest.raises(BrokerError, match=r"refuses us: Not authorized; check \[broker\] username"):
        MqttTransport(config(secured, tmp_path), "t", [(TOPIC, 1)], lambda *_: None).__enter__()


@pytest.mark.parametrize("name", ["ca", "cert", "password_file"])
def test_a_file_that_is_missing_is_a_clear_error(secured: Broker, tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="broker"):
        MqttTransport(config(secured, tmp_path, **{name: "/nowhere"}), "t", [], lambda *_: None).__enter__()
