"""Rules by which a branch follows another one: are they sound, and do they hold now? Pure.

What a rule goes by are facts of the ledger: sizes and numbers of commits, and times of entries. So every reader of
the ledger moves the branch alike, and nobody has to watch it; only `cron` needs somebody who says that a time came.
"""

from __future__ import annotations

from collections.abc import Mapping

from .errors import ErrorCode, InvalidInputError
from .records import Trigger
from .schedule import parse_schedule, parse_time

__all__ = ["check_trigger", "holds"]


def check_trigger(repo: str, branch: str, trigger: Trigger, others: Mapping[str, Trigger] = {}) -> None:
    """Refuse a rule that is none, or that would lead in a circle.

    Parameters
    ----------
    others
        The rules of the repo's other branches.

    Raises
    ------
    InvalidInputError
        What is wrong (code ``bad-spec``).
    """
    where = f"trigger of {repo}@{branch}"
    if trigger.size < 0 or trigger.commits < 0:
        raise _bad(f"{where}: size and commits are 0 or more, got {trigger.size} and {trigger.commits}")
    for schedule in (trigger.cron, trigger.rate):
        if schedule:
            parse_schedule(schedule)
    if trigger.cron and (trigger.size or trigger.commits or trigger.rate or trigger.all):
        raise _bad(f"{where}: cron excludes the other conditions", hint="rate= is the condition that goes with others")
    if not (trigger.cron or trigger.size or trigger.commits or trigger.rate or trigger.all):
        raise _bad(f"{where}: it has no condition", hint="size, commits, rate or cron; all with none: every commit")
    chain = [branch, trigger.on]
    while chain[-1] not in chain[:-1]:
        following = others.get(chain[-1])
        if following is None:
            return
        chain.append(following.on)
    raise _bad(f"{where}: branches would follow each other: {' <- '.join(chain)}")


def holds(trigger: Trigger, *, grown: int, commits: int, since: str, now: str) -> bool:
    """Whether a rule without `cron` holds when its `on` branch has a new commit.

    Parameters
    ----------
    grown
        Bytes by which the new head is larger than that of the branch that follows.
    commits
        Heads of `on` since that head, the new one included.
    since, now
        When the branch's head was committed (it has none: when the rule was set), and when the new head was; of an
        entry that is still being made empty, and then no rate holds yet.
    """
    if trigger.cron:
        return False
    conditions = []
    if trigger.size:
        conditions.append(grown >= trigger.size)
    if trigger.commits:
        conditions.append(commits >= trigger.commits)
    if trigger.rate:
        due = parse_schedule(trigger.rate).after(parse_time(since)) if now else None
        conditions.append(due is not None and due < parse_time(now))
    return all(conditions) if trigger.all else any(conditions)


def _bad(message: str, *, hint: str | None = None) -> InvalidInputError:
    return InvalidInputError(message, code=ErrorCode.BAD_SPEC, hint=hint)
