"""Signed bearer tokens: their issuers' keys, what their claims mean, and those that have been verified."""
