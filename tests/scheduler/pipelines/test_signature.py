from __future__ import annotations

import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import dmlpipe as dml
from dmlpipe.scheduler.inputs.combine import cross, group, join, union
from dmlpipe.scheduler.inputs.expression import Input, Like
from dmlpipe.scheduler.inputs.leaf import array, files, like, values
from dmlpipe.scheduler.pipelines.signature import read_signature
from dmlpipe.storage.errors import ErrorCode, InvalidInputError

IMAGES = files("images", "/{stem}.png")
MODEL = files("model")

HEADS = {
    "annotations evaluated": "",
    "annotations as text": "from __future__ import annotations\n",
}
IMPORTS = "from pathlib import Path\nimport dmlpipe as dml\nimport numpy as np\nimport numpy.typing as npt\n"


def define(text: str, head: str = "") -> Callable[..., Any]:
    """The last function or class of a text."""
    namespace: dict[str, Any] = {"__name__": "m"}
    exec(head + IMPORTS + textwrap.dedent(text), namespace)
    found: Callable[..., Any] = list(namespace.values())[-1]
    return found


def forms(transform: Callable[..., Any], input: Input, **options: Any) -> dict[str, tuple[str, str]]:
    found = read_signature(transform, input, **options)
    return {item.name: (item.source, item.form) for item in found.parameters}


GOOD: list[tuple[str, Input, dict[str, Any], dict[str, tuple[str, str]], str]] = [
    ("def f(model: Path) -> dml.Files: ...", MODEL, {}, {"model": ("input", "path")}, "files"),
    ("def f(images: bytes) -> dict[str, bytes]: ...", IMAGES, {}, {"images": ("input", "bytes")}, "files"),
    ("def f(model: Path): ...", MODEL, {}, {"model": ("input", "path")}, "files"),
    (
        "def f(model: Path, out: Path) -> None: ...",
        MODEL,
        {},
        {"model": ("input", "path"), "out": ("out", "path")},
        "out",
    ),
    (
        "def f(images: bytes, stem: str) -> dml.Files: ...",
        IMAGES,
        {},
        {"images": ("input", "bytes"), "stem": ("capture", "str")},
        "files",
    ),
    ("def f(stem: str) -> dml.Files: ...", IMAGES, {}, {"stem": ("capture", "str")}, "files"),
    (
        "def f(model: Path, C: float, *, n: int = 1) -> dml.Files: ...",
        cross(MODEL, values(C=[0.1, 1])),
        {},
        {"model": ("input", "path"), "C": ("value", "scalar"), "n": ("parameter", "scalar")},
        "files",
    ),
    (
        "def f(images: list[Path], stem: list[str], model: Path) -> list[dml.Files]: ...",
        cross(IMAGES, MODEL),
        {"batch": 4},
        {"images": ("input", "path"), "stem": ("capture", "str"), "model": ("input", "path")},
        "files",
    ),
    (
        "def f(images: list[Path]) -> list[dml.Files | Exception]: ...",
        IMAGES,
        {"batch": 4},
        {"images": ("input", "path")},
        "files",
    ),
    (
        "def f(images: list[Path], out: list[Path]) -> None: ...",
        IMAGES,
        {"batch": 4},
        {"images": ("input", "path"), "out": ("out", "path")},
        "out",
    ),
    (
        "def f(x: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]: ...",
        array("scenes", "/x", name="x"),
        {"writes": like("x", "uint8")},
        {"x": ("input", "array")},
        "array",
    ),
    (
        "def f(x: np.ndarray) -> dml.Files: ...",
        array("scenes", "/x", name="x"),
        {},
        {"x": ("input", "array")},
        "files",
    ),
    (
        "class F:\n def __init__(self, model: Path, *, top: int = 1) -> None: ...\n"
        " def __call__(self, images: list[Path]) -> list[dml.Files]: ...",
        cross(IMAGES, MODEL),
        {"batch": 4},
        {"model": ("input", "path"), "top": ("parameter", "scalar"), "images": ("input", "path")},
        "files",
    ),
    ("class F:\n def __call__(self, model: Path) -> dml.Files: ...", MODEL, {}, {"model": ("input", "path")}, "files"),
    (
        "def f(r1: Path, r2: bytes | None, n: str, m: str | None) -> dml.Files: ...",
        join(r1=files("r", "/{n}_1"), r2=files("r", "/{n}_2_{m}"), outer="r1"),
        {},
        {"r1": ("input", "path"), "r2": ("input", "bytes"), "n": ("capture", "str"), "m": ("capture", "str")},
        "files",
    ),
    (
        "def f(a: list[Path], b: list[Path], n: str) -> dml.Files: ...",
        group(files("a", "/{n}/*"), files("b", "/{n}/*")),
        {},
        {"a": ("input", "paths"), "b": ("input", "paths"), "n": ("capture", "str")},
        "files",
    ),
    (
        "def f(a: list[list[Path]], n: list[str]) -> list[dml.Files]: ...",
        group(files("a", "/{n}/*"), by="n"),
        {"batch": 2},
        {"a": ("input", "paths"), "n": ("capture", "str")},
        "files",
    ),
    (
        "def f(a: list[Path | None], b: list[bytes | None], C: list[float | None]) -> list[dml.Files]: ...",
        union(files("a", "/*"), files("b", "/*"), values(C=[1.0])),
        {"batch": 2},
        {"a": ("input", "path"), "b": ("input", "bytes"), "C": ("value", "scalar")},
        "files",
    ),
    (
        "def f(x: Path) -> dml.Files: ...",
        union(files("a", "/*", name="x"), files("b", "/*", name="x")),
        {},
        {"x": ("input", "path")},
        "files",
    ),
]


@pytest.mark.parametrize("head", HEADS.values(), ids=HEADS.keys())
@pytest.mark.parametrize(("text", "input", "options", "expected", "result"), GOOD)
def test_names_say_what_comes_in_and_annotations_how(
    head: str, text: str, input: Input, options: dict[str, Any], expected: dict[str, tuple[str, str]], result: str
) -> None:
    transform = define(text, head)
    assert forms(transform, input, **options) == expected
    assert read_signature(transform, input, **options).result == result


BAD: list[tuple[str, Input, dict[str, Any], str]] = [
    ("def f(model) -> dml.Files: ...", MODEL, {}, r"'model' has no annotation; .* Path .*, bytes"),
    ("def f(model: str) -> dml.Files: ...", MODEL, {}, r"'model' is annotated str; input 'model' comes in as: Path"),
    ("def f(model: Path | None) -> dml.Files: ...", MODEL, {}, "comes in as: Path"),
    ("def f(model: list[Path]) -> dml.Files: ...", MODEL, {}, "comes in as: Path"),
    ("def f(model: bytes) -> dml.Files: ...", MODEL, {}, "content of one file; glob '/' matches folders only"),
    ("def f(modle: Path) -> dml.Files: ...", MODEL, {}, "nothing comes in for parameter 'modle'; there are model, out"),
    ("def f(model: Path, C: float = 1) -> dml.Files: ...", MODEL, {}, "nothing comes in for parameter 'C'"),
    ("def f(model: Path, *, C: float) -> dml.Files: ...", MODEL, {}, "nothing comes in for parameter 'C'"),
    ("def f(model: Path, *args: Path) -> dml.Files: ...", MODEL, {}, r"\*args takes nothing by name"),
    ("def f(model: Path, **k: Path) -> dml.Files: ...", MODEL, {}, r"\*\*k takes nothing by name"),
    ("def f(model: Path, /) -> dml.Files: ...", MODEL, {}, "positional-only"),
    ("def f(model: Path = Path()) -> dml.Files: ...", MODEL, {}, "takes no default"),
    ("def f(model: Path, *, C: object = object()) -> dml.Files: ...", MODEL, {}, "a parameter is a plain value"),
    ("def f(model: Path) -> None: ...", MODEL, {}, "no output"),
    ("def f(model: Path, out: Path) -> dml.Files: ...", MODEL, {}, "both 'out' and a returned"),
    ("def f(model: Path, out: str) -> None: ...", MODEL, {}, "the output folder comes in as: Path"),
    ("def f(model: Path) -> int: ...", MODEL, {}, "returns int; allowed are dml.Files"),
    ("def f(model: Path) -> list[dml.Files]: ...", MODEL, {}, "allowed are dml.Files"),
    ("def f(images: Path) -> list[dml.Files]: ...", IMAGES, {"batch": 2}, "with batch=2, 'images' is a list"),
    ("def f(images: list[Path]) -> dml.Files: ...", IMAGES, {"batch": 2}, "it returns a list"),
    ("def f(images: list[str]) -> list[dml.Files]: ...", IMAGES, {"batch": 2}, r"Path .* in list\[...\]"),
    ("def f(images: Path, stem: int) -> dml.Files: ...", IMAGES, {}, "a capture of 'images' comes in as: str"),
    ("def f(C: int) -> dml.Files: ...", values(C=[0.5]), {}, "is annotated int, and values.* holds 0.5"),
    ("def f(C: Path) -> dml.Files: ...", values(C=[1]), {}, "comes in as: int, float, bool, str"),
    ("def f(model: Path) -> dml.Files: ...", cross(MODEL, IMAGES), {}, "input 'images' comes in nowhere"),
    ("def f(model: Nobody) -> dml.Files: ...", MODEL, {}, "cannot resolve 'Nobody'|no name"),
    ("def f(x: bytes) -> dml.Files: ...", array("s", "/x", name="x"), {}, "comes in as: numpy.ndarray"),
    ("async def f(model: Path) -> dml.Files: ...", MODEL, {}, "is async"),
    ("class F: ...", MODEL, {}, "has no __call__"),
    ("f = 3", MODEL, {}, "a pipeline is a function or a class, got int"),
    (
        "class F:\n def __init__(self, model: Path): ...\n def __call__(self, model: Path) -> dml.Files: ...",
        MODEL,
        {},
        "'model' in both __init__ and __call__",
    ),
    (
        "class F:\n def __init__(self, out: Path): ...\n def __call__(self, model: Path) -> dml.Files: ...",
        MODEL,
        {},
        "'out' belongs to __call__",
    ),
    (
        "def f(x: np.ndarray, out: Path) -> None: ...",
        array("s", "/x", name="x"),
        {"writes": like("x", "uint8")},
        "both 'out' and writes=",
    ),
    (
        "def f(x: np.ndarray) -> dml.Files: ...",
        array("s", "/x", name="x"),
        {"writes": like("x", "uint8")},
        "with writes= it returns numpy.ndarray",
    ),
    ("def f(model: Path) -> np.ndarray: ...", MODEL, {"writes": Like(input="y", dtype="uint8")}, "is no array input"),
    ("def f(a: Path) -> dml.Files: ...", files("my-repo"), {}, "input 'my-repo' is no Python name"),
    ("def f(stem: Path) -> dml.Files: ...", cross(IMAGES, files("x", name="stem")), {}, "name of another input"),
    (
        "def f(a: Path, b: bytes) -> dml.Files: ...",
        join(files("a", "/{n}.x"), files("b", "/{n}.y"), outer="a"),
        {},
        "input 'b' may be missing from a datum, and 'b' is annotated bytes",
    ),
    (
        "def f(a: Path | None, b: Path | None, n: str) -> dml.Files: ...",
        union(files("a", "/{n}.x"), files("b", "/*")),
        {},
        "a capture of 'a' may be missing from a datum, and 'n' is annotated str",
    ),
    ("def f(a: Path) -> dml.Files: ...", group(files("a", "/{n}/*"), by="n"), {}, r"comes in as: list\[Path\]"),
    (
        "def f(a: list[Path]) -> list[dml.Files]: ...",
        group(files("a", "/{n}/*"), by="n"),
        {"batch": 2},
        r"comes in as: list\[Path\]",
    ),
    (
        "def f(a: list[Path], m: str) -> dml.Files: ...",
        group(files("a", "/{n}/{m}"), by="n"),
        {},
        "nothing comes in for parameter 'm'",
    ),
    (
        "def f(a: Path, b: Path) -> dml.Files: ...",
        join(files("a", "/{n}_{m}"), files("b", "/{n}.{m}"), on="n"),
        {},
        r"the capture \{m\} has the name of another input or capture",
    ),
    ("def f(a: Path | None) -> dml.Files: ...", files("a", "/*"), {}, "comes in as: Path"),
]


@pytest.mark.parametrize(("text", "input", "options", "message"), BAD)
def test_anything_else_is_refused_with_what_is_allowed(
    text: str, input: Input, options: dict[str, Any], message: str
) -> None:
    head = HEADS["annotations as text"]
    with pytest.raises(InvalidInputError, match=message) as caught:
        read_signature(define(text, head), input, **options)
    assert caught.value.code is ErrorCode.BAD_SPEC


def test_resident_parameters_belong_to_init() -> None:
    text = """
        class F:
            def __init__(self, model: Path, *, top: int = 1) -> None: ...
            def __call__(self, images: Path, stem: str) -> dml.Files: ...
        """
    found = read_signature(define(text), cross(IMAGES, MODEL))
    assert [item.name for item in found.parameters if item.resident] == ["model", "top"]
    assert [item.input for item in found.parameters] == ["", "", "", "images"]
    assert found.defaults == {"top": 1}
    assert found.homes == (("__init__", "top"),)
    assert found.kind == "class"


def test_a_float_parameter_with_a_whole_default_is_a_float() -> None:
    found = read_signature(define("def f(model: Path, *, C: float = 1) -> dml.Files: ..."), MODEL)
    assert [(value, type(value)) for value in found.defaults.values()] == [(1.0, float)]


def test_types_that_are_imported_for_checking_only_are_understood() -> None:
    text = """
        from __future__ import annotations
        from typing import TYPE_CHECKING
        if TYPE_CHECKING:
            from pathlib import Path
            import dmlpipe as dml
        def f(model: Path) -> dml.Files: ...
        """
    namespace: dict[str, Any] = {"__name__": "m"}
    exec(textwrap.dedent(text), namespace)
    assert forms(namespace["f"], MODEL) == {"model": ("input", "path")}


def test_the_decorator_returns_the_object_unchanged() -> None:
    dag = dml.DAG("d")

    def model(training: Path) -> dml.Files:
        return {}

    assert dag.pipeline(files("training"))(model) is model
    assert model(Path()) == {}
