"""From corpora to batches: label order, encoding, length-bucketed batches, collation."""
