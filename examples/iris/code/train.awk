# The same classifier as pytrain.py: one line per class with its share, then mean and variance of each attribute.
BEGIN { FS = "," }
NF > 1 {
    name = $NF; rows[name]++; total++
    for (i = 1; i < NF; i++) { value[name, rows[name], i] = $i; sum[name, i] += $i }
    width = NF - 1
}
END {
    for (name in rows) {
        line = sprintf("%s\t%.6f", name, rows[name] / total)
        for (i = 1; i <= width; i++) {
            mean = sum[name, i] / rows[name]; squares = 0
            for (k = 1; k <= rows[name]; k++) squares += (value[name, k, i] - mean) ^ 2
            line = line sprintf("\t%.6f\t%.6f", mean, squares / rows[name] + 1e-9)
        }
        print line | "LC_ALL=C sort"
    }
}
