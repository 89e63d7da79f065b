"""The admin application: health, metrics, usage and requests, on an address and in processes of its own."""
