"""One port: HTTP requests, static files, WebSocket upgrades, sessions."""
