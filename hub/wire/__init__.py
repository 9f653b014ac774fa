"""Wire languages: how events and commands look to one kind of client."""
