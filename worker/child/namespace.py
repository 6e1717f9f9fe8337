"""A private user and mount namespace in which ``/pfs`` and ``/code`` exist. Linux, through ctypes on Python 3.11.

The process that enters gets a new root: a small tmpfs with every entry of the old root bound into it, and `/pfs` and
`/code` beside them. Nothing of the host's own file tree is changed, and no privilege is needed where the kernel lets
users make namespaces. `enter` must be called while the process has one thread; there is no way back.
"""

from __future__ import annotations

import ctypes
import os
import stat
import sys
from functools import cache

_CLONE_NEWNS = 0x00020000
_CLONE_NEWUSER = 0x10000000
_MS_RDONLY = 0x1
_MS_REMOUNT = 0x20
_MS_BIND = 0x1000
_MS_REC = 0x4000
_MS_PRIVATE = 0x40000
_MNT_DETACH = 2
# What a mount point already has may not be taken away in a user namespace: it is repeated on every remount.
_KEPT_FLAGS = {os.ST_NOSUID: 0x2, os.ST_NODEV: 0x4, os.ST_NOEXEC: 0x8, os.ST_NOATIME: 0x400, os.ST_RELATIME: 0x200000}
_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41, "riscv64": 41, "ppc64le": 203, "s390x": 217}

PFS = "/pfs"
CODE = "/code"
TMP = "/tmp"
_HOST_TMP = "/.dmlpipe/tmp"
"""Where the host's `/tmp` is, once there is another."""


class NamespaceUnavailableError(OSError):
    """The kernel or a sandbox refuses the namespace; the text says which call."""


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _call(libc: ctypes.CDLL, name: str, *arguments: object) -> None:
    if getattr(libc, name)(*arguments) != 0:
        code = ctypes.get_errno()
        shown = ", ".join(repr(a.decode()) for a in arguments if isinstance(a, bytes))
        raise NamespaceUnavailableError(code, f"{name}({shown}): {os.strerror(code)}")


def _mount(libc: ctypes.CDLL, source: str, target: str, kind: str = "", flags: int = 0) -> None:
    _call(libc, "mount", source.encode(), target.encode(), kind.encode() or None, ctypes.c_ulong(flags), None)


def _write(path: str, text: str) -> None:
    fd = os.open(path, os.O_WRONLY)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


def enter(root: str, *, users: bool = False, tmp: str = "") -> None:
    """Give this process a root of its own, with empty folders `/pfs` and `/code`.

    Parameters
    ----------
    root
        An empty folder that becomes the mount point.
    users
        It will start commands as other users, who do not exist in a user namespace: root does without one.
    tmp
        A folder to be made that becomes `/tmp`; see `show_host_tmp`. Empty: the host's.

    Raises
    ------
    NamespaceUnavailableError
        It cannot be had here. The process may be half way in then: it must end, or do without.
    """
    machine = os.uname().machine
    if sys.platform != "linux" or machine not in _PIVOT_ROOT:
        raise NamespaceUnavailableError(0, f"no mount namespaces on {sys.platform} {machine}")
    libc = _libc()
    uid, gid = os.geteuid(), os.getegid()
    if users and uid == 0:
        _call(libc, "unshare", _CLONE_NEWNS)
    else:
        _call(libc, "unshare", _CLONE_NEWUSER | _CLONE_NEWNS)
        try:
            _write("/proc/self/setgroups", "deny")
            _write("/proc/self/uid_map", f"{uid} {uid} 1")
            _write("/proc/self/gid_map", f"{gid} {gid} 1")
        except OSError as err:
            raise NamespaceUnavailableError(err.errno or 0, f"cannot map user {uid}: {err.strerror}") from err
    _mount(libc, "none", "/", flags=_MS_REC | _MS_PRIVATE)
    _mount(libc, "tmpfs", root, "tmpfs")
    os.chmod(root, 0o755)
    tmp = tmp if os.path.isdir(TMP) and not os.path.islink(TMP) else ""
    _mirror(libc, "/", root, leave_out=(PFS, CODE, TMP) if tmp else (PFS, CODE))
    os.mkdir(root + PFS)
    os.mkdir(root + CODE)
    os.makedirs(root + "/.dmlpipe", exist_ok=True)
    if tmp:
        _own_tmp(libc, root, tmp)
    old = "/.dmlpipe-old-root"
    os.mkdir(root + old)
    libc.syscall.restype = ctypes.c_long
    if libc.syscall(_PIVOT_ROOT[machine], root.encode(), (root + old).encode()) != 0:
        code = ctypes.get_errno()
        raise NamespaceUnavailableError(code, f"pivot_root: {os.strerror(code)}")
    os.chdir("/")
    _call(libc, "umount2", old.encode(), _MNT_DETACH)
    os.rmdir(old)


def _mirror(libc: ctypes.CDLL, folder: str, target: str, leave_out: tuple[str, ...] = ()) -> None:
    """Let every entry of `folder` appear in the empty folder `target`."""
    folder = folder.rstrip("/")
    with os.scandir(folder or "/") as entries:
        listed = [(entry.name, entry.stat(follow_symlinks=False).st_mode) for entry in entries]
    for name, mode in listed:
        source, place = f"{folder}/{name}", f"{target}/{name}"
        if source in leave_out:
            continue
        if stat.S_ISLNK(mode):
            os.symlink(os.readlink(source), place)
        elif stat.S_ISDIR(mode):
            os.mkdir(place)
            _mount(libc, source, place, flags=_MS_BIND | _MS_REC)
        else:
            os.close(os.open(place, os.O_CREAT | os.O_WRONLY, 0o600))
            _mount(libc, source, place, flags=_MS_BIND)


def _own_tmp(libc: ctypes.CDLL, root: str, tmp: str) -> None:
    os.mkdir(root + _HOST_TMP)
    _mount(libc, TMP, root + _HOST_TMP, flags=_MS_BIND | _MS_REC)
    os.mkdir(tmp, 0o700)
    os.chmod(tmp, 0o1777)
    os.mkdir(root + TMP)
    _mount(libc, tmp, root + TMP, flags=_MS_BIND)


def show_host_tmp(path: str) -> str:
    """Let what the host has at the top of its `/tmp` on the way to `path` appear in this one, as a link.

    Returns
    -------
    str
        The link's name; empty if `path` leads elsewhere, the host has nothing there, or something stands here.
    """
    name = os.path.normpath(path).removeprefix(f"{TMP}/").partition("/")[0] if path.startswith(f"{TMP}/") else ""
    if not name or os.path.lexists(f"{TMP}/{name}") or not os.path.lexists(f"{_HOST_TMP}/{name}"):
        return ""
    os.symlink(f"{_HOST_TMP}/{name}", f"{TMP}/{name}")
    return name


def place_folder(path: str) -> None:
    """Let an empty folder of this namespace appear at `path`, whether or not the host has one there.

    Where it is missing, the nearest folder above it is replaced by a copy made of binds: the host's stays as it is.
    """
    libc = _libc()
    above = os.path.dirname(path)
    if not os.path.isdir(path):
        missing = [path]
        while not os.path.isdir(above):
            missing.append(above)
            above = os.path.dirname(above)
        if above not in ("/", TMP):
            # Built on the namespace's own root, then moved over what it stands for.
            building = "/.dmlpipe-place"
            os.makedirs(building, exist_ok=True)
            _mount(libc, "tmpfs", building, "tmpfs")
            _mirror(libc, above, building)
            _mount(libc, building, above, flags=_MS_BIND | _MS_REC)
            _call(libc, "umount2", building.encode(), _MNT_DETACH)
            os.rmdir(building)
        for folder in reversed(missing):
            os.mkdir(folder)
    _mount(libc, "tmpfs", path, "tmpfs")


def bind(source: str, target: str, *, read_only: bool) -> None:
    """Let the folder or file `source` appear at `target`, which exists."""
    libc = _libc()
    _mount(libc, source, target, flags=_MS_BIND | _MS_REC)
    if read_only:
        flags = os.statvfs(target).f_flag
        kept = sum(value for flag, value in _KEPT_FLAGS.items() if flags & flag)
        _mount(libc, "none", target, flags=_MS_REMOUNT | _MS_BIND | _MS_RDONLY | kept)


def unbind(target: str) -> None:
    """Take away what `bind` put at `target`, and everything bound below it."""
    _call(_libc(), "umount2", target.encode(), _MNT_DETACH)
