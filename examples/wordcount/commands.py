"""The same two pipelines as `dag.py`, as commands: byte for byte the same results."""

import dmlpipe as dml

dag = dml.DAG("wordcount")
dag.command(
    "counts",
    r"""tr -cs A-Za-z '\n' < $texts | tr A-Z a-z | grep . | LC_ALL=C sort | uniq -c |
    awk '{ print $2 "\t" $1 }' > $out/$title.tsv""",
    dml.files("texts", "/{title}.txt"),
)
dag.command(
    "totals",
    r"""cat $counts/*.tsv | awk '{ n[$1] += $2 } END { for (word in n) print word "\t" n[word] }' |
    LC_ALL=C sort > $out/totals.tsv""",
    dml.files("counts"),
)
