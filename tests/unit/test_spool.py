"""Spool: a dictionary in a file behaves as one in memory."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lorid.spool import Spool

keys = st.text(max_size=3)
changes = st.lists(st.tuples(st.sampled_from(["set", "add", "del"]), keys, st.binary(max_size=9)))


@given(changes)
def test_it_holds_what_a_dictionary_would(changes):
    spool, expected = Spool[bytes](dump=bytes, load=bytes), dict[str, bytes]()
    for change, key, value in changes:
        if change == "set":
            spool[key] = expected[key] = value
        elif change == "add":
            assert spool.add(key, value) == (key not in expected)
            expected.setdefault(key, value)
        else:
            assert spool.pop(key, None) == expected.pop(key, None)
        assert len(spool) == len(expected)
    assert list(spool.in_order()) == list(expected.items())
    assert dict(spool) == expected
    assert all(key in spool for key in expected)
    with pytest.raises(KeyError):
        spool["a key that is too long"]
    with pytest.raises(KeyError):
        del spool["a key that is too long"]
