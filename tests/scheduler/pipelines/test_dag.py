from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from dmlpipe.scheduler.inputs.combine import cross
from dmlpipe.scheduler.inputs.leaf import files, values
from dmlpipe.scheduler.pipelines.dag import DAG
from dmlpipe.scheduler.pipelines.load import load_dags
from dmlpipe.scheduler.pipelines.spec import Options, PipelineSpec, identity
from dmlpipe.storage.errors import ErrorCode, InvalidInputError
from dmlpipe.worker.job import CommandTransform, PythonTransform
from tests.scheduler.dag_files import HEAD, Bundles, build, build_one, write

MODEL = (
    "@dag.pipeline(dml.files('a'){})\ndef model(a: Path, *, C: float = 1, n: int = 2) -> dml.Files:\n    return {{}}\n"
)


def dag_of(**pipelines: Any) -> DAG:
    dag = DAG("d")
    for name, node in pipelines.items():
        dag.command(name, "true", node)
    return dag


def specs(dag: DAG) -> list[PipelineSpec]:
    return dag.build(put_bundle=Bundles().put)


# --- together ---


def test_pipelines_are_built_upstream_first() -> None:
    dag = dag_of(report=files("predictions"), predictions=cross(files("images"), files("model")), model=files("a"))
    assert [spec.name for spec in specs(dag)] == ["model", "predictions", "report"]


def test_a_cycle_is_refused_with_its_pipelines() -> None:
    dag = dag_of(a=files("c"), b=files("a"), c=cross(files("b"), files("x")))
    with pytest.raises(InvalidInputError, match=r"a -> b -> c -> a|b -> c -> a -> b|c -> a -> b -> c") as caught:
        specs(dag)
    assert caught.value.code is ErrorCode.CYCLE


def test_a_pipeline_that_reads_itself_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="'a' reads its own output"):
        specs(dag_of(a=files("a")))


def test_two_pipelines_of_one_name_are_refused() -> None:
    dag = dag_of(a=files("x"))
    with pytest.raises(InvalidInputError, match="two pipelines named 'a'") as caught:
        dag.command("a", "true", files("y"))
    assert caught.value.code is ErrorCode.NAME_CLASH


@pytest.mark.parametrize("name", ["a b", "", "/a", "-a", "ä"])
def test_a_bad_name_is_refused(name: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        DAG("d").command(name, "true", files("x"))
    assert caught.value.code is ErrorCode.BAD_NAME


# --- options ---


def test_options_are_recorded() -> None:
    dag = DAG("d")
    dag.command(
        "a",
        "true",
        files("x"),
        cpus=4,
        gpus=1,
        memory="8GiB",
        tries=2,
        timeout="1h",
        max_failures="0.10%",
        secrets=["TOKEN"],
        keep="latest",
    )
    assert specs(dag)[0].options == Options(
        cpus=4.0,
        gpus=1,
        memory="8GiB",
        tries=2,
        timeout_s=3600.0,
        max_failures="0.1%",
        secrets=("TOKEN",),
        keep="latest",
    )


@pytest.mark.parametrize(
    "options",
    [
        {"cpus": 0},
        {"cpus": "4"},
        {"gpus": -1},
        {"memory": "much"},
        {"tries": 0},
        {"tries": 1.5},
        {"timeout": "soon"},
        {"max_failures": "200%"},
        {"max_failures": -1},
        {"max_failures": 0.5},
        {"secrets": "TOKEN"},
        {"secrets": ["A B"]},
        {"keep": "all"},
    ],
    ids=str,
)
def test_a_wrong_option_is_refused_by_name(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError, match=f"^{next(iter(options))}") as caught:
        DAG("d").command("a", "true", files("x"), **options)
    assert caught.value.code is ErrorCode.BAD_SPEC


def test_an_input_that_is_none_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="input is files") as caught:
        DAG("d").pipeline("images")  # type: ignore[arg-type]
    assert caught.value.code is ErrorCode.BAD_INPUT


# --- commands ---


def test_a_line_is_for_bash_and_a_list_is_an_argv() -> None:
    dag = DAG("d")
    dag.command("line", "wc -l $x > $out/n", files("x"))
    dag.command("list", ["wc", "-l"], files("x"))
    line, argv = [spec.transform for spec in specs(dag)]
    assert isinstance(line, CommandTransform)
    assert (line.argv, line.shell) == (("bash", "-euo", "pipefail", "-c", "wc -l $x > $out/n"), True)
    assert isinstance(argv, CommandTransform)
    assert (argv.argv, argv.shell) == (("wc", "-l"), False)


@pytest.mark.parametrize("command", ["", " ", [], [""], ["a", 1]])
def test_an_empty_command_is_refused(command: Any) -> None:
    with pytest.raises(InvalidInputError, match="command 'a'"):
        DAG("d").command("a", command, files("x"))


def test_the_code_id_of_a_command_is_what_it_says_not_its_name_or_options() -> None:
    dag = DAG("d")
    dag.command("a", "wc $x", files("x"))
    dag.command("b", "wc $x", files("x"), tries=4, timeout=3, cpus=2)
    dag.command("c", "wc -l $x", files("x"))
    dag.command("d", ["wc", "$x"], files("x"))
    dag.command("e", "wc $x", files("x"), secrets=["A"])
    ids = [spec.code_id for spec in specs(dag)]
    assert ids[0] == ids[1]
    assert len(set(ids)) == 4


def test_included_files_of_a_command_are_its_code_folder(tmp_path: Path) -> None:
    text = HEAD + "dag.command('c', 'python3 /code/scripts/a.py', dml.files('x'), include='scripts')\n"
    bundles = Bundles()
    before = build_one(tmp_path, {"dag.py": text, "scripts/a.py": "1", "other.py": "2"}, bundles)
    assert set(bundles.kept[before.bundle]) == {"scripts/a.py"}
    after = build_one(tmp_path, {"scripts/a.py": "3"})
    assert before.code_id != after.code_id
    (tmp_path / "scripts/a.py").chmod(0o755)
    executable = build_one(tmp_path, {})
    assert executable.code_id != after.code_id


def test_an_include_that_matches_nothing_is_refused(tmp_path: Path) -> None:
    text = HEAD + "dag.command('c', 'true', dml.files('x'), include='nothing')\n"
    with pytest.raises(InvalidInputError, match="include='nothing' matches nothing"):
        build(tmp_path, {"dag.py": text})


def test_an_include_outside_the_project_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out.txt").write_text("x")
    with pytest.raises(InvalidInputError, match="is outside"):
        build(tmp_path / "p", {"dag.py": HEAD + MODEL.format(", include='../out.txt'")})


# --- parameters ---


def test_parameters_are_recorded_and_do_not_change_the_code_id(tmp_path: Path) -> None:
    (dag,) = load_dags(write(tmp_path, {"dag.py": HEAD + MODEL.format("")}))
    (before,) = dag.build(put_bundle=Bundles().put)
    (after,) = dag.build({"model": {"C": "0.5"}}, put_bundle=Bundles().put)
    assert before.parameters == {"C": 1.0, "n": 2}
    assert after.parameters == {"C": 0.5, "n": 2}
    assert before.code_id == after.code_id
    assert identity(before) != identity(after)


@pytest.mark.parametrize(
    ("params", "message", "hint"),
    [
        ({"modle": {}}, "no such pipeline", "did you mean 'model'?"),
        ({"model": {"c": 1}}, "has no parameter 'c'; it has C, n", None),
        ({"model": {"C": "much"}}, "model.C: expected float, got 'much'", None),
        ({"model": {"n": 1.5}}, "model.n: expected int, got 1.5", None),
        ({"model": {"n": True}}, "model.n: expected int, got True", None),
    ],
)
def test_wrong_parameters_are_refused(tmp_path: Path, params: dict[str, Any], message: str, hint: str | None) -> None:
    (dag,) = load_dags(write(tmp_path, {"dag.py": HEAD + MODEL.format("")}))
    with pytest.raises(InvalidInputError, match=message) as caught:
        dag.build(params, put_bundle=Bundles().put)
    assert hint is None or caught.value.hint == hint


# --- env, bundle, source ---


def test_a_declared_env_counts_by_content(tmp_path: Path) -> None:
    text = HEAD.replace("DAG('d')", "DAG('d', env='requirements.txt')") + MODEL.format("")
    before = build_one(tmp_path, {"dag.py": text, "requirements.txt": "a==1\n"})
    after = build_one(tmp_path, {"requirements.txt": "a==2\n"})
    assert before.env != after.env
    assert (before.env_name, before.code_id) == ("requirements.txt", after.code_id)


def test_an_env_may_be_an_image_with_its_digest(tmp_path: Path) -> None:
    digest = "ab" * 32
    spec = build_one(tmp_path, {"dag.py": HEAD + MODEL.format(f", env='image@sha256:{digest}'")})
    assert spec.env == f"sha256:{digest}"


@pytest.mark.parametrize("env", ["requirments.txt", "image:latest", "image@sha256:12"])
def test_an_env_that_is_neither_is_refused(tmp_path: Path, env: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        build(tmp_path, {"dag.py": HEAD + MODEL.format(f", env={env!r}"), "requirements.txt": ""})
    assert caught.value.code is ErrorCode.BAD_SPEC
    assert env != "requirments.txt" or caught.value.hint == "did you mean 'requirements.txt'?"


def test_the_bundle_holds_the_users_modules_that_are_imported(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("")
    folder = tmp_path / "flows"
    bundles = Bundles()
    text = HEAD + "import json\nfrom package.inner import go\n" + MODEL.format("")
    text += "def late():\n    import lazily\n"
    files_ = {
        "dag.py": text,
        "package/__init__.py": "",
        "package/inner.py": "from . import sibling\nfrom .sibling import x\ndef go(): ...\n",
        "package/sibling.py": "x = 1\n",
        "lazily.py": "",
        "unread.py": "",
        "data.csv": "",
    }
    spec = build_one(folder, files_, bundles)
    assert sorted(bundles.kept[spec.bundle]) == [
        "flows/dag.py",
        "flows/lazily.py",
        "flows/package/__init__.py",
        "flows/package/inner.py",
        "flows/package/sibling.py",
    ]
    assert isinstance(spec.transform, PythonTransform)
    assert (spec.transform.module, spec.transform.qualname, spec.transform.path) == ("dag", "model", ("flows",))
    assert spec.source == "flows/dag.py:7"
    assert not spec.transform.pickled


def test_the_bundle_imports_in_another_process(tmp_path: Path) -> None:
    bundles = Bundles()
    text = HEAD + "from package.inner import go\n" + MODEL.format("").replace("return {}", "return {'x': go()}")
    files_ = {"dag.py": text, "package/__init__.py": "", "package/inner.py": "def go(): return 'went'\n"}
    spec = build_one(tmp_path / "here", files_, bundles)
    there = tmp_path / "there"
    for name, (data, mode) in bundles.kept[spec.bundle].items():
        (there / name).parent.mkdir(parents=True, exist_ok=True)
        (there / name).write_bytes(data)
        (there / name).chmod(mode)
    import sys

    done = subprocess.run(
        [sys.executable, "-c", "import dag; print(dag.model(None))"], cwd=there, capture_output=True, timeout=60
    )
    assert done.stdout == b"{'x': 'went'}\n", done.stderr


def test_git_is_recorded(tmp_path: Path) -> None:
    def git(*arguments: str) -> None:
        own = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
        subprocess.run(["git", "-C", str(tmp_path), *own, *arguments], check=True, capture_output=True, timeout=60)

    path = write(tmp_path, {"dag.py": HEAD + MODEL.format("")})
    git("init", "-q")
    git("add", "dag.py")
    git("commit", "-q", "-m", "x")
    assert build_one(tmp_path, {}).git.endswith(" (clean)")
    path.write_text(path.read_text() + "\n")
    assert build_one(tmp_path, {}).git.endswith(" (changed)")


def test_a_dag_shows_itself_in_a_notebook() -> None:
    dag = dag_of(model=files("a"), grid=cross(files("model"), values(C=[1])))
    shown = dag._repr_html_()
    assert "<b>model</b>" in shown
    assert "C in [1]" in shown
    assert repr(dag) == "DAG('d': model, grid)"


@pytest.mark.parametrize(
    ("env", "kind"),
    [
        ("requirements.txt", "venv"),
        ("environment.yml", "conda"),
        ("module load samtools/1.19", "modules"),
        ("venv", "folder"),
    ],
)
def test_a_command_runs_with_what_env_names(tmp_path: Path, env: str, kind: str) -> None:
    (tmp_path / "requirements.txt").write_text("numpy==2\n")
    (tmp_path / "environment.yml").write_text("dependencies: []\n")
    (tmp_path / "venv").mkdir()
    (tmp_path / "venv" / "pyvenv.cfg").touch()
    spec = build_one(tmp_path, {"dag.py": f"{HEAD}dag.command('p', 'true', dml.files('a'), env={env!r})\n"})
    assert isinstance(spec.transform, CommandTransform)
    assert spec.transform.environment is not None
    assert (spec.transform.environment.kind, spec.env_name) == (kind, env)
    assert len(spec.env) == 64


def test_an_image_as_env_is_a_container(tmp_path: Path) -> None:
    image = "lab/x@sha256:" + "a" * 64
    spec = build_one(tmp_path, {"dag.py": f"{HEAD}dag.command('p', 'true', dml.files('a'), env={image!r})\n"})
    assert isinstance(spec.transform, CommandTransform)
    assert (spec.transform.image, spec.transform.container, spec.env) == (image, "auto", image.partition("@")[2])


def test_a_function_reads_secrets_from_variables_alone(tmp_path: Path) -> None:
    text = HEAD + MODEL.format(", secrets=['/run/creds=api']")
    with pytest.raises(InvalidInputError, match="secret '/run/creds=api' is a file, which commands see"):
        build(tmp_path, {"dag.py": text})


def test_a_function_runs_in_what_is_declared_where_that_can_be_made(tmp_path: Path) -> None:
    files = {"dag.py": HEAD + MODEL.format(", env='needs.txt'"), "needs.txt": "a==1\n", "uv.lock": "x"}
    transform = build_one(tmp_path, files).transform
    assert isinstance(transform, PythonTransform)
    assert transform.environment is not None
    assert (transform.environment.kind, transform.environment.file) == ("venv", "needs.txt")


@pytest.mark.parametrize(("env", "told"), [("uv.lock", "is not made"), ("i@sha256:" + "ab" * 32, "started in that")])
def test_what_cannot_be_made_for_functions_is_recorded_and_said(tmp_path: Path, env: str, told: str) -> None:
    (dag,) = load_dags(write(tmp_path, {"dag.py": HEAD + MODEL.format(f", env={env!r}"), "uv.lock": "x"}))
    (spec,) = dag.build(put_bundle=Bundles().put)
    assert isinstance(spec.transform, PythonTransform)
    assert (spec.transform.environment, bool(spec.env)) == (None, True)
    assert told in dag.notices[0]


@pytest.mark.parametrize(("env", "message"), [("module load r", "modules are for commands"), ("empty", "no virtual")])
def test_what_no_function_can_run_in_is_refused(tmp_path: Path, env: str, message: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InvalidInputError, match=message):
        build(tmp_path, {"dag.py": HEAD + MODEL.format(f", env={env!r}")})
