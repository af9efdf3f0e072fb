"""The verbs, a few lines each; nothing is imported here, so that a quick verb stays quick."""
