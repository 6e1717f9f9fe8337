"""A specification's `transform`: the command and what it needs."""

from __future__ import annotations

from dataclasses import dataclass

from ...storage.errors import InvalidInputError
from ...worker.child.secrets import parse_secret
from ...worker.job import CommandTransform
from .fields import Fields


@dataclass(frozen=True, slots=True)
class Around:
    """What stands around a `transform`: what its pipeline and `submit` say."""

    pipeline: str
    where: str
    code: str = ""
    """Tree that appears at /code, hex."""
    has_code: bool = False
    container: str = ""
    batch: int = 0


def read_transform(data: object, around: Around, notices: list[str]) -> tuple[CommandTransform, tuple[str, ...]]:
    """Read a `transform`; return it and its secrets, and append to `notices` what somebody should know.

    Raises
    ------
    InvalidInputError
        A field is unknown, missing, wrong or not supported.
    """
    fields = Fields(data, f"{around.where}: transform", "transform")
    say = notices.append
    argv = fields.texts("cmd")
    if not argv or not argv[0]:
        raise fields.bad("required field 'cmd' is missing: the image's own command cannot be known here")
    image = fields.text("image")
    if around.container and not image:
        raise fields.bad("'image' is missing: a container runs one (--container)")
    if image and not around.container:
        say(f"{around.pipeline}: image {image} is not used: the command runs as it is on this machine")
    elif image and "sha256:" not in image:
        say(f"{around.pipeline}: image {image} counts by its name: with @sha256:... it would count by its content")
    ignored = fields.without_meaning()
    if ignored:
        say(f"{around.pipeline}: without meaning here: {', '.join(f'transform.{name}' for name in ignored)}")
    batching = fields.flag("datum_batching") or bool(around.batch)
    user = fields.text("user")
    if user:
        say(f"{around.pipeline}: user {user!r} is honoured where the worker runs as root, or in a container")
    lines = (*argv, *fields.texts("stdin"), *fields.texts("err_cmd"), *fields.texts("err_stdin"))
    if not around.has_code and not around.container and any("/code/" in line for line in lines):
        say(f"{around.pipeline}: it names files in /code: give their folder with --code DIR")
    transform = CommandTransform(
        argv=argv,
        stdin=fields.texts("stdin"),
        env=fields.variables("env"),
        working_dir=fields.text("working_dir"),
        accept_return_code=fields.integers("accept_return_code"),
        err_argv=fields.texts("err_cmd"),
        err_stdin=fields.texts("err_stdin"),
        code=around.code,
        image=image,
        user=user,
        batching=batching,
        batch=around.batch,
        container=around.container,
    )
    return transform, _secrets(fields, around.pipeline, notices)


def _secrets(transform: Fields, pipeline: str, notices: list[str]) -> tuple[str, ...]:
    found: list[str] = []
    for position, item in enumerate(transform.items("secrets")):
        fields = Fields(item, f"{transform.where}.secrets[{position}]", "secret")
        name, key = fields.required_text("name"), fields.text("key")
        variable, folder = fields.text("env_var"), _without_slashes(fields.text("mount_path"))
        if not variable and not folder:
            raise fields.bad("one of 'env_var' and 'mount_path' is needed")
        if variable and not key:
            raise fields.bad("required field 'key' is missing: a variable holds one value")
        source = f"{name}/{key}" if key else name
        for target in (variable, folder):
            if target:
                try:
                    found.append(str(parse_secret(f"{target}={source}")))
                except InvalidInputError as err:
                    raise fields.bad(err.message) from err
        places = " and ".join(text for text in (f"${variable}" if variable else "", folder) if text)
        notices.append(
            f"{pipeline}: secret {source!r} for {places} is read where the worker runs: "
            f"{f'${variable} or ' if variable else ''}~/.config/dmlpipe/secrets/{source}"
        )
    return tuple(found)


def _without_slashes(path: str) -> str:
    return path.rstrip("/") or path
