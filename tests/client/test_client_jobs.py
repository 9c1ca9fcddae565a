"""Jobs from a kernel's side: what is asked, in which order it counts, what comes back."""

from __future__ import annotations

import pytest

import toolkit
from toolkit.client import JobTool
from toolkit.client.jobs import JobResult
from toolkit.errors import UsageError


def test_a_reference_chooses_a_version_and_production_is_the_default():
    """``kid`` and ``kid@production`` are one call; a bad reference is refused at once."""
    assert repr(toolkit.job("kid")) == repr(toolkit.job("kid@production")) == "toolkit.job('kid')"
    assert repr(toolkit.job("kid@3")) == "toolkit.job('kid@3')"
    with pytest.raises(UsageError, match="not a job reference"):
        toolkit.job("Kid!")


def test_results_are_a_dictionary_that_knows_its_run():
    """What was published, by name; where it came from is no name among them."""
    found = JobResult({"risk": "low"}, run_id="run-1", job="kid", version=3)
    assert (found, dict(found), found.run_id) == ({"risk": "low"}, {"risk": "low"}, "run-1")
    assert (found.job, found.version) == ("kid", 3)


def test_a_job_as_a_tool_has_a_name_that_models_take():
    """No dots; it is taken where tools are, and says what it stands for."""
    tool = toolkit.job("kyc.check@2").as_tool()
    assert isinstance(tool, JobTool)
    assert tool.__toolkit_name__ == "kyc-check"
    assert repr(tool) == "toolkit.job('kyc.check@2').as_tool()"
