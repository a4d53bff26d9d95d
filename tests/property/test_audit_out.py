"""What a stranger wrote is computed by no spreadsheet, whatever it is and wherever the spreadsheet parts its cells."""

import csv
import io

from hypothesis import given
from hypothesis import strategies as st
from tests.support.audit_rows import row

from audit.out.evidence.card import text
from audit.out.formats import Csv
from audit.out.rows import guarded
from contracts.registry import ModelDeleted

WORDS = st.text(
    st.sampled_from("=+-@\t\r\n ;,\"'a\u00a0\u200b\ufeff\uff1d0") | st.characters(codec="utf-8"), max_size=20
)
REASON = WORDS.map(lambda said: said.replace("\x00", "") or "x")


@given(WORDS)
def test_a_guarded_text_begins_no_formula(said: str) -> None:
    assert guarded(said).lstrip('"')[:1] not in {*"=+-@\t\r\n\uff1d\uff0b\uff0d\uff20"}
    assert guarded(said).replace("'", "") == said.replace("'", "")


@given(REASON, st.sampled_from(",;\t"))
def test_no_cell_of_a_file_begins_a_formula(said: str, delimiter: str) -> None:
    sink = io.BytesIO()
    Csv(sink).write([row(ModelDeleted(workspace="default", model="fraud", reason=said))])
    for line in csv.reader(io.StringIO(sink.getvalue().decode(), newline=""), delimiter=delimiter):
        for cell in line:
            assert cell.lstrip(' "\u00a0\u200b\ufeff')[:1] not in {*"=+-@\t\r\n\uff1d\uff0b\uff0d\uff20"}, cell


@given(WORDS)
def test_text_in_a_model_card_stays_one_line(said: str) -> None:
    assert len(text(said).splitlines()) == 1
