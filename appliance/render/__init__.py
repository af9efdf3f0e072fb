"""Turns a deployment into bytes: pure, the same deployment gives the same files."""
