"""The way out to upstreams: connections, credentials and what is read off the wire."""
