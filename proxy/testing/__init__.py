"""The public kit for tests of plugins: the real pipeline, a scripted upstream, no sockets, no test framework.

A first test, of one exchange:

    result = run(MaskSSN(), answer="It is 078-05-1120.", stream=True)
    assert result.text == "It is [SSN]." and result.complete

`configured(Plugin, option=1)` makes a plugin as the configuration would. `Rig` keeps a gateway for many exchanges.
`assert_split_invariant` tries every cut of an answer's stream, and every plugin with a filter should pass it; `hammer`
looks for what leaks from one exchange into another. `stream`, `completion`, `tool_call`, `failure` and `Raw` make
answers. Names and meanings in this package change only with a line in the changelog.
"""

from proxy.testing.answers import Answer, Raw, completion, failure, stream, tool_call
from proxy.testing.checks import assert_split_invariant, hammer
from proxy.testing.result import Result
from proxy.testing.rig import Rig, configured, run
from proxy.testing.script import Running

__all__ = [
    "Answer",
    "Raw",
    "Result",
    "Rig",
    "Running",
    "assert_split_invariant",
    "completion",
    "configured",
    "failure",
    "hammer",
    "run",
    "stream",
    "tool_call",
]
