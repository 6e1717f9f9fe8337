"""A key for a cluster that lives as long as a benchmark."""

from __future__ import annotations

import subprocess
from pathlib import Path


def make_key(folder: Path) -> Path:
    """Make a certificate that is its own authority and its key, unless they are there; return their folder."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not (folder / "key.pem").exists():
        command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
        command += ["-days", "30", "-keyout", str(folder / "key.pem"), "-out", str(folder / "cert.pem")]
        subprocess.run([*command, "-subj", "/CN=dmlpipe-bench"], check=True, capture_output=True)
        (folder / "key.pem").chmod(0o600)
    return folder
