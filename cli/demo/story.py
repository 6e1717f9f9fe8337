"""The demo's eight steps. Every count it says is checked against the store, by the code that `make test` runs."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from .data import ARRIVING, INPUT, MISLABELLED, TRAINING, write_scans
from .facts import Facts, Work
from .stage import Stage

PARAMETER = ("C: float = 1.0", "C: float = 0.5")
REPOS = ("model", "predictions", "report")


@dataclasses.dataclass(frozen=True)
class Told:
    """What a whole performance left behind."""

    trees: dict[str, str]
    """Tree ids, named ``model at step 2``: equal in every performance in one environment."""
    claims: tuple[str, ...]


class Story:
    """The steps, in order, in the present folder.

    Parameters
    ----------
    stage
        Where it plays.
    folder
        The present folder: empty when the story begins.
    """

    def __init__(self, stage: Stage, folder: Path) -> None:
        self._stage = stage
        self._folder = folder
        self._facts = Facts(str(folder / ".dmlpipe"))
        self._trees: dict[str, str] = {}

    def tell(self) -> Told:
        """Play all steps.

        Raises
        ------
        BrokenClaimError
            Something was not as it was said.
        """
        self.prepare()
        self.put_the_data()
        self.run_the_pipelines()
        self.ask_why()
        self.ten_images_arrive()
        self.a_bad_batch_arrives()
        self.go_back()
        self.edit_the_code()
        self.where_to_go_next()
        return Told(self._trees, tuple(self._stage.claims))

    def prepare(self) -> None:
        """Write the DAG and the scans."""
        (self._folder / "dag.py").write_text(dag_text())
        write_scans(self._folder / "scans")

    def put_the_data(self) -> None:
        """Step 1."""
        stage, facts = self._stage, self._facts
        stage.step("Put the data in")
        stage.say(
            f"A store is a folder. {TRAINING} scans to train on, in folders named by their label; the true labels of"
            f" the input; {INPUT:,} scans as input. Three repos, one commit each."
        )
        stage.type("dmlpipe init")
        stage.type("dmlpipe put training scans/training -m 'first batch'")
        stage.type("dmlpipe put labels scans/labels.json -m 'the truth'")
        stage.type("dmlpipe put images scans/images -m 'week 34'")
        found = tuple(facts.files(repo) for repo in ("training", "labels", "images"))
        stage.claim(f"{TRAINING} + 1 + {INPUT:,} files in three commits", (TRAINING, 1, INPUT), found)
        facts.work()

    def run_the_pipelines(self) -> None:
        """Step 2."""
        stage, facts = self._stage, self._facts
        stage.step("Run three pipelines")
        stage.say(
            "dag.py declares them: `model` trains a classifier and keeps it as a file, `predictions` labels each scan"
            " with it, `report` scores the labels. Training is one datum, each scan is one, the report is one."
        )
        stage.type("dmlpipe run dag.py", picture="run")
        stage.claim(
            f"1 + {INPUT:,} + 1 datums run, none failed",
            {"model": Work("done", 1, 0), "predictions": Work("done", INPUT, 0), "report": Work("done", 1, 0)},
            facts.work(),
        )
        stage.type("dmlpipe cat report:/accuracy.json")
        stage.claim("a prediction for every scan", INPUT, facts.files("predictions"))
        self._remember(2)

    def ask_why(self) -> None:
        """Step 3."""
        stage, facts = self._stage, self._facts
        name, true, predicted = facts.wrong()
        stage.step("Ask why")
        stage.say(
            f"Scan {name} is a {true}, and the model says {predicted}. What made that file? Its scan, its model, what"
            " the model was trained on, the code and its parameters, the job: written down by the engine, for every"
            " single output."
        )
        printed = " ".join(stage.type(f"dmlpipe why predictions:/{name}.json", picture="why"))
        for repo, what in (("images", "its scan"), ("model", "its model"), ("training", "what that was trained on")):
            stage.claim(
                f"the tree leads to {what}, {repo}@{facts.commit(repo)[:6]}",
                True,
                f"{repo}@{facts.commit(repo)[:6]}" in printed,
            )

    def ten_images_arrive(self) -> None:
        """Step 4."""
        stage, facts = self._stage, self._facts
        stage.step("Ten images arrive")
        stage.say(
            "Only what is new is computed: ten predictions and the report. The other thousand are skipped, nothing is"
            " retrained."
        )
        before = facts.commit("model")
        stage.type("dmlpipe put images scans/arrived-1 -m 'ten more'")
        stage.type("dmlpipe run")
        stage.claim(
            f"exactly {ARRIVING} datums and the report run, {INPUT:,} are skipped",
            {"predictions": Work("done", ARRIVING, INPUT), "report": Work("done", 1, 0)},
            facts.work(),
        )
        stage.claim("the model was not touched", before, facts.commit("model"))
        self._remember(4)

    def a_bad_batch_arrives(self) -> None:
        """Step 5."""
        stage, facts = self._stage, self._facts
        total = INPUT + ARRIVING
        stage.step("Bad training data arrives")
        stage.say(
            f"{MISLABELLED} more scans to train on, but somebody swapped the folders 1 and 7. New training data means"
            " a new model, and a new model means new predictions: nobody has to start either."
        )
        stage.type("dmlpipe put training scans/mislabelled -m 'second batch'")
        good, labels = facts.accuracy(), facts.labels()
        stage.type("dmlpipe run")
        stage.claim(
            f"`model` retrained by itself, all {total:,} predictions were computed again",
            {"model": Work("done", 1, 0), "predictions": Work("done", total, 0), "report": Work("done", 1, 0)},
            facts.work(),
        )
        stage.type("dmlpipe cat report:/accuracy.json")
        bad = facts.accuracy()
        stage.claim(f"accuracy fell, from {good:.1%} to {bad:.1%}", True, bad < good - 0.05)
        stage.say("Which predictions changed?")
        listed = stage.type("dmlpipe diff 'predictions@master^' predictions", head=4)
        now = facts.labels()
        changed = sorted(name for name in now if now[name] != labels[name])
        stage.claim(
            f"{len(changed)} predictions changed, and diff lists these",
            changed,
            sorted(name for name in now if any(f"{name}.json" in line for line in listed)),
        )
        self._remember(5)

    def go_back(self) -> None:
        """Step 6."""
        stage, facts = self._stage, self._facts
        total = INPUT + ARRIVING
        stage.step("Go back")
        stage.say(
            "The model before was better. `revert` moves its branch back and holds it; whoever reads it follows. What"
            " was computed once is known: no datum runs."
        )
        good = facts.commit("model@master^")
        stage.type("dmlpipe revert model --to 'model@master^' -m 'the second batch is mislabelled'")
        stage.type("dmlpipe run")
        stage.claim(
            f"zero datums run, {total:,} predictions and the report are reused",
            {"predictions": Work("done", 0, total), "report": Work("done", 0, 1)},
            facts.work(),
        )
        for repo in REPOS:
            stage.claim(f"{repo} is what it was, to the byte", self._trees[f"{repo} at step 4"], facts.tree(repo))
        stage.say("And it holds: ten more images are predicted by the model that we went back to.")
        stage.type("dmlpipe put images scans/arrived-2 -m 'ten more'")
        stage.type("dmlpipe run")
        stage.claim(
            f"{ARRIVING} datums and the report run, {total:,} are skipped",
            {"predictions": Work("done", ARRIVING, total), "report": Work("done", 1, 0)},
            facts.work(),
        )
        stage.claim("they were made by the held model", good, facts.inputs("predictions")["model"])
        printed = " ".join(stage.type("dmlpipe status"))
        stage.claim("status says that the model is held", (good, True), (facts.held("model"), "held" in printed))
        stage.type("dmlpipe release model")
        stage.claim("the hold is over", "", facts.held("model"))
        self._remember(6)

    def edit_the_code(self) -> None:
        """Step 7."""
        stage, facts = self._stage, self._facts
        total = INPUT + 2 * ARRIVING
        stage.step("Edit the code")
        stage.say(
            "Code is part of what a result depends on, by its meaning, not its spelling. A comment changes nothing;"
            " `plan` says so, and writes nothing."
        )
        dag = self._folder / "dag.py"
        stage.show("echo '# a remark' >> dag.py", lambda: _rewrite(dag, dag.read_text() + "# a remark\n"))
        before = facts.store().state.n
        stage.type("dmlpipe plan --exit-code dag.py")
        stage.claim("a comment is edited: nothing to do", {}, facts.work())
        stage.say("A parameter does change results. `plan` says which datums would run, and why.")
        old, new = PARAMETER
        stage.show(f"sed -i 's/{old}/{new}/' dag.py", lambda: _rewrite(dag, dag.read_text().replace(old, new)))
        printed = " ".join(" ".join(line.split()) for line in stage.type("dmlpipe plan dag.py", picture="plan"))
        stage.claim("the model would run, because C changed", True, "1 of 1" in printed and "1.0 -> 0.5" in printed)
        stage.claim(f"and then {total:,} predictions, if the model changes", True, f"{total:,} of {total:,}" in printed)
        stage.claim("plan wrote nothing", before, facts.store().state.n)

    def where_to_go_next(self) -> None:
        """Step 8."""
        stage = self._stage
        stage.step("Where to go next")
        stage.say("All of this is left for you, with C = 0.5 not run yet:")
        stage.lines(
            [
                (f"cd {self._folder}", "the store, the scans, the DAG"),
                ("dmlpipe run dag.py", "train with C = 0.5; then: dmlpipe diff 'report@master^' report"),
                ("dmlpipe get report:/confusion.png .", "what was taken for what"),
                ("dmlpipe log training", "who put what, and when"),
                ("dmlpipe up", "keep it up to date: every put starts what depends on it; dmlpipe down"),
                ("dmlpipe init --dag ~/mine", "a store and a first DAG of your own"),
            ]
        )
        stage.say(f"The file to change is {self._folder / 'dag.py'}: three pipelines in 60 lines.")

    def _remember(self, step: int) -> None:
        for repo in REPOS:
            self._trees[f"{repo} at step {step}"] = self._facts.tree(repo)


def dag_text() -> str:
    """The DAG of `examples/digits`, which ships with the package."""
    return Path(__file__).with_name("dag.txt").read_text(encoding="utf-8")


def _rewrite(path: Path, text: str) -> None:
    path.write_text(text)
