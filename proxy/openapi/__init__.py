"""The API's description in OpenAPI 3.1, made from the schemas that requests are checked with."""
