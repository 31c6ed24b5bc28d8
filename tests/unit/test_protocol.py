# SPDX-License-Identifier: Apache-2.0
"""The wire, byte by byte: golden bytes, and what is refused."""

from __future__ import annotations

import hashlib
import hmac
import random
import re
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.wire import BODIES, EXAMPLES, KINDS, NODE, RUN, SECRET, keys, mutated
from vmwatch.errors import BadBody, BadEnvelope
from vmwatch.messages import Body, Gap
from vmwatch.protocol import (
    MAX_MESSAGE,
    OVERHEAD,
    Envelope,
    Kind,
    Message,
    Run,
    derive_keys,
    fits,
    new_run,
    read,
    seal,
    verify,
)
from vmwatch.strict import encode

DOCUMENT = Path(__file__).parents[2] / "docs" / "protocol.md"
KEY = keys().signature
ENVELOPE = Envelope(node=NODE, run=RUN, seq=42, kind=Kind.EVENT)
FRAME = seal(ENVELOPE, encode(EXAMPLES[1]), KEY)

envelopes = st.builds(
    Envelope,
    node=st.integers(0, 2**32 - 1),
    run=st.binary(min_size=16, max_size=16).filter(any).map(lambda run: Run(run.hex())),
    seq=st.integers(0, 2**63 - 1),
    kind=st.integers(0, 2**32 - 1),
)


def signed(header: bytes, body: bytes = b"", key: bytes = KEY) -> bytes:
    return header + body + hmac.digest(key, header + body, "sha256")


def reason(frame: bytes, key: bytes = KEY) -> str:
    with pytest.raises(BadEnvelope) as refused:
        verify(frame, key)
    return refused.value.reason


def envelope_of(body: Body) -> Envelope:
    """The example's envelope in the document: a gap stands for nine numbers, a begin is number 0."""
    seq, span = {Kind.BEGIN: (0, 1), Kind.GAP: (41, 9)}.get(KINDS[type(body)], (42, 1))
    return Envelope(node=NODE, run=RUN, seq=seq, kind=KINDS[type(body)], span=span)


@pytest.mark.parametrize("body", EXAMPLES, ids=lambda body: KINDS[type(body)].name.lower())
def test_golden_bytes_stand_in_the_document(body: Body) -> None:
    kind = KINDS[type(body)]
    text = DOCUMENT.read_text()
    example = re.search(
        rf"^### {kind.value} {kind.name.lower()}\n.*?```\n(.*?)\n\n(.*?)```", text, re.DOTALL | re.MULTILINE
    )
    assert example, f"no example of {kind.name} in {DOCUMENT.name}"
    assert example[1].encode() == encode(body)
    golden = bytes.fromhex(example[2])
    assert seal(envelope_of(body), encode(body), KEY) == golden
    message = verify(golden, KEY)
    assert message.envelope == envelope_of(body)
    assert read(message) == body


def test_golden_keys_stand_in_the_document() -> None:
    stated = dict(
        re.findall(r"^(master|node|signature) +([0-9a-f]{64})$", DOCUMENT.read_text(), re.MULTILINE)
    )
    assert SECRET in DOCUMENT.read_text()
    assert stated == {name: getattr(keys(), name).hex() for name in ("master", "node", "signature")}


def test_every_kind_has_its_example() -> None:
    assert set(KINDS.values()) == set(Kind)
    assert [type(body) for body in EXAMPLES] == list(KINDS)


@given(envelope=envelopes, body=BODIES, data=st.data())
def test_what_is_sealed_is_verified_and_read(envelope: Envelope, body: Body, data: st.DataObject) -> None:
    span = data.draw(st.integers(1, min(envelope.seq + 1, 2**32 - 1)))
    envelope = envelope._replace(kind=KINDS[type(body)], span=span)
    message = verify(seal(envelope, encode(body), KEY), KEY)
    assert message.envelope == envelope
    assert read(message) == body


def test_each_flipped_bit_is_refused() -> None:
    for place in range(len(FRAME) * 8):
        changed = bytearray(FRAME)
        changed[place // 8] ^= 1 << place % 8
        assert reason(bytes(changed)) == ("version" if place < 32 else "signature")


def test_each_shorter_and_longer_frame_is_refused() -> None:
    for size in range(len(FRAME)):
        assert reason(FRAME[:size]) in ("size", "signature")
    for more in (b"\0", FRAME[-32:], FRAME):
        assert reason(FRAME + more) == "signature"
        assert reason(more + FRAME) in ("version", "signature")


@given(noise=st.binary(max_size=400))
def test_noise_is_refused(noise: bytes) -> None:
    assert reason(noise) in ("size", "version")


def test_a_hundred_thousand_mutations_are_refused_as_bad_envelopes() -> None:
    chance = random.Random(20261122)
    frames = [seal(envelope_of(body), encode(body), KEY) for body in EXAMPLES]
    for _ in range(100_000):
        frame = chance.choice(frames)
        changed = mutated(frame, chance)
        if changed not in frames:
            reason(changed)


def test_a_signed_frame_with_a_changed_header_is_a_bad_envelope_or_another_message() -> None:
    """Who has the secret may still err: nothing else is raised."""
    chance = random.Random(7)
    for _ in range(20_000):
        changed = mutated(FRAME[:-32], chance)
        if len(changed) < OVERHEAD - 32:
            continue
        try:
            message = verify(signed(changed), KEY)
        except BadEnvelope:
            continue
        try:
            read(message)
        except BadBody:
            continue


@pytest.mark.parametrize("size", [0, 1, OVERHEAD - 1, MAX_MESSAGE + 1, 2 << 20])
def test_a_frame_of_a_wrong_size_is_refused_unread(size: int) -> None:
    assert reason(b"VMW\x01" + bytes(size - 4) if size > 4 else bytes(size)) == "size"


def test_the_largest_message_fits() -> None:
    body = bytes(MAX_MESSAGE - OVERHEAD)
    assert fits(body)
    assert not fits(body + b"\0")
    assert verify(seal(ENVELOPE, body, KEY), KEY).untrusted_body == body
    assert reason(seal(ENVELOPE, body + b"\0", KEY)) == "size"


@pytest.mark.parametrize("version", [0, 2, 255])
def test_another_version_is_refused_though_it_is_signed(version: int) -> None:
    assert reason(signed(b"VMW" + bytes([version]) + FRAME[4:-32])) == "version"


def test_another_secret_is_refused() -> None:
    assert reason(FRAME, derive_keys(SECRET + "1").signature) == "signature"


@pytest.mark.parametrize(
    ("run", "seq", "span", "size", "expected"),
    [
        (bytes(16), 42, 1, 4, "envelope"),
        (b"\1" * 16, 2**63, 1, 4, "envelope"),
        (b"\1" * 16, 42, 0, 4, "envelope"),
        (b"\1" * 16, 42, 44, 4, "envelope"),
        (b"\1" * 16, 42, 1, 3, "size"),
        (b"\1" * 16, 42, 1, 2**32 - 1, "size"),
    ],
    ids=["no run", "number of 64 bits", "no span", "before the run", "size too small", "size too large"],
)
def test_a_signed_header_out_of_range_is_refused(
    run: bytes, seq: int, span: int, size: int, expected: str
) -> None:
    header = struct.pack("!4sI16sQIII", b"VMW\x01", NODE, run, seq, span, Kind.GAP, size)
    assert reason(signed(header, b"body")) == expected


@pytest.mark.parametrize("kind", [0, 4, 15, 20, 255, 2**32 - 1])
def test_an_unknown_kind_has_an_envelope_and_no_body(kind: int) -> None:
    message = verify(seal(ENVELOPE._replace(kind=kind), b"{}", KEY), KEY)
    assert message.envelope.numbered == (kind < 16)
    with pytest.raises(BadBody) as refused:
        read(message)
    assert refused.value.reason == "kind"


def test_records_of_the_stream_are_told_from_what_goes_beside_it() -> None:
    numbered = {kind for kind in Kind if ENVELOPE._replace(kind=kind).numbered}
    assert numbered == {Kind.BEGIN, Kind.EVENT, Kind.GAP}


def test_a_gap_stands_for_the_numbers_up_to_its_own() -> None:
    assert (ENVELOPE.first, envelope_of(Gap(count=9, reason="")).first) == (42, 33)


def test_a_body_of_another_kind_is_not_read() -> None:
    for body in EXAMPLES:
        for kind in set(Kind) - {KINDS[type(body)]}:
            with pytest.raises(BadBody):
                read(Message(ENVELOPE._replace(kind=kind), encode(body)))


def test_keys_differ_from_each_other_and_with_the_secret() -> None:
    mine, other = keys(), derive_keys(SECRET.lower())
    assert len({mine.master, mine.node, mine.signature, other.master, other.node, other.signature}) == 6


def test_keys_come_from_scrypt_as_the_document_says() -> None:
    seed = hashlib.scrypt(SECRET.encode(), salt=b"vmwatch 1", n=2**15, r=8, p=1, maxmem=1 << 26, dklen=32)
    assert keys().signature == hmac.new(seed, b"signature", hashlib.sha256).digest()


@given(now=st.integers(0, 2**60), random=st.integers(0), last=st.integers(0, 2**60))
def test_a_run_is_later_than_the_last_whatever_the_clock_says(now: int, random: int, last: int) -> None:
    before = new_run(last, 2**64 - 1)
    run = new_run(now, random, after=before)
    assert run > before
    assert re.fullmatch(r"[0-9a-f]{32}", run)
    assert (
        read(verify(seal(Envelope(node=1, run=run, seq=0, kind=Kind.BEGIN), encode(EXAMPLES[0]), KEY), KEY))
        == EXAMPLES[0]
    )


def test_runs_of_the_same_moment_differ() -> None:
    assert new_run(5, 1) != new_run(5, 2)
