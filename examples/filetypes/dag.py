"""What kind is each file of a folder? Magika's model says, one datum a file; then one table of them all."""

import csv
import io
from pathlib import Path

import dmlpipe as dml

dag = dml.DAG("filetypes")


@dag.pipeline(dml.cross(document=dml.files("documents", "/{folder}/{name}"), magika=dml.files("magika")))
class kinds:
    """The model is loaded once per slot, not once per file."""

    def __init__(self, magika: Path) -> None:
        from magika import Magika

        self.model = Magika(model_dir=magika)

    def __call__(self, document: bytes, folder: str, name: str) -> dml.Files:
        found = self.model.identify_bytes(document)
        return {f"{folder}/{name}.kind": f"{found.output.label}\t{found.score:.2f}\n"}


@dag.pipeline(dml.files("kinds"))
def table(kinds: Path) -> dml.Files:
    told = io.StringIO()
    rows = csv.writer(told, lineterminator="\n")
    rows.writerow(["file", "kind", "score"])
    for path in sorted(kinds.glob("*/*.kind")):
        rows.writerow([f"{path.parent.name}/{path.stem}", *path.read_text().split()])
    return {"kinds.csv": told.getvalue()}
