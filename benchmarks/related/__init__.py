"""The losses and data methods beside FPO, measured on the quickstart's world."""
