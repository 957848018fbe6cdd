"""The web page of a pipeline: a server, the history that its charts show, and the page itself as package data."""
