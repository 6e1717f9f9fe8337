# The same classifier as pyinfer.py: awk -f infer.awk MODEL ATTRIBUTES
FNR == NR {
    split($0, cell, "\t"); name[++classes] = cell[1]; share[classes] = cell[2]
    for (i = 3; i in cell; i++) known[classes, i - 2] = cell[i]
    next
}
NF {
    width = split($0, row, ","); best = 0
    for (c = 1; c <= classes; c++) {
        score = log(share[c])
        for (i = 1; i <= width; i++) {
            mean = known[c, 2 * i - 1]; variance = known[c, 2 * i]
            score -= (log(variance) + (row[i] - mean) ^ 2 / variance) / 2
        }
        if (!best || score > top) { best = c; top = score }
    }
    print name[best]
}
