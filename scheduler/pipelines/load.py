"""Importing a user's DAG file.

Each load is fresh (`fresh.py`): the file and every module of the project that it imports are read and run again, so
that edits are seen. The file's folder stands on `sys.path`, as when Python runs it.
"""

from __future__ import annotations

import importlib
import traceback
import types
from pathlib import Path

from ...storage.errors import ErrorCode, InvalidInputError, NotFoundError, UserCodeError
from ..identity.source import Project, find_root
from .dag import DAG
from .fresh import FreshModules


def load_dags(path: Path) -> list[DAG]:
    """Import a Python file and return its top-level DAGs, in order.

    Raises
    ------
    NotFoundError
        There is no such file.
    InvalidInputError
        `BAD_SPEC`: it is no Python file, or defines no DAG. An error that the file itself raises on purpose
        (a wrong signature, say) keeps its code and gets the place.
    UserCodeError
        It does not run; the message says where, the hint shows the user's frames.
    """
    path = path.resolve()
    if not path.is_file():
        raise NotFoundError(f"{path}: no such file", code=ErrorCode.NO_FILE)
    if path.suffix != ".py":
        raise InvalidInputError(f"{path.name} is no Python file", code=ErrorCode.BAD_SPEC)
    if "." in path.stem:
        raise InvalidInputError(
            f"{path.name}: a module's name has no dot", code=ErrorCode.BAD_SPEC, hint="rename the file"
        )
    root = find_root(path.parent)
    project = Project(root, (path.parent,))
    modules = FreshModules(root, path.parent)
    with modules.active():
        module = _run(path, project)
    found: list[DAG] = []
    for value in vars(module).values():
        if isinstance(value, DAG) and value not in found:
            value.loaded = modules
            found.append(value)
    if not found:
        raise InvalidInputError(
            f"{path.name} defines no DAG", code=ErrorCode.BAD_SPEC, hint='dag = dmlpipe.DAG("name") at its top level'
        )
    return found


def user_frames(error: BaseException, project: Project) -> list[traceback.FrameSummary]:
    """The frames of a traceback that are the user's, outermost first."""
    return [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        # importlib's own frames have a name that looks like a file of the folder one stands in.
        if not frame.filename.startswith("<frozen ") and project.owns(frame.filename)
    ]


def _run(path: Path, project: Project) -> types.ModuleType:
    try:
        return importlib.import_module(path.stem)
    except InvalidInputError as err:
        frames = user_frames(err, project)
        place = f"{project.relative(frames[-1].filename)}:{frames[-1].lineno}: " if frames else ""
        raise InvalidInputError(f"{place}{err.message}", code=err.code, hint=err.hint) from err
    except SyntaxError as err:
        where = f"{project.relative(err.filename or str(path))}:{err.lineno}"
        shown = (err.text or "").strip()
        raise UserCodeError(f"{where}: SyntaxError: {err.msg}", code=ErrorCode.BAD_CODE, hint=shown or None) from err
    except (Exception, SystemExit) as err:
        raise _failed(path, err, project) from err


def _failed(path: Path, err: BaseException, project: Project) -> UserCodeError:
    frames = user_frames(err, project)
    text = traceback.format_exception_only(err)[-1].strip()
    if not frames:
        return UserCodeError(f"{path.name}: {text}", code=ErrorCode.BAD_CODE)
    place = f"{project.relative(frames[-1].filename)}:{frames[-1].lineno}"
    lines = [f"{project.relative(item.filename)}:{item.lineno} in {item.name}    {item.line}" for item in frames]
    return UserCodeError(f"{place}: {text}", code=ErrorCode.BAD_CODE, hint="\n".join(lines))
