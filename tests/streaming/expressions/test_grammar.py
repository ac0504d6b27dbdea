from __future__ import annotations

import builtins
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlaas4hep.errors import ExpressionError
from mlaas4hep.streaming.expressions import FUNCTIONS, parse
from mlaas4hep.streaming.expressions.grammar import MAX_DEPTH, MAX_LENGTH

REFUSED = [
    ("", "is empty at character 0"),
    ("   \n ", "is empty at character 0"),
    ("__import__('os')", "names with two leading underscores, as '__import__', are not allowed at character 0"),
    ("nJet > __builtins__", "as '__builtins__', are not allowed at character 7"),
    ("(1).__class__", "attributes are not part of the language at character 0"),
    ("Jet.pt > 30", "attributes are not part of the language at character 0; a branch is written with an underscore"),
    ("1 + ().__class__.__bases__[0]", "attributes are not part of the language at character 4"),
    ("Jet_pt.sum() > 3", "attributes are not part of the language at character 0; functions are written sum(Jet_pt)"),
    ("os.system('true')", "attributes are not part of the language at character 0"),
    ("sum(Jet_pt)(3)", "only a function of the table can be called at character 0"),
    ("(lambda: 1)()", "only a function of the table can be called at character 0"),
    ("FUNCTIONS['sum'](3)", "only a function of the table can be called at character 0"),
    ("lambda x: x", "'lambda' is not part of the language at character 0"),
    ("nJet > (lambda: 2)", "'lambda' is not part of the language at character 8"),
    ("[x for x in Jet_pt]", "comprehensions are not part of the language at character 0"),
    ("{x for x in Jet_pt}", "comprehensions are not part of the language at character 0"),
    ("{x: x for x in Jet_pt}", "comprehensions are not part of the language at character 0"),
    ("sum(x for x in Jet_pt)", "comprehensions are not part of the language at character 3"),
    ("[1, 2]", "lists are not part of the language at character 0"),
    ("(1, 2)", "a comma may only stand between arguments of a function at character 0"),
    ("nJet, 2", "a comma may only stand between arguments of a function at character 0"),
    ("{1: 2}", "dictionaries are not part of the language at character 0"),
    ("{1, 2}", "sets are not part of the language at character 0"),
    ("'nJet'", "text is not part of the language at character 0"),
    ("b'nJet' == 2", "text is not part of the language at character 0"),
    ("f'{nJet}'", "text is not part of the language at character 0"),
    ("nJet == 'two'", "text is not part of the language at character 8"),
    ("None", "'None' is not part of the language at character 0"),
    ("...", "'...' is not part of the language at character 0"),
    ("nJet > 2j", "'2j' is not part of the language at character 7"),
    ("(n := 3) > 2", "':=' is not part of the language at character 1; name a new column instead"),
    ("sum(*Jet_pt)", "'*' before an argument is not part of the language at character 4"),
    ("sum(**Jet_pt)", "arguments have no names in the language at character 4"),
    ("sum(axis=1)", "arguments have no names in the language at character 4"),
    ("Jet_pt[0:2]", "slices are not part of the language at character 7"),
    ("Jet_pt[1:2][::3]", "slices are not part of the language at character 7"),
    ("Jet_pt[Jet_pt[0:1]]", "slices are not part of the language at character 14"),
    ("Jet_pt[0, 1]", "a comma may only stand between arguments of a function at character 7"),
    ("Jet_pt['pt']", "text is not part of the language at character 7"),
    ("Jet_pt[1.5]", "an index must be a whole number below 2**31 at character 7"),
    ("Jet_pt[True]", "an index must be a whole number below 2**31 at character 7"),
    ("Jet_pt[99999999999]", "an index must be a whole number below 2**31 at character 7"),
    ("1 if nJet > 2 else 0", "'if … else' is not part of the language at character 0; write where(condition, a, b)"),
    ("nJet > 2 & MET_pt > 3", "'&' is not part of the language at character 9; write 'and'"),
    ("(nJet > 2) | (MET_pt > 3)", "'|' is not part of the language at character 11; write 'or'"),
    ("nJet > 2 && MET_pt > 3", "'&&' is not part of the language at character 9; write 'and'"),
    ("nJet > 2 || MET_pt > 3", "'||' is not part of the language at character 9; write 'or'"),
    ("2 ^ nJet", "'^' is not part of the language at character 2; a power is written a**b"),
    ("~HLT", "'~' is not part of the language at character 0; write 'not'"),
    ("1 << 100", "'<<' is not part of the language at character 2"),
    ("a @ b", "'@' is not part of the language at character 2"),
    ("2 in Jet_pt", "'in' is not part of the language at character 2"),
    ("2 not in Jet_pt", "'not in' is not part of the language at character 2"),
    ("nJet is 2", "'is' is not part of the language at character 5; write '=='"),
    ("nJet is not 2", "'is not' is not part of the language at character 5; write '!='"),
    ("nJet >= 2 # and more", "'#' is not part of the language at character 10"),
    ("nJet >", "cannot be read: it ends too early at character 6"),
    ("nJet = 2", "cannot be read: invalid syntax at character 5; write '==' to compare"),
    ("(nJet > 2", "cannot be read: '(' was never closed at character 0"),
    ("nJet > 2)", "cannot be read: unmatched ')' at character 8"),
    ("import os", "cannot be read: invalid syntax at character 0"),
    ("nJet > 2; MET_pt", "cannot be read: invalid syntax at character 8"),
    ("nJet ≥ 2", "cannot be read: invalid character '≥' (U+2265) at character 5"),
    ("nJet\x00 > 2", "cannot be read"),
    ("nJet \ud800 2", "cannot be read"),
    ("await nJet", "'await' is not part of the language at character 0"),
    ("(yield)", "'yield' is not part of the language at character 1"),
    ("99999999999999999999", "a whole number must be below 2**63 at character 0"),
    ("nJet < 1e999", "the number is too large for double precision at character 7"),
    ("1" * MAX_LENGTH, "a whole number must be below 2**63 at character 0"),
    ("1" * (MAX_LENGTH + 1), f"is longer than {MAX_LENGTH} characters at character {MAX_LENGTH}"),
    ("(" * 150 + "1" + ")" * 150 + " + ", "cannot be read"),
    ("-" * 3000 + "1", ""),
    ("nJet" + "[0]" * 500, "is nested deeper than"),
    ("+".join(["nJet"] * 500), "is nested deeper than"),
    ("sum(" * 180 + "x" + ")" * 180, "is nested deeper than"),
    ("not " * 900 + "x", ""),
    ("(" * 2000, ""),
]


@pytest.mark.parametrize(("text", "message"), REFUSED, ids=[repr(text)[:40] for text, _ in REFUSED])
def test_what_is_not_in_the_language_is_refused_at_its_place(text: str, message: str) -> None:
    with pytest.raises(ExpressionError) as caught:
        parse(text, "selection")
    assert str(caught.value).startswith("selection '")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert 0 <= caught.value.at <= len(text)


def test_a_value_that_is_no_text_is_refused() -> None:
    with pytest.raises(ExpressionError, match="selection '3': must be text, not int at character 0"):
        parse(3, "selection")  # type: ignore[arg-type]


def test_places_are_counted_in_characters_whatever_stands_before_them() -> None:
    with pytest.raises(ExpressionError) as caught:
        parse("  énergie > 3 and Jet.pt > 2")
    assert caught.value.at == 18
    assert caught.value.caret == "  énergie > 3 and Jet.pt > 2\n                  ^"


def test_an_error_in_a_long_text_shows_the_part_around_it() -> None:
    text = " and ".join(["nJet > 2"] * 60) + " and Jet.pt > 3 and " + " and ".join(["nJet > 2"] * 60)
    with pytest.raises(ExpressionError) as caught:
        parse(text)
    assert len(str(caught.value)) < 350
    assert "expression '…" in str(caught.value)
    assert "Jet.pt > 3" in str(caught.value)


def test_several_lines_are_one_expression() -> None:
    assert parse("nJet >= 2\n  and MET_pt > 30\n").names == ("nJet", "MET_pt")


def test_depth_up_to_the_limit_is_accepted() -> None:
    assert parse("+".join(["x"] * MAX_DEPTH)).names == ("x",)


def test_long_chains_of_and_are_not_deep() -> None:
    assert parse(" and ".join(["x > 1"] * 400)).names == ("x",)


def called_names() -> Iterator[str]:
    return (
        name for name in dir(builtins) if name not in FUNCTIONS and not name.startswith("__") and name.isidentifier()
    )


@given(
    st.text(max_size=60)
    | st.text("()[]{}.,:;=<>!+-*/%@&|^~#'\"\\ \n\t0123456789abJet_ptsumlambdaifelsefornot", max_size=80)
)
def test_any_text_is_read_or_refused_with_one_line(text: str) -> None:
    try:
        outcome = parse(text).names
    except ExpressionError as error:
        outcome = tuple(str(error).splitlines())
        names = False
    else:
        names = True
    assert all(not name.startswith("__") for name in outcome) if names else len(outcome) == 1


def test_nothing_of_pythons_own_is_reachable_by_name() -> None:
    from mlaas4hep.streaming.selecting.selection import EventSelection

    for name in called_names():
        if name in ("None", "True", "False"):
            continue
        with pytest.raises(ExpressionError, match=f"no function '{name}'"):
            EventSelection(f"{name}(1) > 0").bind({})
        with pytest.raises(ExpressionError, match=f"no branch '{name}'"):
            EventSelection(f"{name} > 0").bind({})
