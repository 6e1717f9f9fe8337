"""What would become of a heap of specifications here: the first look of somebody who brings them. Writes nothing.

Every specification gets a verdict of its own: one that is wrong does not hide the next. How its command could run is
judged on this machine: as a process if its program is here, in a container if a program for those is.
"""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ...storage.errors import DmlpipeError, InvalidInputError
from ...worker.child.container import PROGRAMS
from ...worker.child.secrets import parse_secret, read_secrets
from ...worker.job import CommandTransform
from ..inputs.expression import Array, Values
from ..inputs.walk import leaves
from ..pipelines.spec import PipelineSpec, upstream
from ..pipelines.topology import topological_order
from .documents import documents, read_text
from .reader import Source, read_spec

_PATH = re.compile(r"(?<![\w./$}*?\]-])/[\w.+-]+(?:/[\w.+-]+)*")
_SCRIPT = r"(?:\./)?[\w+-][\w.+-]*(?:/[\w.+-]+)*\.(?:py|[rR]|jl|pl|sh|rb|js|jar|awk)"
_WORD = re.compile(_SCRIPT)
_CALL = re.compile(
    rf"(?:^|[\s;&|(])(?:python[\d.]*|Rscript|julia|perl|ruby|node|ba?sh|ash)\s+(?:-\w+\s+)*({_SCRIPT})(?=$|[\s;&|)])"
)
"""A script beside the working directory, which is the image's."""
_NOT_OF_AN_IMAGE = ("/pfs", "/dev", "/proc", "/tmp")


@dataclasses.dataclass(frozen=True, slots=True)
class Verdict:
    """What is to be said of one specification."""

    file: str
    line: int
    pipeline: str
    """Empty where it cannot even be read."""
    verdict: str
    """`ok`, `ok with notices` or `refused`."""
    why: str = ""
    """Of a refused one."""
    hint: str = ""
    image: str = ""
    runs: str = ""
    """`process`, the name of a container program, or `not` with the reason."""
    scripts: tuple[str, ...] = ()
    """Paths that its command names and this machine does not have: they live in the image."""
    secrets: tuple[str, ...] = ()
    """Declared ones, each with `(missing)` behind it where it is not found here."""
    missing_repos: tuple[str, ...] = ()
    """Neither in the store nor made by one of the specifications."""
    without_meaning: tuple[str, ...] = ()
    notices: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain data with stable keys."""
        return dataclasses.asdict(self)


def check_specs(
    files: Sequence[Path],
    *,
    repos: Collection[str] | None,
    code: Path | None = None,
    container: str = "",
    arguments: Mapping[str, str] | None = None,
    environ: Mapping[str, str] | None = None,
    find: Callable[[str], str | None] = shutil.which,
) -> list[Verdict]:
    """Judge every specification of some files.

    Parameters
    ----------
    repos
        Those of the store; None: there is no store yet.
    code
        Folder of scripts that would be given.
    container
        As of `submit`.
    arguments
        Of Jsonnet templates.
    environ, find
        Where secrets and programs are looked for.
    """
    judge = _Judge(code, container, os.environ if environ is None else environ, find)
    found: list[tuple[Verdict, PipelineSpec | None]] = []
    for path in files:
        found += judge.file(path, arguments if path.suffix == ".jsonnet" else None)
    made = {verdict.pipeline for verdict, _ in found}
    known = made | set(repos or ())
    verdicts = []
    for verdict, spec in found:
        read = [] if spec is None else _needs(spec)
        missing = tuple(dict.fromkeys(repo for repo in read if repo not in known))
        verdicts.append(dataclasses.replace(verdict, missing_repos=missing))
    return _without_clashes(verdicts, [spec for _, spec in found if spec is not None])


def _needs(spec: PipelineSpec) -> list[str]:
    """The repos that somebody has to make: ticks make their own."""
    found = (leaf for leaf in leaves(spec.input) if not isinstance(leaf, Values))
    return [leaf.repo for leaf in found if isinstance(leaf, Array) or leaf.cron is None]


def _without_clashes(verdicts: list[Verdict], specs: Sequence[PipelineSpec]) -> list[Verdict]:
    """Refuse pipelines that share a name in one file, and a cycle."""
    out = []
    for verdict in verdicts:
        others = [each for each in verdicts if each is not verdict and each.pipeline == verdict.pipeline]
        if verdict.verdict == "refused" or not verdict.pipeline:
            others = []
        beside = [each for each in others if each.file == verdict.file]
        if beside:
            why = f"another pipeline of this file has this name, in line {beside[0].line}"
            verdict = dataclasses.replace(verdict, verdict="refused", why=why)
        elif others:
            places = ", ".join(f"{Path(each.file).name}:{each.line}" for each in others)
            notice = f"{verdict.pipeline}: {places} has this name too, and replaces it if it is submitted later"
            verdict = dataclasses.replace(verdict, verdict="ok with notices", notices=(*verdict.notices, notice))
        out.append(verdict)
    try:
        topological_order(upstream(specs))
    except InvalidInputError as err:
        inside = set(re.findall(r"[\w.-]+", err.message))
        return [
            dataclasses.replace(verdict, verdict="refused", why=err.message) if verdict.pipeline in inside else verdict
            for verdict in out
        ]
    return out


class _Judge:
    def __init__(
        self, code: Path | None, container: str, environ: Mapping[str, str], find: Callable[[str], str | None]
    ) -> None:
        self._code = code
        self._container = container
        self._environ = environ
        self._find = find
        self._programs = [name for name in PROGRAMS if find(name)]

    def file(self, path: Path, arguments: Mapping[str, str] | None) -> list[tuple[Verdict, PipelineSpec | None]]:
        """Judge what one file holds."""
        try:
            parsed = list(documents(read_text(path, arguments or {}), path.name))
        except DmlpipeError as err:
            return [(_refused(path, 1, "", err), None)]
        if not parsed:
            nothing = InvalidInputError(f"{path.name}: holds no pipeline")
            return [(_refused(path, 1, "", nothing), None)]
        return [self._one(path, data, line) for data, line in parsed]

    def _one(self, path: Path, data: object, line: int) -> tuple[Verdict, PipelineSpec | None]:
        from .reader import Code

        def open_code(folder: Path) -> Code:
            # Only whether it is there matters here.
            return Code("")

        given = Code("") if self._code is not None else None
        source = Source(path.name, path.resolve().parent, given, open_code, container=self._container)
        try:
            spec, notices = read_spec(data, source, line)
        except DmlpipeError as err:
            return _refused(path, line, _name_in(data), err), None
        ignored = [notice.partition("without meaning here: ")[2] for notice in notices]
        transform = spec.transform
        assert isinstance(transform, CommandTransform)
        folder = self._code or _own_code(path, data)
        scripts = self._scripts(transform, folder)
        verdict = Verdict(
            file=str(path),
            line=line,
            pipeline=spec.name,
            verdict="ok with notices" if notices else "ok",
            image=transform.image,
            runs=self._runs(transform, scripts),
            scripts=scripts,
            secrets=tuple(self._secret(text) for text in spec.options.secrets),
            without_meaning=tuple(name for names in ignored if names for name in names.split(", ")),
            notices=tuple(notices),
        )
        return verdict, spec

    def _runs(self, transform: CommandTransform, scripts: Sequence[str]) -> str:
        program = transform.argv[0]
        boxes = (
            self._programs
            if self._container in ("", "auto")
            else [self._container] * (self._container in self._programs)
        )
        if not self._container:
            lacks = [] if self._is_here(program) else [f"no program {program}"]
            lacks += [f"no {script}" for script in scripts if script != program]
            if not lacks:
                return "process"
            if transform.image and boxes:
                return f"{boxes[0]}, with --container"
            return f"not: {', '.join(lacks)}"
        return boxes[0] if boxes else f"not: no {self._container if self._container != 'auto' else 'container program'}"

    def _is_here(self, program: str) -> bool:
        return self._find(program) is not None or program.startswith(("/pfs/", "/code/"))

    def _scripts(self, transform: CommandTransform, code: Path | None) -> tuple[str, ...]:
        words = (*transform.argv, *transform.stdin, *transform.err_argv, *transform.err_stdin)
        found: dict[str, None] = {}
        for word in words:
            for match in _PATH.finditer(word):
                path = match[0]
                if f"{path}/".startswith(tuple(f"{place}/" for place in _NOT_OF_AN_IMAGE)):
                    continue
                here = Path(path)
                if path.startswith("/code/") and code is not None:
                    here = code / path.removeprefix("/code/")
                if not here.exists():
                    found[path] = None
        for name in _relative_scripts(transform):
            if code is None or not (code / name).exists():
                found[name] = None
        return tuple(found)

    def _secret(self, text: str) -> str:
        secret = parse_secret(text)
        try:
            read_secrets((text,), self._environ)
        except DmlpipeError:
            return f"{secret} (missing)"
        return str(secret)


def _relative_scripts(transform: CommandTransform) -> Iterator[str]:
    """Scripts that are named as standing in the working directory, or below it."""
    if transform.working_dir.startswith(("/pfs", "/tmp")):
        return
    for argv, lines in ((transform.argv, transform.stdin), (transform.err_argv, transform.err_stdin)):
        own = next((word for word in argv[1:] if _WORD.fullmatch(word)), None)
        yield from (own,) if own is not None else ()
        for line in (*argv, *lines):
            yield from _CALL.findall(line)


def _own_code(path: Path, data: object) -> Path | None:
    name = data.get("code") if isinstance(data, Mapping) else None
    return path.resolve().parent / name if isinstance(name, str) and name else None


def _name_in(data: object) -> str:
    """The pipeline's name in a document that may be wrong in every other way."""
    pipeline = data.get("pipeline") if isinstance(data, Mapping) else None
    name = pipeline.get("name") if isinstance(pipeline, Mapping) else None
    return name if isinstance(name, str) else ""


def _refused(path: Path, line: int, name: str, err: DmlpipeError) -> Verdict:
    # The table says where and which one: the message need not.
    why = re.sub(rf"^{re.escape(path.name)}(:[\d:]+)?: (pipeline '[^']*'(: )?)?", "", err.message)
    return Verdict(file=str(path), line=line, pipeline=name, verdict="refused", why=why, hint=err.hint or "")
