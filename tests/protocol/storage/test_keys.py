"""Phrases, derived keys and signed pointers."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fabstir.domain.errors import FabstirError
from fabstir.protocol.storage.keys import DirectoryKeys, Identity, KeyPair, derive_int, derive_str
from fabstir.protocol.storage.phrase import WordList, entropy_of, phrase_of
from fabstir.protocol.storage.registry import MAX_REVISION, RegistryEntry, is_news, pointed_at, pointer_to

LETTERS = "abcdefghijklmnopqrstuvwxyz"
LIST = WordList.of(["".join(word) + "ing" for word in itertools.islice(itertools.product(LETTERS, repeat=3), 1024)])
PAIR = KeyPair(b"\x01" * 32)


def code_of(phrase: str) -> str:
    with pytest.raises(FabstirError) as caught:
        entropy_of(phrase, LIST)
    assert phrase.split(maxsplit=1)[0] not in str(caught.value)
    return caught.value.code


@given(st.binary(min_size=16, max_size=16))
def test_a_phrase_gives_its_entropy_back(entropy: bytes) -> None:
    """Fifteen words; whole, shortened to three letters, and in capitals."""
    phrase = phrase_of(entropy, LIST)
    assert len(phrase.split()) == 15
    assert entropy_of(phrase, LIST) == entropy_of(phrase.upper(), LIST) == entropy
    assert entropy_of(" ".join(word[:3] for word in phrase.split()), LIST) == entropy


@given(st.binary(min_size=16, max_size=16), st.integers(0, 14), st.integers(1, 1023))
def test_one_wrong_word_is_noticed(entropy: bytes, place: int, by: int) -> None:
    """Changing any one word is refused, except for the one in a million that the checksum cannot see in the seed itself."""
    given_words = phrase_of(entropy, LIST).split()
    given_words[place] = LIST.words[(LIST.words.index(given_words[place]) + by) % 1024]
    try:
        other = entropy_of(" ".join(given_words), LIST)
    except FabstirError:
        return
    assert phrase_of(other, LIST) == " ".join(given_words)


def test_what_is_no_phrase_is_refused_and_not_repeated() -> None:
    """Too few words, an unknown word, a word of another list with a known beginning; the message shows none of them."""
    phrase = phrase_of(bytes(16), LIST).split()
    assert code_of(" ".join(phrase[:14])) == "seed_phrase_invalid"
    assert code_of(" ".join([*phrase[:3], "zzz", *phrase[4:]])) == "seed_phrase_invalid"
    assert code_of(" ".join([*phrase[:3], phrase[3][:3] + "er", *phrase[4:]])) == "seed_phrase_invalid"
    assert code_of(" ".join([*phrase[:12], LIST.words[256], *phrase[13:]])) == "seed_phrase_invalid"


def test_a_list_with_two_words_alike_is_refused() -> None:
    """Three letters have to tell every word."""
    with pytest.raises(FabstirError):
        WordList.of([*LIST.words[:-1], LIST.words[0] + "s"])


def test_golden_derivation() -> None:
    """The tree of keys under sixteen bytes 00..0f, fixed: whoever changes it loses every stored file."""
    identity = Identity.of(bytes(range(16)))
    root = identity.root()
    home = root.child("home")
    assert {
        "int": derive_int(bytes(32), 1).hex(),
        "str": derive_str(bytes(32), b"home").hex(),
        "signing": identity.signing.hex(),
        "portal": identity.portal_accounts.hex(),
        "root": root.public.hex(),
        "root read": root.read.hex(),
        "home": home.public.hex(),
        "home seal": home.seal.hex(),
    } == GOLDEN


def test_read_keys_read_downwards_only() -> None:
    """A reader of a directory derives what is below it, signs nothing, and its keys are not the owner's of another directory."""
    owner = Identity.of(bytes(16)).root().child("shared")
    reader = DirectoryKeys(owner.read, public=owner.public)
    below = owner.child("below")
    assert reader.child("below", below.public).seal == below.seal
    assert reader.pair is None and reader.child("below", below.public).pair is None
    assert len({owner.seal, owner.read, below.seal, below.read, owner.public[1:], below.public[1:]}) == 6


def test_no_key_is_shown() -> None:
    """`repr` of keys has no secret in it."""
    identity = Identity.of(bytes(range(16)))
    shown = f"{identity!r} {identity.root()!r} {KeyPair(identity.signing)!r}"
    for secret in (identity.signing, identity.file_system, identity.root().read, identity.root().seal):
        assert secret.hex()[:8] not in shown and repr(secret)[2:10] not in shown


def test_golden_entry() -> None:
    """The bytes of an entry between peers."""
    entry = RegistryEntry.sign(PAIR, 5, pointer_to(b"\x02" * 32))
    signature = entry.signature.hex()
    assert entry.pack().hex() == "07" + PAIR.public.hex() + "0500000000000000" + "21" + "1e" + "02" * 32 + signature
    assert signature == GOLDEN_SIGNATURE
    assert RegistryEntry.unpack(entry.pack()) == entry
    assert pointed_at(entry) == b"\x02" * 32


@given(st.integers(0, MAX_REVISION), st.binary(max_size=64), st.data())
def test_any_change_of_an_entry_is_refused(revision: int, data: bytes, chance: st.DataObject) -> None:
    """One flipped bit anywhere in the packed entry, or a cut: `registry_invalid`."""
    packed = bytearray(RegistryEntry.sign(PAIR, revision, data).pack())
    place = chance.draw(st.integers(0, len(packed) * 8 - 1))
    packed[place // 8] ^= 1 << place % 8
    for changed in (bytes(packed), bytes(packed[: place // 8])):
        with pytest.raises(FabstirError) as caught:
            RegistryEntry.unpack(changed)
        assert caught.value.code == "registry_invalid"


def test_only_a_higher_revision_moves_the_pointer() -> None:
    """Higher is news, the same again is not, lower and the same revision with other data are refused."""
    held = RegistryEntry.sign(PAIR, 5, b"five")
    assert is_news(None, held) and is_news(held, RegistryEntry.sign(PAIR, 6, b""))
    assert not is_news(held, held)
    for late in (RegistryEntry.sign(PAIR, 4, b"four"), RegistryEntry.sign(PAIR, 5, b"other")):
        with pytest.raises(FabstirError) as caught:
            is_news(held, late)
        assert caught.value.code == "registry_stale"


def test_a_forged_entry_is_no_news() -> None:
    """A higher revision that the key did not sign is refused."""
    forged = RegistryEntry(PAIR.public, 9, b"x", RegistryEntry.sign(KeyPair(b"\x02" * 32), 9, b"x").signature)
    with pytest.raises(FabstirError) as caught:
        is_news(None, forged)
    assert caught.value.code == "registry_invalid"


GOLDEN = {
    "int": "bb4fadcb0b8feab0fa97ebafa6321492ddcdc23a113bedcecd2de6598c831993",
    "str": "828a1add686405fffb5dd63bd807d805e4bd3d7476730a224f23d51d6d381027",
    "signing": "5f429803fd7ca45f04584fc229bff3db857e62133201fa839fa7960defbe5bf1",
    "portal": "bd7e9b0bb7f6005a73cce8c3abc0ee024608c06113cfb511faef1b71804eb730",
    "root": "ed897c7338a12d448bed05018471f5694fa20414512cb893c69fdd3da4969e7443",
    "root read": "696d37ef241dea011abb72f997b0073eaa2e53bfbdae65d5f57a5fd279fa1736",
    "home": "ed0836d0e3ad8a9ba89ccb6d40f8b22ac781ab814b7702d8a08ed325da6d2b1b18",
    "home seal": "aa35badfaa2e83d303791df075c27d3438463a695919bd2a29d0db45bd789b8b",
}
GOLDEN_SIGNATURE = (
    "821f47e62e3a4d25a216ed2ecb8a6b45a049f0dc5d2a595f618ed29752f3192b"
    "3254bf06aed0604db1b14d6fd348887ebe2825c8fa2f3e0f8b2d63500ef72f0c"
)
