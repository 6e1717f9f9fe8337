"""`rm`: delete files from a branch."""

from __future__ import annotations

import click

from ...storage.errors import ErrorCode, InvalidInputError
from ...storage.refs import Ref, parse_ref
from ..app import App
from ..command import Verb
from ..select import matches
from ..text import count, printable, short


@click.command("rm", cls=Verb)
@click.argument("targets", nargs=-1, required=True, metavar="REPO[@BRANCH]:/path...")
@click.option("-r", "--recursive", is_flag=True, help="Folders too.")
@click.option("-m", "--message", default="", metavar="TEXT", help="What this commit is.")
@click.option("-n", "--dry-run", is_flag=True, help="Say what would be deleted.")
@click.pass_obj
def command(app: App, targets: tuple[str, ...], recursive: bool, message: str, dry_run: bool) -> None:
    """Delete files from a branch.

    One commit; earlier commits keep the files. Quote globs: 'images:/*.png'.
    """
    refs = [_parse(target) for target in targets]
    branch = refs[0]
    for ref in refs[1:]:
        if (ref.repo, ref.ref) != (branch.repo, branch.ref):
            raise InvalidInputError(
                f"one rm is one commit: {branch.commitish} and {ref.commitish} are two branches",
                code=ErrorCode.BAD_REF,
            )
    store = app.data(read_only=dry_run)
    view = store[branch.commitish]
    paths: list[str] = []
    for ref in refs:
        for info in matches(view, ref.path or ""):
            if info.is_folder and not recursive:
                raise InvalidInputError(
                    f"{ref.repo}:{info.path} is a folder", code=ErrorCode.BAD_PATH, hint="with all that is in it: -r"
                )
            paths.append(info.path)
    if dry_run:
        for path in paths:
            app.line(printable(path))
        app.say("nothing was deleted")
        return
    with store.commit(branch.repo, branch.ref, message, create=False) as session:
        for path in paths:
            session.delete(path, missing_ok=True)
    after = session.result
    assert after is not None
    gone = view.files - after.files
    if app.json:
        app.emit({"repo": branch.repo, "branch": branch.ref, "commit": after.id, "deleted": gone, "files": after.files})
    app.say(f"deleted {count(gone, 'file')}; {branch.commitish} is at {short(after.id)}")


def _parse(target: str) -> Ref:
    ref = parse_ref(target)
    if ref.up:
        raise InvalidInputError(f"{target}: files are deleted from a branch", code=ErrorCode.BAD_REF)
    if ref.path is None:
        raise InvalidInputError(
            f"{target} names no file",
            code=ErrorCode.BAD_PATH,
            hint=f"all files: dmlpipe rm -r {ref.repo}:/   the repo: dmlpipe repo delete {ref.repo}",
        )
    return ref
