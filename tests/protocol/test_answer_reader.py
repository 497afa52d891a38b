"""What an answer says, thinks and calls, however its text is cut into pieces."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fabstir.protocol.answer_reader import AnswerForm, AnswerPart, AnswerReader, Argued, Called, Said, Thought
from fabstir.protocol.controls import Controls, Tool

PLAIN, TAGGED, BARE = AnswerForm(), AnswerForm("tagged"), AnswerForm("bare")
THINKS, OPENED = AnswerForm("tagged", thinks=True), AnswerForm("tagged", thinks=True, opened=True)
RAIN = '<tool_call>\n{"name": "rain", "arguments": {"city": "Os\\"}lo", "days": [1, {"a": 2}]}}\n</tool_call>'
NOW = '<tool_call>{"name":"now","arguments":{}}</tool_call>'
RAIN_ARGUMENTS = '{"city": "Os\\"}lo", "days": [1, {"a": 2}]}'

CASES: list[tuple[AnswerForm, str, list[AnswerPart]]] = [
    (PLAIN, "a <think> b </think> <tool_call> c\n", [Said("a <think> b </think> <tool_call> c\n")]),
    (TAGGED, "Just text. \n", [Said("Just text. \n")]),
    (TAGGED, "x < y <tool", [Said("x < y <tool")]),
    (TAGGED, RAIN, [Called(0, "rain"), Argued(0, RAIN_ARGUMENTS)]),
    (TAGGED, f"Let me see.\n\n{RAIN}\n", [Said("Let me see."), Called(0, "rain"), Argued(0, RAIN_ARGUMENTS)]),
    (TAGGED, f"{RAIN}\n{NOW}", [Called(0, "rain"), Argued(0, RAIN_ARGUMENTS), Called(1, "now"), Argued(1, "{}")]),
    (TAGGED, f"{NOW} so", [Called(0, "now"), Argued(0, "{}"), Said(" so")]),
    (TAGGED, RAIN.removesuffix("</tool_call>"), [Called(0, "rain"), Argued(0, RAIN_ARGUMENTS)]),
    (TAGGED, '<tool_call>{"name": "now", "arguments": {"a', [Called(0, "now"), Argued(0, '{"a')]),
    (
        TAGGED,
        '<tool_call>{"arguments": {"a": 1}, "name": "now"}</tool_call>',
        [Called(0, "now"), Argued(0, '{"a":1}')],
    ),
    (TAGGED, '<tool_call>{"name": "now"}</tool_call>', [Called(0, "now"), Argued(0, "{}")]),
    (TAGGED, "<tool_call>no</tool_call>", [Said("<tool_call>no</tool_call>")]),
    (TAGGED, '<tool_call>{"a": 1}</tool_call>', [Said('<tool_call>{"a": 1}')]),
    (TAGGED, "<tool_call>", [Said("<tool_call>")]),
    (BARE, '{"name": "now", "arguments": {"a": 1}}', [Called(0, "now"), Argued(0, '{"a": 1}')]),
    (
        BARE,
        '[{"name": "now", "arguments": {}}, {"name": "rain", "arguments": {"b": [2]}}]',
        [Called(0, "now"), Argued(0, "{}"), Called(1, "rain"), Argued(1, '{"b": [2]}')],
    ),
    (BARE, '[{"name": "now", "argum', [Said('{"name": "now", "argum')]),
    (THINKS, "<think>\nHm.\n</think>\n\nYes.", [Thought("Hm.\n"), Said("Yes.")]),
    (THINKS, "No thought.", [Said("No thought.")]),
    (THINKS, f"<think>a</think>{NOW}", [Thought("a"), Called(0, "now"), Argued(0, "{}")]),
    (THINKS, "<think>cut", [Thought("cut")]),
    (THINKS, "<thi", [Said("<thi")]),
    (OPENED, "Hm.</think>Yes <think>", [Thought("Hm."), Said("Yes <think>")]),
    (OPENED, "never closed </thin", [Thought("never closed </thin")]),
]


def joined(parts: list[AnswerPart]) -> list[AnswerPart]:
    """Neighbours of one kind as one; white space around what is said counts."""
    whole: list[AnswerPart] = []
    for part in parts:
        last = whole[-1] if whole else None
        if isinstance(part, Said | Thought) and type(last) is type(part):
            whole[-1] = type(part)(last.text + part.text)
        elif isinstance(part, Argued) and isinstance(last, Argued) and last.index == part.index:
            whole[-1] = Argued(part.index, last.text + part.text)
        else:
            whole.append(part)
    return whole


@pytest.mark.parametrize(("form", "text", "parts"), CASES, ids=lambda value: str(value)[:40])
def test_every_cut_of_a_text_reads_the_same(form: AnswerForm, text: str, parts: list[AnswerPart]) -> None:
    """Whole, letter by letter, and cut in two anywhere."""
    for pieces in ([text], list(text), *([text[:at], text[at:]] for at in range(1, len(text)))):
        reader = AnswerReader(form)
        found = [part for piece in pieces for part in reader.feed(piece)]
        assert joined([*found, *reader.end()]) == parts, pieces
        assert reader.calls == sum(isinstance(part, Called) for part in parts)


@given(
    st.text(alphabet='<>/tool_callhink{}[]":,\\ \nax', max_size=80),
    st.sampled_from([PLAIN, TAGGED, BARE, THINKS, OPENED]),
)
def test_rubbish_is_read_without_a_fault(text: str, form: AnswerForm) -> None:
    """And alike however it is cut; nothing of a plain answer is lost."""
    once, apart = AnswerReader(form), AnswerReader(form)
    whole = joined([*once.feed(text), *once.end()])
    cut = joined([part for char in text for part in apart.feed(char)] + apart.end())
    assert whole == cut
    if form is PLAIN:
        assert whole == ([Said(text)] if text else [])


def test_arguments_stream_as_they_come() -> None:
    """A client sees the beginning of a call before its end is generated."""
    reader = AnswerReader(TAGGED)
    assert reader.feed('<tool_call>{"name": "now", "arguments": {"text": "Once') == [
        Called(0, "now"),
        Argued(0, '{"text": "Once'),
    ]
    assert reader.feed(" upon") == [Argued(0, " upon")]


def test_the_form_of_an_answer() -> None:
    """Tools only where they are offered to the model; a prescribed form has no room for thoughts."""
    tools, able = (Tool(name="now"),), ("reasoning", "reasoning:open")
    assert AnswerForm.of(Controls(), ()) == PLAIN
    assert AnswerForm.of(Controls(tools=tools), able) == OPENED
    assert AnswerForm.of(Controls(tools=tools, tool_choice="none"), ("reasoning",)) == AnswerForm(thinks=True)
    assert AnswerForm.of(Controls(tools=tools, tool_choice="required"), able) == BARE
    assert AnswerForm.of(Controls(json_schema="{}"), able) == PLAIN
