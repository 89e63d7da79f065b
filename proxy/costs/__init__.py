"""What an exchange costs: tokens, counted or estimated, and their prices."""
