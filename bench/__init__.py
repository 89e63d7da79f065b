"""What Lockgate costs beside a bare relay of the same libraries; `python -m bench` runs it, README.md explains it."""
