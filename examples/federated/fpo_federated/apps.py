"""What Flower starts on the server and on each client; put its privacy mods and wrappers here."""

from fpo.federation.deployment import make_client_app, make_server_app

server = make_server_app()
client = make_client_app()
