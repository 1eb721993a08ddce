"""The corpus, record by record: its code and nothing but our error, in bounded time and memory."""

from __future__ import annotations

import subprocess
import sys

import pytest

from fanfold_schemas import SchemaError, check_id, decode_task, encode_task
from tests.property.bad_records import HOSTILE_TEXTS, BadRecord
from tests.property.corpus import (
    BAD_RECORDS,
    BAD_RESULTS,
    EXTRA_BYTES_MAX,
    ODD_RECORDS,
    REFUSAL_MS_MAX,
    BadResult,
    OddRecord,
    refusal,
    refusal_ms,
)
from tests.support.tree import ROOT
from tests.unit.wire import TASK


def _name(case: object) -> str:
    return str(getattr(case, "name", case))


@pytest.mark.parametrize("bad", [*BAD_RECORDS, *BAD_RESULTS], ids=_name)
class TestWhatIsBad:
    def test_it_is_refused_with_its_code_and_nothing_else_is_raised(self, bad: BadRecord | BadResult) -> None:
        error = refusal(bad)
        assert error.code == bad.code
        if isinstance(bad, BadRecord):
            assert error.path.startswith(bad.path)

    def test_its_message_is_short_and_has_nothing_that_a_terminal_obeys(self, bad: BadRecord | BadResult) -> None:
        message = str(refusal(bad))
        assert message.isprintable()
        assert len(message) < 300

    def test_it_is_refused_in_time(self, bad: BadRecord | BadResult) -> None:
        assert refusal_ms(bad) < REFUSAL_MS_MAX


@pytest.mark.parametrize("odd", ODD_RECORDS, ids=_name)
def test_what_only_looks_bad_is_accepted_and_comes_back_as_it_was(odd: OddRecord) -> None:
    task = decode_task(odd.make())
    assert task.arg == odd.arg()
    assert decode_task(encode_task(task)) == task


@pytest.mark.parametrize("name", HOSTILE_TEXTS)
def test_what_is_harmless_in_an_arg_is_no_id_and_is_shown_escaped(name: str) -> None:
    with pytest.raises(SchemaError) as caught:
        check_id(HOSTILE_TEXTS[name], "$.task_id")
    assert str(caught.value).isprintable()


def test_the_whole_corpus_takes_less_memory_than_one_record_may() -> None:
    # In a process of its own, which has not had more memory before for another reason.
    command = [sys.executable, "-m", "tests.property.corpus"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    name, _, figures = done.stdout.splitlines()[-1].partition(": ")
    found = {key: int(value) for key, value in (figure.split("=") for figure in figures.split())}
    assert name == "corpus"
    assert found["records"] == len(BAD_RECORDS) + len(BAD_RESULTS) + len(ODD_RECORDS)
    assert found["violations"] == 0
    assert 0 < found["resident_kib"] < EXTRA_BYTES_MAX // 1024


def test_after_each_of_them_a_good_record_is_decoded() -> None:
    cases: list[BadRecord | BadResult] = [*BAD_RECORDS, *BAD_RESULTS]
    for bad in cases:
        refusal(bad)
        assert decode_task(encode_task(TASK)) == TASK, bad.name


@pytest.mark.parametrize("cases", [BAD_RECORDS, BAD_RESULTS, ODD_RECORDS], ids=["records", "results", "odd records"])
def test_no_two_cases_have_one_name(cases: list[BadRecord] | list[BadResult] | list[OddRecord]) -> None:
    names = [case.name for case in cases]
    assert len(names) == len(set(names))
