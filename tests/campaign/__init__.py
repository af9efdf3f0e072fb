"""The campaign: every fault and bad input that we know of, the tests that provoke it, and what came of it."""
