from __future__ import annotations

import os
import pwd

import pytest

from dmlpipe.storage.errors import InvalidInputError
from dmlpipe.worker.child.users import find_user


def test_names_numbers_and_groups() -> None:
    me = pwd.getpwuid(os.geteuid())
    assert find_user(me.pw_name) is None
    assert find_user(str(me.pw_uid)) is None
    nobody = pwd.getpwnam("nobody")
    assert find_user("nobody") == (nobody.pw_uid, nobody.pw_gid)
    assert find_user(f"{nobody.pw_uid}") == (nobody.pw_uid, nobody.pw_gid)
    assert find_user("nobody:7") == (nobody.pw_uid, 7)
    # A container's user need not have a name.
    assert find_user("54321") == (54321, 54321)


@pytest.mark.parametrize("user", ["no-such-user", "nobody:no-such-group"])
def test_who_does_not_exist_is_refused(user: str) -> None:
    with pytest.raises(InvalidInputError, match=f"as user '{user}', who does not exist"):
        find_user(user)
