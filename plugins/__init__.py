"""The bundled plugins. Each file imports from `proxy` alone and is an example for yours."""
