"""The machine's edge: the only importer of subprocess, sockets and HTTP."""
