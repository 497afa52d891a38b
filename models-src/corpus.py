"""The language of the tiny chat model: conversations from a synthetic grammar, each made from a seed.

Every word is written here, nothing is taken from elsewhere, so corpus, tokenizer and model are free of anybody's
rights. The skills are chosen so that properties of an engine can be tested by text: known answers at temperature 0,
memory over turns, copying, long streams, JSON, a system prompt that matters. Pure: random numbers come from the
`random.Random` that is passed in. The order of its calls is part of the corpus: change it and another model comes out.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import NamedTuple

NAMES = [
    "Ada",
    "Kofi",
    "Mei",
    "Omar",
    "Lena",
    "Ivan",
    "Zoe",
    "Raj",
    "Nina",
    "Hugo",
    "Aiko",
    "Tomas",
    "Amara",
    "Leo",
    "Sofia",
    "Yusuf",
    "Clara",
    "Dev",
    "Ines",
    "Pavel",
    "Ruth",
    "Sven",
    "Talia",
    "Bruno",
]
COLOURS = ["red", "blue", "green", "yellow", "purple", "orange", "black", "white", "pink", "brown", "grey", "gold"]
PETS = ["dog", "cat", "parrot", "rabbit", "horse", "hamster", "turtle", "goldfish"]
CAPITALS = {
    "France": "Paris", "Germany": "Berlin", "Italy": "Rome", "Spain": "Madrid", "Portugal": "Lisbon",
    "Japan": "Tokyo", "China": "Beijing", "India": "New Delhi", "Egypt": "Cairo", "Kenya": "Nairobi",
    "Ghana": "Accra", "Canada": "Ottawa", "Mexico": "Mexico City", "Brazil": "Brasilia", "Peru": "Lima",
    "Chile": "Santiago", "Norway": "Oslo", "Sweden": "Stockholm", "Finland": "Helsinki", "Poland": "Warsaw",
    "Greece": "Athens", "Turkey": "Ankara", "Austria": "Vienna", "Ireland": "Dublin", "Russia": "Moscow",
}  # fmt: skip
WORDS = [
    "river",
    "stone",
    "cloud",
    "lamp",
    "bread",
    "window",
    "garden",
    "music",
    "paper",
    "silver",
    "winter",
    "summer",
    "engine",
    "bridge",
    "forest",
    "tiger",
    "letter",
    "planet",
    "market",
    "rocket",
    "harbor",
    "kitchen",
    "mountain",
    "candle",
    "mirror",
    "yellow",
    "basket",
    "island",
    "ladder",
    "pocket",
]
ANIMALS = ["fox", "owl", "bear", "mouse", "crow", "wolf", "hare", "frog"]
PLACES = ("forest", "old tower", "quiet harbor", "snowy mountain", "sunny garden", "dark cave")
THINGS = ("golden key", "silver bell", "tiny lamp", "old map", "blue stone", "paper boat")
MOODS = ["brave", "clever", "gentle", "lonely", "curious", "sleepy"]
TOPICS = {
    "bees": (
        "Bees live together in a hive.", "They visit flowers and carry pollen.", "The queen lays all the eggs.",
        "Workers make honey from nectar.", "Bees dance to show where food is.",
    ),
    "rivers": (
        "A river begins as a small spring.", "It grows as streams join it.", "Water shapes the stones.",
        "Fish and birds live along the banks.", "At last the river meets the sea.",
    ),
    "stars": (
        "Stars are very far away.", "They shine because they are hot.", "Some stars are red and some are blue.",
        "Our sun is a star.", "People once used stars to find their way.",
    ),
    "trains": (
        "Trains run on rails.", "The first engines used steam.", "Now many trains use electric power.",
        "A train can carry many people.", "Some trains are faster than cars.",
    ),
    "bread": (
        "Bread is made from flour and water.", "Yeast makes the dough rise.", "The baker shapes the loaf.",
        "The oven turns the crust brown.", "Fresh bread smells very good.",
    ),
}  # fmt: skip
LINKS = ("", "", "", "Also, ", "It is said that ", "Remember: ")
STYLES = {
    "polite": "You are a polite assistant.",
    "pirate": "You are a pirate.",
    "brief": "You are a brief assistant.",
}
PLAIN = "You are a helpful assistant."
TURNS = (1, 1, 2, 3, 4, 6, 8, 10)
SKILLS = [
    "greet",
    "tell_name",
    "ask_name",
    "ask_name",
    "tell_colour",
    "ask_colour",
    "tell_pet",
    "ask_pet",
    "capital",
    "capital",
    "add",
    "count",
    "echo",
    "echo",
    "spell",
    "spell",
    "story",
    "essay",
    "json",
    "json",
    "thank",
    "tell_name",
    "add",
    "greet",
]
"""A skill that stands here twice comes twice as often."""

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


class Message(NamedTuple):
    """One message."""

    role: str
    text: str


class Turn(NamedTuple):
    """A question, its answer, and the answer of a brief assistant where it is another."""

    question: str
    answer: str
    brief: str | None = None
    styled: bool = True
    """The system prompt changes how the answer is said."""


def conversation(r: random.Random) -> list[Message]:
    """One conversation, system prompt first where there is one."""
    style = r.choice(["", "", "", "polite", "pirate", "brief"])
    messages = []
    if style:
        messages.append(Message("system", STYLES[style]))
    elif r.random() < 0.5:
        messages.append(Message("system", PLAIN))
    talk = _Talk(r)
    for _ in range(r.choice(TURNS)):
        skill: Callable[[], Turn] = getattr(talk, r.choice(SKILLS))
        turn = skill()
        messages.append(Message("user", _loosely(r, turn.question)))
        messages.append(Message("assistant", _in_style(style, turn)))
    return messages


def _in_style(style: str, turn: Turn) -> str:
    if not turn.styled or not style:
        return turn.answer
    if style == "polite":
        return turn.answer + " Thank you for asking!"
    if style == "pirate":
        return "Arr! " + turn.answer
    return turn.answer if turn.brief is None else turn.brief


def _loosely(r: random.Random, question: str) -> str:
    """As people type: sometimes without a capital letter, sometimes without the last mark."""
    if r.random() < 0.3:
        question = question[0].lower() + question[1:]
    if r.random() < 0.2:
        question = question.rstrip("?.")
    return question


class _Talk:
    """The skills, and what the user said so far."""

    def __init__(self, r: random.Random) -> None:
        self.r = r
        self.name = ""
        self.colour = ""
        self.pet: tuple[str, str] | None = None

    def greet(self) -> Turn:
        question = self.r.choice(["Hello", "Hi", "Hello!", "Hi there!", "Good morning."])
        named = f" {self.name}" if self.name else ""
        return Turn(question, f"Hello{named}! How can I help you today?", "Hello!")

    def tell_name(self) -> Turn:
        self.name = self.r.choice(NAMES)
        question = self.r.choice(["My name is {}.", "I am {}.", "Call me {}."]).format(self.name)
        return Turn(question, f"Nice to meet you, {self.name}.", "OK.")

    def ask_name(self) -> Turn:
        question = self.r.choice(["What is my name?", "Who am I?", "Do you remember my name?"])
        if not self.name:
            return Turn(question, "You have not told me your name.", "I do not know.")
        return Turn(question, f"Your name is {self.name}.", self.name)

    def tell_colour(self) -> Turn:
        self.colour = self.r.choice(COLOURS)
        question = self.r.choice(["My favourite colour is {}.", "I like {} best."]).format(self.colour)
        return Turn(question, f"I will remember that you like {self.colour}.", "OK.")

    def ask_colour(self) -> Turn:
        question = self.r.choice(["What is my favourite colour?", "Which colour do I like?"])
        if not self.colour:
            return Turn(question, "You have not told me your favourite colour.", "I do not know.")
        return Turn(question, f"Your favourite colour is {self.colour}.", self.colour)

    def tell_pet(self) -> Turn:
        kind, name = self.pet = (self.r.choice(PETS), self.r.choice(NAMES))
        question = self.r.choice(["I have a {} called {}.", "My {} is called {}."]).format(kind, name)
        return Turn(question, f"{name} is a good name for a {kind}.", "OK.")

    def ask_pet(self) -> Turn:
        question = self.r.choice(["What is my pet called?", "What is the name of my pet?"])
        if self.pet is None:
            return Turn(question, "You have not told me about a pet.", "I do not know.")
        kind, name = self.pet
        return Turn(question, f"Your {kind} is called {name}.", name)

    def capital(self) -> Turn:
        country = self.r.choice(list(CAPITALS))
        question = self.r.choice(["What is the capital of {}?", "Tell me the capital of {}."]).format(country)
        return Turn(question, f"The capital of {country} is {CAPITALS[country]}.", CAPITALS[country])

    def add(self) -> Turn:
        x, y = self.r.randint(0, 9), self.r.randint(0, 9)
        question = self.r.choice(["What is {} plus {}?", "Add {} and {}."]).format(x, y)
        return Turn(question, f"{x} plus {y} is {x + y}.", str(x + y))

    def count(self) -> Turn:
        first = self.r.randint(1, 9)
        last = first + self.r.randint(2, 10)
        return Turn(f"Count from {first} to {last}.", ", ".join(map(str, range(first, last + 1))) + ".")

    def echo(self) -> Turn:
        words = [self.r.choice(WORDS + COLOURS + PETS + NAMES) for _ in range(self.r.randint(2, 6))]
        said = " ".join(words)
        return Turn(self.r.choice(["Repeat: {}", "Say this: {}"]).format(said), said, styled=False)

    def spell(self) -> Turn:
        word = self.r.choice(WORDS + PETS + COLOURS)
        return Turn(self.r.choice(["Spell {}.", "How do you spell {}?"]).format(word), "-".join(word))

    def story(self) -> Turn:
        question = self.r.choice(["Tell me a story.", "Tell a story, please."])
        return Turn(question, _story(self.r), styled=False)

    def essay(self) -> Turn:
        topic = self.r.choice(list(TOPICS))
        question = self.r.choice(["Write about {}.", "Write a long text about {}."]).format(topic)
        return Turn(question, _essay(self.r, topic), styled=False)

    def json(self) -> Turn:
        name, age = self.r.choice(NAMES), self.r.randint(1, 99)
        question = self.r.choice(["Give me JSON for {}, age {}.", "JSON: {}, {}"]).format(name, age)
        return Turn(question, f'{{"name": "{name}", "age": {age}}}', styled=False)

    def thank(self) -> Turn:
        question = self.r.choice(["Thank you.", "Thanks!", "Goodbye."])
        if question == "Goodbye.":
            return Turn(question, "Goodbye!", styled=False)
        return Turn(question, "You are welcome.", "OK.")


def _story(r: random.Random) -> str:
    one, other = r.sample(ANIMALS, 2)
    mood, place, thing = r.choice(MOODS), r.choice(PLACES), r.choice(THINGS)
    return " ".join([
        f"Once upon a time there was a {mood} {one} who lived in the {place}.",
        f"One day the {one} found a {thing}.",
        r.choice([f"The {one} showed it to the {other}.", f"A {other} came and asked about the {thing}."]),
        r.choice([f'"What a fine {thing}," said the {other}.', f'"May I see the {thing}?" asked the {other}.']),
        r.choice([f"Together they carried the {thing} across the {place}.", f"They looked after the {thing} all day."]),
        r.choice([f"When night came, the {other} sang a song.", "When it rained, they hid under a tree."]),
        f"And so the {one} and the {other} became friends. The end.",
    ])  # fmt: skip


def _essay(r: random.Random, topic: str) -> str:
    said = [f"Here is a text about {topic}."]
    for _ in range(r.randint(5, 10)):
        sentence, link = r.choice(TOPICS[topic]), r.choice(LINKS)
        inside = link in ("Also, ", "It is said that ")
        said.append(link + (sentence[0].lower() + sentence[1:] if inside else sentence))
    return " ".join([*said, "That is all."])
