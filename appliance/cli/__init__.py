"""The command line: parse, call a flow, print its Result; the one boundary where errors become text."""
