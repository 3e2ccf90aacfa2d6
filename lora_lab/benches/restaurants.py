"""Facts about a restaurant -> one sentence that tells them, written by a seeded generator; it stands for E2E NLG."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from random import Random

from lora_lab.benches.draws import pick, some
from lora_lab.benches.examples import Completion, TextData

TRAIN, HELD_OUT = 2_000, 200
Facts = Mapping[str, str]

# Closed classes, shared by the splits: what a trained model is to know how to say.
CLOSED = {
    "eatType": ("restaurant", "pub", "coffee shop", "bistro"),
    "food": ("Italian", "French", "Japanese", "Indian", "Chinese", "Thai", "Greek", "Mexican", "Turkish", "Spanish"),
    "priceRange": ("low", "moderate", "high"),
    "customer rating": ("poor", "average", "excellent", "1 star", "3 stars", "5 stars"),
    "area": ("riverside", "city centre", "old town", "harbour"),
    "familyFriendly": ("yes", "no"),
}
ATTRIBUTES = ("name", *CLOSED, "near")
_LANDMARKS = ("Bridge", "Station", "Market", "Library", "Theatre", "Park", "Museum", "Hall")

_PRICED = {"low": "cheap", "moderate": "moderately priced", "high": "expensive"}
_AREAS = {
    "riverside": "by the river",
    "city centre": "in the city centre",
    "old town": "in the old town",
    "harbour": "at the harbour",
}
_FOR_WHOM = {"yes": "family-friendly", "no": "adults-only"}
_SUITED = {"yes": "good for families", "no": "not suited to children"}
_WELCOME = {"yes": "children are welcome", "no": "children are not allowed"}
_ADMITS = {"yes": "welcomes families", "no": "admits only adults"}


@dataclass(frozen=True, slots=True)
class Words:
    """The open classes of one split: a name is an adjective with a noun, a place nearby a word with a landmark."""

    adjectives: tuple[str, ...]
    nouns: tuple[str, ...]
    places: tuple[str, ...]


def _words(adjectives: str, nouns: str, places: str) -> Words:
    return Words(tuple(adjectives.split()), tuple(nouns.split()), tuple(places.split()))


_TRAIN_WORDS = _words(
    "Amber Blue Brave Copper Crimson Dancing Dusty Early Gentle Gilded Green Hidden Hungry Idle Ivory Jolly "
    "Laughing Lucky Merry Olive Quiet Scarlet Silver Wandering",
    "Anchor Badger Barrel Bell Compass Crane Eagle Fox Hare Heron Kettle Ladle Lantern Magpie Oak Otter Pear "
    "Pelican Plough Raven Rose Spoon Stag Thistle",
    "Alder Barrow Castle Denby Elm Farrow Garnet Hollis Kelvin Linden Marlow Norwood Orchard Preston Selby Trinity",
)
_VALIDATION_WORDS = _words(
    "Ancient Bronze Cheerful Distant Humble Purple Sleepy Velvet",
    "Beacon Dolphin Falcon Hammer Mill Peacock Teapot Willow",
    "Ashford Carlton Foxglove Granville Mercer Radley",
)
_TEST_WORDS = _words(
    "Bashful Clever Emerald Frosty Noble Rusty Singing Topaz",
    "Bramble Candle Drummer Griffin Ladder Parrot Saddle Walnut",
    "Bexhill Camden Gordon Langley Pemberton Wexford",
)


@cache
def restaurants() -> TextData:
    """2,000 examples to train on, 200 to validate and 200 to test with; the same on every machine.

    No text of one split is in another, and neither is a restaurant or a place nearby: their words are of one split
    alone. The closed classes (`Italian`, `city centre`) and the four ways of saying things are shared.
    """
    return TextData(
        kind="completion",
        metric="bleu",
        train=_split(Random(1), _TRAIN_WORDS, TRAIN),
        validation=_split(Random(2), _VALIDATION_WORDS, HELD_OUT),
        test=_split(Random(3), _TEST_WORDS, HELD_OUT),
    )


def _split(rng: Random, words: Words, n: int) -> tuple[Completion, ...]:
    """n examples, no prompt twice."""
    made: dict[str, Completion] = {}
    while len(made) < n:
        example = _example(rng, _facts(rng, words))
        made.setdefault(example.prompt, example)
    return tuple(made.values())


def _facts(rng: Random, words: Words) -> Facts:
    """The name and 2 to 7 of the other attributes, in the order of `ATTRIBUTES`."""
    told = some(rng, ATTRIBUTES[1:], pick(rng, range(2, len(ATTRIBUTES))))
    values = {name: pick(rng, options) for name, options in CLOSED.items()}
    values["name"] = f"The {pick(rng, words.adjectives)} {pick(rng, words.nouns)}"
    values["near"] = f"{pick(rng, words.places)} {pick(rng, _LANDMARKS)}"
    return {name: values[name] for name in ATTRIBUTES if name == "name" or name in told}


def _example(rng: Random, facts: Facts) -> Completion:
    """The completion is one of the ways of saying it, first among the references; the others follow."""
    completion, *others = (f" {say(facts)}" for say in some(rng, _WAYS, len(_WAYS)))
    references = tuple(dict.fromkeys((completion, *others)))  # few facts can come out the same in two ways
    return Completion(_prompt(facts), completion, references)


def _prompt(facts: Facts) -> str:
    return " | ".join(f"{name}: {value}" for name, value in facts.items()) + "\nSentence:"


def _description(facts: Facts) -> str:
    """`The Amber Fox is a cheap Thai pub by the river near Elm Park, rated poor by customers and good for families.`"""
    tails = _told(facts, rating="rated {} by customers", family=_SUITED)
    head = _joined(f"{facts['name']} is", _kind(facts, *_told(facts, price=_PRICED)), _where(facts))
    return f"{', '.join(filter(None, (head, _listed(tails))))}."


def _direction(facts: Facts) -> str:
    """`By the river near Elm Park you will find The Amber Fox, a family-friendly Thai pub with low prices.`"""
    where = _where(facts)
    start = f"{where[0].upper()}{where[1:]} you will find" if where else "Here is"
    extras = _listed(_told(facts, price="{} prices", rating="a rating of {}"))
    kind = _kind(facts, *_told(facts, family=_FOR_WHOM))
    return f"{start} {facts['name']}, {_joined(kind, extras and f'with {extras}')}."


def _opinion(facts: Facts) -> str:
    """`Customers give The Amber Fox, a Thai pub near Elm Park, a rating of poor; prices are low and children are welcome.`"""
    kind = _joined(_kind(facts), _where(facts))
    rating = _told(facts, rating="a rating of {}")
    head = f"Customers give {facts['name']}, {kind}, {rating[0]}" if rating else f"{facts['name']} is {kind}"
    tails = _listed(_told(facts, price="prices are {}", family=_WELCOME))
    return f"{'; '.join(filter(None, (head, tails)))}."


def _account(facts: Facts) -> str:
    """`The Amber Fox is a pub that lies by the river, serves Thai food and charges low prices.`"""
    where = _where(facts)
    told = _told(facts, food="serves {} food", price="charges {} prices", family=_ADMITS, rating="is rated {}")
    verbs = [f"lies {where}", *told] if where else told
    return f"{facts['name']} is {_articled(facts.get('eatType', 'place'))} that {_listed(verbs)}."


_WAYS: tuple[Callable[[Facts], str], ...] = (_description, _direction, _opinion, _account)
_ATTRIBUTE = {"food": "food", "price": "priceRange", "family": "familyFriendly", "rating": "customer rating"}


def _told(facts: Facts, **ways: str | Mapping[str, str]) -> list[str]:
    """The facts that there are, in the order asked for, each by its template or by what its value is called."""
    told = []
    for short, way in ways.items():
        value = facts.get(_ATTRIBUTE[short])
        if value is not None:
            told.append(way.format(value) if isinstance(way, str) else way[value])
    return told


def _kind(facts: Facts, *adjectives: str) -> str:
    """`a cheap Thai pub`; a place, where nobody says what it is."""
    return _articled(_joined(*adjectives, facts.get("food", ""), facts.get("eatType", "place")))


def _where(facts: Facts) -> str:
    """`by the river near Elm Park`, or what of it is known."""
    near = f"near {facts['near']}" if "near" in facts else ""
    return _joined(_AREAS[facts["area"]] if "area" in facts else "", near)


def _articled(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeiouAEIOU' else 'a'} {noun}"


def _joined(*words: str) -> str:
    return " ".join(filter(None, words))


def _listed(phrases: list[str]) -> str:
    """`a, b and c`."""
    return " and ".join(filter(None, (", ".join(phrases[:-1]), *phrases[-1:])))
