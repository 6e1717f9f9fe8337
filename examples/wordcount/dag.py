"""How often each word stands in each text, and in all of them."""

import re
from collections import Counter
from pathlib import Path

import dmlpipe as dml

dag = dml.DAG("wordcount")


def table(counts: Counter[str]) -> str:
    return "".join(f"{word}\t{number}\n" for word, number in sorted(counts.items()))


@dag.pipeline(dml.files("texts", "/{title}.txt"))  # a datum a text
def counts(texts: bytes, title: str) -> dml.Files:
    return {f"{title}.tsv": table(Counter(re.findall("[a-z]+", texts.decode().lower())))}


@dag.pipeline(dml.files("counts"))  # all of them are one
def totals(counts: Path) -> dml.Files:
    total: Counter[str] = Counter()
    for path in counts.glob("*.tsv"):
        for line in path.read_text().splitlines():
            word, _, number = line.partition("\t")
            total[word] += int(number)
    return {"totals.tsv": table(total)}
