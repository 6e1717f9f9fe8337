"""What code a pipeline is: an id that says when outputs may differ, and the files that run.

`encode` turns syntax and plain values into canonical bytes, `scope` finds what a definition takes from outside,
`source` finds definitions in files, `definitions` those of live functions and classes, `imports` what statements name,
`outside` tells what is not the user's, `reach` follows the rest through the user's modules, `bundle` collects the
files, `code` puts it together. All but `code` and `bundle` need the standard library alone, so that the golden corpus
runs on every Python. Never hashed: pickles, bytecode, `ast.dump`, `ast.unparse`; they differ between Python versions.
"""
