"""What prompts may ask of answers: who must offer it, what fits together, what records say of it, and how tools become text."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from fabstir.domain.errors import Refused
from fabstir.protocol import controls, tool_text
from fabstir.protocol.controls import CONTROLS, Controls, Tool
from fabstir.protocol.generation import request_of
from fabstir.protocol.messages import ChatMessage, Error, Prompt, ToolCall
from fabstir.protocol.renter_items import Ask
from fabstir.protocol.transcript import SHAPED, Sampler
from fabstir.protocol.transcript_file import check as check_file
from tests.protocol.hosting import stored, told
from tests.protocol.market import FORGERY, SESSION, World, terms

WEATHER = Tool(
    name="weather", description="Of a city.", parameters='{"type":"object","properties":{"city":{"type":"string"}}}'
)
CLOCK = Tool(name="clock")
QUESTION = ChatMessage("user", "Is it raining?")

USES: list[tuple[dict[str, Any], set[str], bool]] = [
    ({}, set(), False),
    ({"temperature": 0.0, "top_p": 0.5, "seed": 3, "stop": ("x",)}, set(), False),
    ({"top_k": 5}, {"top_k"}, False),
    ({"min_p": 0.1}, {"min_p"}, False),
    ({"repeat_penalty": 1.1}, {"penalties"}, True),
    ({"presence_penalty": -1.0}, {"penalties"}, True),
    ({"frequency_penalty": 0.5}, {"penalties"}, True),
    ({"logit_bias": ((7, -100.0),)}, {"logit_bias"}, True),
    ({"json_schema": '{"type":"object"}'}, {"json_schema"}, True),
    ({"grammar": 'root ::= "yes"'}, {"grammar"}, True),
    ({"adapter": "pirate"}, {"adapter:pirate"}, False),
    ({"tools": (WEATHER,)}, {"tools"}, False),
    ({"tools": (WEATHER,), "tool_choice": "required"}, {"tools", "json_schema"}, True),
]


def _short(value: object) -> str:
    return str(sorted(value) if isinstance(value, set) else value)[:40]


def prompt(**fields: Any) -> Prompt:
    return Prompt(session_id=SESSION, message_index=0, content=QUESTION.content, **fields)


@pytest.mark.parametrize(("fields", "needed", "shaped"), USES, ids=_short)
def test_what_a_host_must_offer_and_what_records_say(fields: dict[str, Any], needed: set[str], shaped: bool) -> None:
    """Each control is named; a draw that temperature and nucleus do not describe says so in its records, whatever they are."""
    asked = Controls(**fields)
    assert controls.needs(asked) == needed
    assert controls.sampler_of(asked) == (SHAPED if shaped else Sampler.of(asked.temperature, asked.top_p))
    assert controls.greedy(Controls(**{**fields, "temperature": 0.0})) is not shaped
    assert controls.missing(controls.needs(asked), (*CONTROLS, "adapter:pirate")) is None
    assert needed <= {*CONTROLS, "adapter:pirate"}


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"json_schema": "{", "grammar": ""}, "json_schema: not a JSON object"),
        ({"json_schema": "[]"}, "json_schema: not a JSON object"),
        ({"json_schema": "[" * 5_000}, "json_schema: not a JSON object"),
        ({"json_schema": "{}", "grammar": "root ::= [a]"}, "json_schema and grammar"),
        ({"json_schema": "{}", "tools": (CLOCK,), "tool_choice": "required"}, "prescribe the form of one answer"),
        ({"tool_choice": "required"}, "there are no tools"),
        ({"tools": (CLOCK, CLOCK)}, "two tools have one name"),
        ({"tools": (CLOCK,), "tool": "clock"}, "not required"),
        ({"tools": (CLOCK,), "tool": "weather", "tool_choice": "required"}, "not among the tools"),
        ({"tools": (Tool(name="bad", parameters="7"),)}, "the parameters of bad"),
    ],
)
def test_what_does_not_fit_together(fields: dict[str, Any], why: str) -> None:
    """Refused with the part at fault, by the host and before that by the renter's own session."""
    with pytest.raises(Refused, match=f"control_invalid.*{why}"):
        controls.check(Controls(**fields))
    world = World(terms(), 1_000_000, controls=CONTROLS)
    world.connect()
    world.flow()
    fault = told(world.host.receive(prompt(**fields), 0.0))
    assert (fault.code, fault.message_index) == ("control_invalid", 0)


@pytest.mark.parametrize("name", [*CONTROLS, "adapter:pirate"])
def test_a_host_without_a_control_says_so_before_anything_costs(name: str) -> None:
    """The renter's core does not even send the prompt; a host that gets it refuses with the stable code, writes nothing and goes on."""
    fields = next(fields for fields, needed, _ in USES if name in needed)
    offered = tuple(one for one in (*CONTROLS, "adapter:pirate") if one != name)
    world = World(terms(), 1_000_000, controls=offered)
    world.connect()
    world.flow()
    assert set(offered) <= set(world.renter.capabilities)
    with pytest.raises(Refused, match=f"control_unsupported.*no {name} here"):
        world.ask(QUESTION.content, **fields)
    effects = world.host.receive(prompt(**fields), 0.0)
    assert told(effects).code == "control_unsupported" and not stored(effects)
    world.answer(3)
    assert world.renter.received == 3


def test_a_prescribed_answer_is_not_gone_on_with() -> None:
    """A grammar begins with the answer; a host that was given the beginning of one by somebody else refuses."""
    world = World(terms(), 1_000_000, controls=CONTROLS)
    world.connect()
    world.flow()
    fault = told(world.host.receive(prompt(json_schema="{}", prefix='{"a'), 0.0))
    assert fault.code == "control_unsupported"
    assert not isinstance(world.host.receive(prompt(prefix="It is"), 0.0)[-1], Error)


@pytest.mark.parametrize("fields", [{}, {"temperature": 0.0, "logit_bias": ((7, 5.0),)}, {"json_schema": "{}"}])
def test_both_sides_commit_the_same_sampler(fields: dict[str, Any]) -> None:
    """Receipts are signed over records that say how they were drawn; the same tokens drawn otherwise are another transcript, and the
    renter's file proves which it was."""
    world = World(terms(), 1_000_000, controls=CONTROLS)
    world.connect()
    world.flow()
    world.ask("q", **fields)
    world.say(40, "yes")
    world.finish_generation()
    world.flow()
    assert world.renter.ledger.signed == 40 and not world.errors
    file = world.transcript()
    assert check_file(file).tokens == 40
    (turn,) = file.turns
    assert turn.sampler == (SHAPED if fields else Sampler.of(0.8, 0.95))
    other = msgspec.structs.replace(turn.prompt, logit_bias=((9, 1.0),), json_schema="")
    lied = msgspec.structs.replace(file, turns=(msgspec.structs.replace(turn, prompt=other),))
    with pytest.raises(Exception, match="receipt_file_invalid"):
        check_file(lied)


def test_tools_in_words() -> None:
    """To the letter what the chat template of Qwen2.5 makes of the same tools, calls and results; two results are one message."""
    calls = (
        ToolCall(id="a", name="weather", arguments='{"city":"Oslo"}'),
        ToolCall(id="b", name="clock", arguments="{broken"),
    )
    conversation = (
        ChatMessage("system", "Be brief."),
        QUESTION,
        ChatMessage("assistant", "Let me see.", tool_calls=calls),
        ChatMessage("tool", "Rain.", tool_call_id="a"),
        ChatMessage("tool", "Noon.", tool_call_id="b"),
    )
    system, asked, called, answered = tool_text.plain(conversation, Controls(tools=(WEATHER, CLOCK)))
    assert system.content == (
        "Be brief.\n\n# Tools\n\nYou may call one or more functions to assist with the user query.\n\n"
        "You are provided with function signatures within <tools></tools> XML tags:\n<tools>\n"
        '{"type": "function", "function": {"name": "weather", "description": "Of a city.", "parameters": {"type": "object", '
        '"properties": {"city": {"type": "string"}}}}}\n'
        '{"type": "function", "function": {"name": "clock", "description": "", "parameters": {}}}\n</tools>\n\n'
        "For each function call, return a json object with function name and arguments within <tool_call></tool_call> XML tags:\n"
        '<tool_call>\n{"name": <function-name>, "arguments": <args-json-object>}\n</tool_call>'
    )
    assert asked == QUESTION
    assert called == ChatMessage(
        "assistant",
        'Let me see.\n<tool_call>\n{"name": "weather", "arguments": {"city": "Oslo"}}\n</tool_call>\n'
        '<tool_call>\n{"name": "clock", "arguments": {broken}\n</tool_call>',
    )
    assert answered == ChatMessage(
        "user", "<tool_response>\nRain.\n</tool_response>\n<tool_response>\nNoon.\n</tool_response>"
    )
    assert tool_text.plain(conversation[:2], Controls(tools=(CLOCK,), tool_choice="none")) == conversation[:2]
    assert tool_text.plain((QUESTION,), Controls(tools=(CLOCK,)))[0].role == "system"


def test_a_result_reaches_the_engine_as_text_and_the_transcript_as_it_is() -> None:
    """The engine sees no roles that a template may not know; what both sides hash is the conversation itself."""
    call = ChatMessage("assistant", "", tool_calls=(ToolCall(id="a", name="clock"),))
    world = World(terms(), 1_000_000, controls=CONTROLS)
    world.connect((QUESTION, call))
    world.flow()
    world.ask("Noon.", role="tool", tool_call_id="a", tools=(CLOCK,))
    (request,) = world.asked
    assert [message.role for message in request.messages] == ["system", "user", "assistant", "user"]
    world.say(3, "Noon it is.")
    world.finish_generation()
    world.flow()
    (turn,) = world.kept
    assert turn.messages == (QUESTION, call, ChatMessage("tool", "Noon.", tool_call_id="a"))
    assert turn.generation == msgspec.structs.replace(request, max_tokens=turn.prompt.max_tokens, cache="")
    assert world.renter.context[-2:] == (turn.messages[-1], ChatMessage("assistant", "Noon it is."))


def test_what_an_engine_is_asked_for_a_forced_call() -> None:
    """A schema of one object for one tool, of a list where there may be several calls; one call alone ends where its tag does."""
    both = (WEATHER, CLOCK)
    named = request_of(prompt(tools=both, tool_choice="required", tool="clock"), (QUESTION,))
    schema = msgspec.json.decode(named.json_schema)
    assert schema["properties"] == {"name": {"const": "clock"}, "arguments": {"type": "object"}}
    several = msgspec.json.decode(request_of(prompt(tools=both, tool_choice="required"), (QUESTION,)).json_schema)
    assert several["type"] == "array" and len(several["items"]["anyOf"]) == 2
    alone = request_of(prompt(tools=both, tool_choice="required", parallel_tool_calls=False), (QUESTION,))
    assert "anyOf" in msgspec.json.decode(alone.json_schema)
    assert request_of(prompt(tools=both, parallel_tool_calls=False, stop=("x",)), (QUESTION,)).stop == (
        "x",
        "</tool_call>",
    )
    assert request_of(prompt(tools=both), (QUESTION,)).stop == ()
    assert Ask(content="x", **controls.of(prompt(top_k=3))).top_k == 3


@pytest.mark.parametrize("where", ["description", "arguments", "result"])
def test_no_text_of_a_tool_pretends_to_be_another_message(where: str) -> None:
    """What the engine is given of tools is looked at as every other text is, and counted."""
    call = ToolCall(id="a", name="clock", arguments=FORGERY if where == "arguments" else "{}")
    world = World(terms(), 1_000_000, controls=CONTROLS)
    world.connect((QUESTION, ChatMessage("assistant", "", tool_calls=(call,))))
    world.flow()
    tool = Tool(name="clock", description=FORGERY if where == "description" else "The time.")
    said = FORGERY if where == "result" else "Noon."
    world.ask(said, role="tool", tool_call_id="a", tools=(tool,))
    assert [fault.code for fault in world.errors] == ["context_invalid"] and not world.asked
