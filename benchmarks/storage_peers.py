"""What else keeps versions of a folder, each as one would type it: put, put again, status, get."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

Command = Sequence[str]

DMLPIPE = "dmlpipe"
CP = "cp -r"


@dataclass(frozen=True)
class Peer:
    """A contender. Its commands run in its own folder, which has the files in ``src``."""

    name: str
    program: str
    """What must be found for it to take part."""
    version: Command
    prepare: tuple[Command, ...] = ()
    put: tuple[Command, ...] = ()
    again: tuple[Command, ...] = ()
    status: tuple[Command, ...] = ()
    get: tuple[Command, ...] = ()
    """Into ``out``, which does not exist."""
    env: Mapping[str, str] = field(default_factory=dict)
    gets_in_place: bool = False
    """It gets into ``src``, which is not there then."""

    def is_there(self) -> bool:
        """Whether it is installed."""
        return shutil.which(self.program) is not None

    def tell_version(self) -> str:
        """Return what it says of itself; ``absent`` if it is not installed."""
        if not self.is_there():
            return "absent"
        done = subprocess.run(self.version, capture_output=True, text=True, check=False, env={**os.environ, **self.env})
        return (done.stdout or done.stderr).strip().splitlines()[0]


def _git(name: str, *settings: str) -> Peer:
    options = [word for setting in settings for word in ("-c", setting)]
    git = ["git", *options, "--git-dir=g", "--work-tree=src", "-c", "user.name=b", "-c", "user.email=b@b"]
    commit = [*git, "commit", "-q", "-m", "b"]
    out = ["git", *options, "--git-dir=g", "--work-tree=out", "checkout", "-f", "HEAD", "--", "."]
    return Peer(
        name,
        "git",
        ["git", "--version"],
        prepare=(["git", "init", "-q", "--bare", "g"], ["git", "--git-dir=g", "config", "core.bare", "false"]),
        put=([*git, "add", "-A"], commit),
        again=([*git, "add", "-A"], commit),
        status=([*git, "status", "--porcelain"],),
        get=(["mkdir", "out"], ["env", "GIT_INDEX_FILE=../other", *out]),
    )


def all_peers(dvc: str = "dvc") -> list[Peer]:
    """Return all contenders, also those that are not installed.

    Parameters
    ----------
    dvc
        Its program, if that is in a virtual environment of its own.
    """
    own = str(Path(sys.executable).with_name("dmlpipe"))
    store = [own, "--store", "store"]
    borg = {"BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK": "yes", "BORG_BASE_DIR": "home"}
    restic = ["restic", "-r", "repo", "-q", "--cache-dir", "cache"]
    return [
        Peer(CP, "cp", ["cp", "--version"], put=(["cp", "-r", "src", "copy"],), get=(["cp", "-r", "src", "out"],)),
        Peer(
            DMLPIPE,
            own,
            [own, "--version"],
            prepare=([own, "init", "-q", "store"],),
            put=([*store, "put", "-q", "data", "src"],),
            again=([*store, "put", "-q", "data", "src"],),
            status=([*store, "diff", "data", "./src"],),
            get=([*store, "get", "-q", "data", "out"],),
            env={"DMLPIPE_CACHE_DIR": "cache"},
        ),
        _git("git"),
        _git(
            "git, tuned", "core.compression=0", "core.looseCompression=0", "core.fsync=none", "feature.manyFiles=true"
        ),
        Peer(
            "restic",
            "restic",
            ["restic", "version"],
            prepare=([*restic, "init"],),
            put=([*restic, "backup", "src"],),
            again=([*restic, "backup", "src"],),
            get=([*restic, "restore", "latest", "--target", "out"],),
            env={"RESTIC_PASSWORD": "b"},
        ),
        Peer(
            "borg",
            "borg",
            ["borg", "--version"],
            prepare=(["borg", "init", "-e", "none", "repo"],),
            put=(["borg", "create", "repo::a", "src"],),
            again=(["borg", "create", "repo::b", "src"],),
            get=(["mkdir", "out"], ["sh", "-c", 'cd out && BORG_BASE_DIR=../home borg extract "../repo::b"']),
            env=borg,
        ),
        Peer(
            "dvc",
            dvc,
            [dvc, "--version"],
            prepare=([dvc, "init", "-q", "--no-scm"],),
            put=([dvc, "add", "-q", "src"],),
            again=([dvc, "add", "-q", "src"],),
            status=([dvc, "status", "-q"],),
            get=([dvc, "checkout", "-q"],),
            env={"DVC_NO_ANALYTICS": "1", "DVC_SITE_CACHE_DIR": "site", "CI": "1"},
            gets_in_place=True,
        ),
    ]
