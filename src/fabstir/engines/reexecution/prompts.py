"""The questions of a calibration: short ones and long ones, certain ones and open ones, asked at several temperatures.
Pure.

Every chat model answers them, the tiny one of the package too. Which ones come is decided by their number alone, so
that a calibration can be made again.
"""

from __future__ import annotations

from typing import Final

from fabstir.ports.engine import ChatMessage, GenerationRequest

SYSTEMS: Final = ("", "You are a helpful assistant.", "You are a polite assistant.", "You are a brief assistant.")
TOPICS: Final = ("bees", "rivers", "stars", "trains", "bread")
COUNTRIES: Final = (
    "France",
    "Japan",
    "Egypt",
    "Peru",
    "Norway",
    "Kenya",
    "Poland",
    "Chile",
    "Greece",
    "India",
    "Ghana",
)
WORDS: Final = (
    "river",
    "stone",
    "cloud",
    "window",
    "garden",
    "silver",
    "winter",
    "bridge",
    "forest",
    "tiger",
    "planet",
)
NAMES: Final = ("Ada", "Kofi", "Mei", "Omar", "Lena", "Ivan", "Zoe", "Raj", "Nina", "Hugo", "Aiko", "Tomas", "Amara")
TEMPERATURES: Final = (0.8, 0.0, 1.0, 0.8, 0.5)
LONGEST: Final = 256


def questions(number: int) -> tuple[str, ...]:
    """One question of every kind, with the words that belong to this number."""
    topic, country = TOPICS[number % len(TOPICS)], COUNTRIES[number % len(COUNTRIES)]
    word, name = WORDS[number % len(WORDS)], NAMES[number % len(NAMES)]
    other = WORDS[(number * 7 + 3) % len(WORDS)]
    return (
        "Tell me a story.",
        f"Write about {topic}.",
        f"What is the capital of {country}?",
        f"Spell {word}.",
        f"Write a long text about {topic}.",
        f"Count from {number % 9 + 1} to {number % 9 + 8}.",
        f"Repeat: {word} {other} {name} {country}",
        "Tell a story, please.",
        f"Give me JSON for {name}, age {number % 90 + 5}.",
        f"What is {number % 10} plus {number * 3 % 10}?",
        f"My name is {name}.",
    )


def calibration_request(number: int) -> GenerationRequest:
    """The request of this number."""
    kinds = questions(0)
    question = questions(number // len(kinds))[number % len(kinds)]
    system = SYSTEMS[number // len(kinds) % len(SYSTEMS)]
    messages = (*((ChatMessage("system", system),) if system else ()), ChatMessage("user", question))
    return GenerationRequest(
        messages=messages,
        max_tokens=LONGEST,
        temperature=TEMPERATURES[number // 3 % len(TEMPERATURES)],
        top_p=0.95 if number % 4 else 1.0,
        seed=number,
    )
