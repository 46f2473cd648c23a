"""Federated alignment without a framework: partitions, exchanged layers, the server's step."""
