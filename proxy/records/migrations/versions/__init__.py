"""One file per revision, numbered; each only adds, so that the version before it still runs on the result."""
