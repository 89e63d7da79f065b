"""Who may call what: credentials, keys, tokens, teams and their grants."""
