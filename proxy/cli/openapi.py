"""`lockgate openapi`: prints the API's description."""

from __future__ import annotations

import click


@click.command()
def openapi() -> None:
    """Print the OpenAPI 3.1 document of the API, as the gateway serves it at /openapi.json."""
    from proxy.openapi.document import encoded

    click.echo(encoded())
