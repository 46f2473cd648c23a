"""The server and the client of a federation."""
