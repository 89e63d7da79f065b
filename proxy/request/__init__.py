"""What a client may ask for: its body, strictly parsed and checked against OpenAI's contract."""
