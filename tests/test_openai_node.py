"""The official client for Node as a judge of what comes out, beside the one for Python in the other tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import nodes
import pytest
from answers import BROKEN, LEGAL, WORTHLESS
from gateways import MOCK, Gateway
from upstreams import Upstream, json_answer

from proxy.testing import completion

pytestmark = pytest.mark.skipif(nodes.missing() is not None, reason=str(nodes.missing()))


@pytest.fixture(scope="module")
def judged(worker: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., dict[str, Any]]]:
    """Put each script behind a gateway, ask for it, and return what the client made of the answer."""
    with Upstream() as up:
        gateway = Gateway(tmp_path_factory.mktemp("judged"), MOCK.format(url=up.url), worker=worker)

        def judge(scripts: dict[str, Callable[[], Any]], stream: bool) -> dict[str, Any]:
            up.scripts = [lambda request: scripts[request.json["user"]]()]
            asked = [{"name": name, "stream": stream} for name in scripts]
            seen: dict[str, Any] = nodes.run(
                "judge.mjs", {"base_url": f"{gateway.url}/v1", "key": gateway.key, "asked": asked}
            )
            return seen

        yield judge
        gateway.stop()


def test_every_legal_framing_is_the_same_answer(judged: Callable[..., dict[str, Any]]) -> None:
    whole = {"text": "Hello there", "finish": "stop", "error": None, "status": None}
    assert judged(LEGAL, True) == dict.fromkeys(LEGAL, whole)


def test_a_broken_stream_is_an_error(judged: Callable[..., dict[str, Any]]) -> None:
    seen = judged(BROKEN, True)
    assert {name: told for name, told in seen.items() if told["error"] is None} == {}


@pytest.mark.parametrize("stream", [False, True])
def test_what_is_no_answer_is_an_error_with_its_status(judged: Callable[..., dict[str, Any]], stream: bool) -> None:
    seen = judged(WORTHLESS, stream)
    assert {(told["error"], told["status"], told["text"]) for told in seen.values()} == {
        ("InternalServerError", 502, "")
    }


def test_a_whole_answer_is_read(judged: Callable[..., dict[str, Any]]) -> None:
    seen = judged({"whole": lambda: json_answer(completion())}, False)
    assert seen["whole"] == {"text": "Hello there", "finish": "stop", "error": None, "status": None}
