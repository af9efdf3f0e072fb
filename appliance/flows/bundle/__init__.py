"""The verbs about bundles: made where there is a network, installed where there is none."""
