"""What scored runs tell beyond their score: tool use, two runs side by side, items in the training data."""
