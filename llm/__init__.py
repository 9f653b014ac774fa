"""Models: providers that stream text, and the gateway over them. Knows nothing of rooms."""
