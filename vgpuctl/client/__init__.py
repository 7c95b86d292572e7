"""The API's client: HTTP over the daemon's unix socket, standard library only."""
