"""`branch`: list, create, set, delete."""

from __future__ import annotations

import click
import msgspec

from ...storage.errors import ErrorCode, InvalidInputError
from ...storage.records import Trigger
from ...storage.refs import Ref, need_repo, parse_ref
from ..app import App
from ..command import Noun
from ..text import count, short, size, when


@click.group("branch", cls=Noun)
def command() -> None:
    """list, create, set, delete."""


@command.command("list")
@click.argument("repo", metavar="REPO")
@click.pass_obj
def list_(app: App, repo: str) -> None:
    """List the branches of a repo."""
    store = app.data(read_only=True)
    need_repo(store.state, repo)
    rows = []
    triggers = store.state.triggers(repo)
    heads = store.state.branches(repo)
    for branch in sorted(heads.keys() | triggers.keys()):
        head = heads.get(branch, "")
        commit = store.state.commit(repo, head) if head else None
        files, bytes_, time = (commit.files, commit.size, commit.time) if commit else (0, 0, "")
        rule = triggers[branch].trigger if branch in triggers else None
        if app.json:
            found = {"repo": repo, "branch": branch, "head": head, "files": files, "size": bytes_, "time": time}
            app.emit(found | {"trigger": msgspec.to_builtins(rule)})
        shown = f"{files:,}" if commit else ""
        follows = _rule(rule) if rule else ""
        rows.append((f"{repo}@{branch}", short(head), shown, size(bytes_) if commit else "", when(time), follows))
    if not app.json:
        header = ("branch", "head", "files", "size", "changed", "follows")
        app.table(rows, header=header, right=frozenset({2, 3}))


@command.command("create")
@click.argument("target", metavar="REPO@BRANCH")
@click.argument("at", required=False, metavar="[REF]")
@click.option("--trigger", "on", metavar="BRANCH", help="Follow BRANCH: take its head whenever a condition holds.")
@click.option("--trigger-size", metavar="SIZE", help="It has grown by SIZE (100M).")
@click.option("--trigger-commits", type=click.IntRange(min=1), metavar="N", help="It has N commits more.")
@click.option("--trigger-rate", metavar="SCHEDULE", help="SCHEDULE had a time since: not more often.")
@click.option("--trigger-cron", metavar="SCHEDULE", help="At the times of SCHEDULE, and by no other condition.")
@click.option("--trigger-all", is_flag=True, help="All conditions must hold; else one of them.")
@click.option("--no-trigger", is_flag=True, help="A branch that exists follows no other any more.")
@click.pass_obj
def create(
    app: App,
    target: str,
    at: str | None,
    on: str | None,
    trigger_size: str | None,
    trigger_commits: int | None,
    trigger_rate: str | None,
    trigger_cron: str | None,
    trigger_all: bool,
    no_trigger: bool,
) -> None:
    """Make a branch at REF (default: the head of master), or one that follows another.

    With --trigger the branch may exist, and need not: it begins when a condition first holds. Conditions are looked
    at when a commit is made, not when a branch is moved by hand. Schedules are in UTC: "0 6 * * 1-5", "@daily".
    """
    ref = _branch(target)
    store = app.data()
    conditions = (trigger_size, trigger_commits, trigger_rate, trigger_cron, trigger_all or None)
    if no_trigger or on is not None:
        if at is not None or (no_trigger and on is not None):
            raise click.UsageError("--trigger, --no-trigger and REF exclude each other")
        rule = None
        if on is not None:
            from ...scheduler.inputs.standing import trigger

            rule = trigger(
                on,
                size=trigger_size or 0,
                commits=trigger_commits or 0,
                rate=trigger_rate or "",
                cron=trigger_cron or "",
                all=trigger_all,
            )
        store.set_trigger(ref.repo, ref.ref, rule)
        if app.json:
            app.emit({"repo": ref.repo, "branch": ref.ref, "trigger": msgspec.to_builtins(rule)})
        app.say(f"{ref.commitish} follows {_rule(rule)}" if rule else f"{ref.commitish} follows no branch")
        return
    if any(condition is not None for condition in conditions):
        raise click.UsageError("conditions need --trigger BRANCH, the branch to follow")
    commit = store[at or ref.repo].id
    store.create_branch(ref.repo, ref.ref, commit)
    _told(app, ref, commit, "is at")


@command.command("set")
@click.argument("target", metavar="REPO@BRANCH")
@click.argument("at", metavar="REF")
@click.pass_obj
def set_(app: App, target: str, at: str) -> None:
    """Move a branch to another commit."""
    ref = _branch(target)
    store = app.data()
    commit = store[at].id
    store.set_branch(ref.repo, ref.ref, commit)
    _told(app, ref, commit, "is now at")


@command.command("delete")
@click.argument("target", metavar="REPO@BRANCH")
@click.pass_obj
def delete(app: App, target: str) -> None:
    """End a branch; its commits stay."""
    ref = _branch(target)
    app.data().delete_branch(ref.repo, ref.ref)
    if app.json:
        app.emit({"repo": ref.repo, "branch": ref.ref, "deleted": True})
    app.say(f"deleted branch {ref.commitish}")


def _rule(rule: Trigger) -> str:
    """Say a rule as one reads it: ``staging: 10 commits or 100.0 MB``."""
    parts = []
    if rule.cron:
        parts.append(f"at {rule.cron}")
    if rule.size:
        parts.append(size(rule.size))
    if rule.commits:
        parts.append(count(rule.commits, "commit"))
    if rule.rate:
        parts.append(f"once per {rule.rate}")
    return f"{rule.on}: {(' and ' if rule.all else ' or ').join(parts) or 'every commit'}"


def _branch(target: str) -> Ref:
    ref = parse_ref(target)
    if ref.up or ref.path or "@" not in target:
        raise InvalidInputError(
            f"{target}: expected REPO@BRANCH",
            code=ErrorCode.BAD_REF,
            hint=f"for example: {ref.repo}@staging",
        )
    return ref


def _told(app: App, ref: Ref, commit: str, verb: str) -> None:
    if app.json:
        app.emit({"repo": ref.repo, "branch": ref.ref, "head": commit})
    app.say(f"{ref.commitish} {verb} {short(commit)}")
