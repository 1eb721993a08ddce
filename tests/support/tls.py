"""Certificates for a test, made by the openssl of this machine. They and their keys are gone when the test run is."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

_TIMEOUT_S = 20
_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
_CONFIG = """\
[ca]
default_ca = test
[test]
new_certs_dir = .
database = index.txt
serial = serial
certificate = ca.pem
private_key = ca.key
default_md = sha256
policy = anything
[anything]
commonName = supplied
"""


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate and its key, PEM."""

    certificate: Path
    key: Path

    @property
    def both(self) -> str:
        """As Kafka takes them, in one text."""
        return self.key.read_text() + self.certificate.read_text()


class Authority:
    """A certificate authority of one's own.

    Attributes:
        certificate: what its clients trust.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        self._folder = folder
        self.certificate = folder / "ca.pem"
        (folder / "openssl.cnf").write_text(_CONFIG)
        (folder / "index.txt").touch()
        (folder / "serial").write_text("01\n")
        self._openssl("req", "-x509", *_KEY, "-keyout", "ca.key", "-out", "ca.pem", "-days", "2", "-subj", "/CN=test")

    def issue(self, name: str, *, host: str = "IP:127.0.0.1", until: timedelta = timedelta(days=1)) -> Issued:
        """A server's certificate for one host (`IP:...` or `DNS:...`), valid from two days ago."""
        issued = Issued(self._folder / f"{name}.pem", self._folder / f"{name}.key")
        request, extensions = f"{name}.csr", self._folder / f"{name}.ext"
        extensions.write_text(f"basicConstraints=critical,CA:FALSE\nsubjectAltName={host}\n")
        now = datetime.now(UTC)
        start, end = (f"{moment:%Y%m%d%H%M%SZ}" for moment in (now - timedelta(days=2), now + until))
        self._openssl("req", "-new", *_KEY, "-keyout", issued.key.name, "-out", request, "-subj", f"/CN={name}")
        self._openssl(
            *("ca", "-batch", "-notext", "-config", "openssl.cnf", "-in", request, "-out", issued.certificate.name),
            *("-startdate", start, "-enddate", end, "-extfile", extensions.name),
        )
        return issued

    def _openssl(self, *arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=self._folder, check=True, capture_output=True, timeout=_TIMEOUT_S)
