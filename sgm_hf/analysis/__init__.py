"""The papers' studies of predictions: what changes with the labels' order and with their frequency."""
