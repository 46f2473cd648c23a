"""What came of a run: metrics, verdict, model card."""
