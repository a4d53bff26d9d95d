"""A time stamping authority for tests: `openssl ts -reply` behind HTTP."""

import shutil
import subprocess
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from tests.support.receiver import Answer, Hit, Receiver

# Without `certs`: OpenSSL would add them unsorted, which is no DER.
CONFIGURATION = """
[tsa]
serial = {directory}/serial
crypto_device = builtin
signer_cert = {directory}/tsa.pem
signer_key = {directory}/tsa.key
signer_digest = sha256
default_policy = 1.2.3.4.1
digests = sha256
accuracy = secs:1
ess_cert_id_alg = sha256
"""


class LocalAuthority:
    """`roots`: the PEM file to believe it by. `answer`: what it says instead of an honest answer, when it is set."""

    def __init__(self, directory: Path) -> None:
        if shutil.which("openssl") is None:
            pytest.skip("openssl is not installed")
        directory.mkdir(parents=True, exist_ok=True)
        self._directory, self._lock = directory, threading.Lock()
        self.roots = directory / "roots.pem"
        self.answer: Answer | None = None
        _certificates(directory)
        (directory / "serial").write_text("01\n")
        (directory / "tsa.cnf").write_text(CONFIGURATION.format(directory=directory))
        self.receiver = Receiver(self._reply)
        self.url = f"{self.receiver.url}/tsr"

    def stop(self) -> None:
        self.receiver.stop()

    def stamp(self, query: bytes) -> bytes:
        """The DER of a TimeStampResp."""
        with self._lock:  # openssl keeps the serial in a file
            (self._directory / "query").write_bytes(query)
            command = ["openssl", "ts", "-reply", "-config", "tsa.cnf", "-section", "tsa", "-queryfile", "query"]
            subprocess.run([*command, "-out", "reply"], cwd=self._directory, check=True, capture_output=True)
            return (self._directory / "reply").read_bytes()

    def _reply(self, hit: Hit) -> Answer:
        if self.answer is not None:
            return self.answer
        assert hit.headers["content-type"] == "application/timestamp-query"
        return 200, {"content-type": "application/timestamp-reply"}, self.stamp(hit.body)


def _certificates(directory: Path) -> None:
    """A root, and under it a certificate for time stamps."""
    root_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    root_name, name = (
        x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)]) for text in ("Root", "Time stamping authority")
    )
    now = datetime.now(UTC)

    def builder(subject: x509.Name, public: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder(issuer_name=root_name, subject_name=subject, public_key=public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=1))
        )

    root = (
        builder(root_name, root_key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(root_key, SHA256())
    )
    own = (
        builder(name, key.public_key())
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.TIME_STAMPING]), critical=True)
        .sign(root_key, SHA256())
    )
    (directory / "roots.pem").write_bytes(root.public_bytes(Encoding.PEM))
    (directory / "tsa.pem").write_bytes(own.public_bytes(Encoding.PEM))
    (directory / "tsa.key").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
