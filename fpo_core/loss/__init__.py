"""From logits and features to a loss: packing, scores, objectives, links, metrics."""
