"""`VgpuctlError`: as a problem document and back."""

from __future__ import annotations

import json

from vgpuctl.errors import NoCapacity


def test_a_problem_can_be_among_the_facts_of_its_error() -> None:
    """A refused plan names all of its problems, the first of them being the error itself."""
    error = NoCapacity("nothing fits", gpu="0000:41:00.0")
    error.facts["problems"] = [error.to_problem()]
    told = json.loads(json.dumps(error.to_problem()))
    assert told["facts"]["problems"][0]["facts"] == {"gpu": "0000:41:00.0"}
