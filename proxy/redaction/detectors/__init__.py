"""What finds values of each kind around an anchor: a number, an at sign, a telling word, a key's prefix."""
