"""Federated alignment on Flower: the client, the server's strategies, the apps."""
