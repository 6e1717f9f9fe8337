from __future__ import annotations

import importlib.metadata

from dmlpipe.worker.slots.packages import third_party


def test_third_party_names_distributions_by_their_modules() -> None:
    versions = third_party(["yaml", "os", "dag", "_private", "click", "dmlpipe"])
    assert set(versions) == {"PyYAML", "click"}


def test_modules_have_the_owners_that_python_finds() -> None:
    owners = importlib.metadata.packages_distributions()
    # Of a distribution with another name, of one that lists its modules, of one that only lists its files.
    named = {module: set(third_party([module])) for module in ("sklearn", "yaml", "dateutil") if module in owners}
    assert named == {module: set(owners[module]) for module in named}
    assert "sklearn" in named
