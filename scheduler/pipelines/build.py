"""From what a DAG noted to specs: the code, the files that run, the environment; upstream first.

Nothing of the user's is called, and only `put_bundle` writes.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from ...worker.job import CommandTransform
from ..identity.bundle import git_state
from ..identity.source import Project
from ..inputs.expression import Input, Values
from ..inputs.walk import leaves
from .commands import command_spec
from .declared import Declared, Home, PutBundle
from .environment import command_environment, declared_env, function_environment
from .functions import python_spec, with_interpreter
from .parameters import check_parameters
from .spec import PipelineSpec, publishes
from .topology import topological_order

__all__ = ["build_specs", "upstream_first"]


def upstream_first(pipelines: Mapping[str, Declared]) -> list[str]:
    """Names of pipelines, each after those whose output it reads.

    Raises
    ------
    InvalidInputError
        `CYCLE`.
    """
    branches = {name: declared.output_branch for name, declared in pipelines.items()}
    return topological_order({name: _published(declared.input, branches) for name, declared in pipelines.items()})


def _published(input: Input, branches: Mapping[str, str]) -> list[str]:
    read = [leaf for leaf in leaves(input) if not isinstance(leaf, Values)]
    return [leaf.repo for leaf in read if publishes(branches, leaf)]


def build_specs(
    dag: str,
    pipelines: Mapping[str, Declared],
    given: Mapping[str, Mapping[str, Any]],
    *,
    home: Home,
    env: str | None,
    texts: Mapping[Path, bytes],
    put_bundle: PutBundle,
) -> tuple[list[PipelineSpec], list[str]]:
    """Make the spec of each pipeline, upstream first, and find what is worth saying of their code.

    Parameters
    ----------
    dag
        Its name.
    given
        Pipeline to parameter to value, in place of the defaults.
    env
        As of `DAG`; a pipeline's own comes first.
    texts
        Files as they were when they were imported.
    put_bundle
        Stores the files that run, and returns their tree's id.

    Returns
    -------
    list of PipelineSpec, list of str
        The specs, and notices, each once.

    Raises
    ------
    InvalidInputError
        A cycle, an unknown parameter, code that cannot be followed or sent, a missing env or include file.
    """
    project = _find_project(home, texts)
    folders = (home.folder, home.root)
    git = git_state(home.folder)
    notices: dict[str, None] = {}
    specs: list[PipelineSpec] = []
    for name in upstream_first(pipelines):
        declared = pipelines[name]
        parameters = check_parameters(declared, given.get(name, {}))
        env_name = declared.env or env or ""
        if isinstance(declared.transform, CommandTransform):
            # Only what is said of this command is made for it: a DAG's file is about its Python pipelines.
            own = command_environment(declared.env, folders, put_bundle) if declared.env else None
            spec = command_spec(declared, home, parameters, own, put_bundle=put_bundle)
            identity = own.identity if own else (declared_env(env_name, folders) if env_name else "")
        else:
            spec, found = python_spec(declared, home, project, parameters, put_bundle=put_bundle)
            notices.update(dict.fromkeys(found))
            identity = ""
            if env_name:
                made, notice = function_environment(env_name, folders, put_bundle)
                identity = made.identity
                notices.update(dict.fromkeys([notice] if notice else []))
                spec = with_interpreter(spec, made.environment)
        specs.append(
            msgspec.structs.replace(
                spec,
                egress=declared.egress,
                output_branch=declared.output_branch,
                dag=dag,
                env=identity,
                env_name=env_name,
                git=git,
            )
        )
    return specs, list(notices)


def _find_project(home: Home, texts: Mapping[Path, bytes]) -> Project:
    """Whose code counts: the folders of the project that imports look into."""
    folders = [home.folder]
    for entry in sys.path:
        folder = Path(entry or ".").resolve()
        if folder.is_relative_to(home.root) and "site-packages" not in folder.parts and folder not in folders:
            folders.append(folder)
    return Project(home.root, tuple(folders), texts)
