"""Only packages that no other one brought along are shown first."""

from dmlpipe.cli.packages import roots


def test_what_another_package_requires_is_left_out() -> None:
    assert roots(["cycler", "matplotlib", "fontTools", "pillow", "scikit-learn", "joblib", "scipy", "numpy"]) == [
        "matplotlib",
        "scikit-learn",
    ]


def test_what_dmlpipe_brings_is_left_out() -> None:
    assert roots(["msgspec", "blake3", "cloudpickle", "scikit-learn"]) == ["scikit-learn"]


def test_a_package_that_is_not_installed_here_is_shown() -> None:
    assert roots(["torch-of-another-machine", "scikit-learn"]) == ["scikit-learn", "torch-of-another-machine"]
