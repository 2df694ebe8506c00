import json
import logging

import pytest
import structlog

from service.logging import configure_logging

pytestmark = pytest.mark.usefixtures("logging_restored")


def test_each_line_is_one_json_object_with_the_bound_ids(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("json")
    structlog.contextvars.bind_contextvars(study_id="st_1")
    structlog.get_logger("ours").info("trial finished", trial="abc")
    logging.getLogger("theirs").warning("careful: %s", "heat")
    ours, theirs = (json.loads(line) for line in capsys.readouterr().err.splitlines())
    assert (ours["event"], ours["trial"], ours["study_id"], ours["level"]) == ("trial finished", "abc", "st_1", "info")
    assert ours["timestamp"].endswith("Z")
    assert (theirs["event"], theirs["logger"], theirs["study_id"]) == ("careful: heat", "theirs", "st_1")


@pytest.mark.parametrize("form", ["json", "console"])
def test_tracebacks_do_not_tell_local_variables(form: str, capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(form)  # type: ignore[arg-type]
    password = "swordfish" + form
    try:
        raise ValueError(len(password))
    except ValueError:
        structlog.get_logger().exception("broken")
    written = capsys.readouterr().err
    assert "ValueError" in written
    assert password not in written
