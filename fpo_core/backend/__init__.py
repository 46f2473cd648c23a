"""What a framework must provide, and what all backends share."""
