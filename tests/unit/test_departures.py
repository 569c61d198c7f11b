r"""Where a rationale departs: lines that must be let pass, lines that must be found, and the laws.

The worst error is a false accusation, so most rows hold in some reading of them. Their origin:
G: GSM8K's training rationales; M: MATH's as LoRID published them; H: written for this table.
"""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lorid.method.departures import MAX_LINES, check_rationale

HOLDS = r"""
G Natalia sold 48/2 = <<48/2=24>>24 clips in May.
G Sidney does 20 on Monday + 36 on Tuesday = <<20+36=56>>56 jumping jacks.
G He has 12.50 and 15.00 so 12.50 +15.00 = $27.50
G There are 60 cans * 30 sq in / can = <<60*30=1800>>1800 sq in
G Since 100 tickets were bought, 1050 - 100 = <<950=950>>950 were left.
G The total amount paid is X + 3/4*X + X+10 = $340.
G 3x-5=16
G 755=2x-175
G Since 3/4 is equal to $15, then 1/4 is equal to $15/3 = $5.
G So, 1% is equal to 5/20 = 1/4 of an item.
G The rest is 3/3 - 2/3 = 1/3 of $150.
G He used 25 / 1/3 = 75 total decorations
G 0900-0130 = 0730 hours
G They read 180 pages a day because 14, 400 / 80 = <<14400/80=180>>180
G The proportions total .8 + . 84 + .82 = <<.8+.84+.82=2.46>>2.46
G 50 stickers / 3 friends = 16 stickers for each friend, with 2 remaining.
G To carry 17 objects, it takes 17/3 = 5 and 2/3 loads.
G Each drink uses 1/4 cup + 1 and 1/4 cup = <<1.5=1.5>>1.5 cups
G 20 minutes / 240 minutes = 8.333...%, which rounds down to 8%
G She buys 20 + 10 decorations to the 29 + 24 decorations already up = 83 in all.
G To make a profit she needs $100+($100*(10/100) = $<<100+(100*(10/100))=110>>110
G Subtract Weeks 3-4 from Weeks 1-2 = 96 - 70 = <<96-70=26>>26
G Remaining 10 = 62,300/10 = $6230
M We can see that 4! = 24 and 5! = 120
M 2(3x-4) = 6x-8
M $\frac{1}{3} + \frac{1}{6} = \frac{1}{2}$
M \[ 2^6 + 6^2 = 64 + 36 = \boxed{100} \]
H 20% of 50 = 10
H 50 * 20% = $10
H $50 - 20% = $40
H 100% - 20% = 80%
H (3/12) x 100 = 25%
H 3/12 = 25%
H 48 = 100% + 20%
H 60 / 15 = 4 (15 minutes)
H 1 hour + 30 minutes = 90 minutes
H 5 feet + 6 inches = 66 inches
H 1 hour - 15 minutes = 45
H 2 weeks * 7 days/week = 14 days
H 3 hours * $5/hour = $15
H 3 km + 500 m = 3.5 km
H $3 + 200 cents = 500 cents
H 3 quarters + 2 dimes = $0.95
H 5 million + 3 million = 8 million
H $1.5 million / 3 = $500,000
H 2\frac{1}{2} + 1 = 3 1/2
H 1,200 + 300 = 1{,}500
H 10/3 = 3.33
H 2/3 = 0.66
H 100/3 is approximately equal to 33
H 7/2 = 3 full boxes
H 17/3 = 5 R 2
H Step 2 - 5 + 3 = 8
H Day 1 + Day 2 = 5 + 6 = 11
H Cost of 5 apples + 3 pears = 5*2 + 3*1 = 13
H age in 5 years = 3 + 10 = 13
H 1 pack = 6 cans
H half of 10 + 5 = 10, twice 5 + 3 = 13
H the average of 10 + 20 = 15
H the square root of 16 + 9 = 5
H 5 plus 3 times 2 equals 16
H 10am + 5 = 3pm, and 9:30 + 2 = 11:30
H 11 + 2 = 1 (mod 12)
H f(2) = 3*2 + 1 = 7
H 3 * 5 = 15 + 3 = 18
H They sold 3 rows of 4 + 2 = 14
H 3 apples at 2 + 1 = 9
H 5 out of 20 = 1/4, and 12/60 = 1 in 5
H ___ + 3 = 8 and ? + 4 = 9
H 3ab + 4 = 10 and 4m + 3 = 15
H 4 + 5 != 10, 4 + 5 < 10, 10 => 5 + 5 = 10
H 3'6" + 6" = 4'
H 3 cm² + 4 cm² = 7 cm², and 3 ft^2 * 2 = 6 ft^2
H 1st + 2nd = 30
H 2/3 of 3/4 = 1/2 and 6 ÷ 2/3 = 9
H n(n+1)/2 = 5(6)/2 = 15
H log2(8) = 3 and √(9 + 16) = 5
H 2, 4, 6 = 2 + 4 + 6 = 12
H 60 people = 3/5, 20 = 1/5
H 1 + 1 = 10 in base 2
H 1 + 2 + \cdots + 10 = 55
H 80 + 90 + 100 = 270/3 = 90
H 2**3 = 8
"""
DEPARTS = [
    ("48/2 = 25 clips in May.", "48/2 = 25", "24"),
    ("He sold 48/2 = <<48/2=25>>24 clips.", "48/2 = 25", "24"),
    ("20% of 50 = 11", "20% of 50 = 11", "10"),
    ("She pays 3 hours * $5/hour = $16", "3 hours * $5 = $16", "15"),
    ("1,200 + 300 = 1,600", "1,200 + 300 = 1,600", "1500"),
    (r"$2 \times 3 = 7$", r"2 \times 3 = 7", "6"),
    (r"\(\frac{1}{2} \times 10 = 6\)", r"\frac{1}{2} \times 10 = 6", "5"),
    (r"$\frac{1}{3} + 1 = \frac{1}{3}$", r"\frac{1}{3} + 1 = \frac{1}{3}", "4/3"),
    ("1 1/4 + 1 = 2 1/2", "1 1/4 + 1 = 2 1/2", "2.25"),
    ("10/3 = 3.4", "10/3 = 3.4", "10/3"),
    ("x = 12/2 = 7", "12/2 = 7", "6"),
    ("2(3 + 4) = 15", "2(3 + 4) = 15", "14"),
    ("5 plus 3 equals 9", "5 plus 3 = 9", "8"),
    ("9 - 12 = 3", "9 - 12 = 3", "-3"),
    ("12 = 3 * 5", "12 = 3 * 5", "15"),
    ("100 - 20% = 70", "100 - 20% = 70", "99.8"),
    ("**5 + 3 = 9**", "5 + 3 = 9", "8"),
    ("- Total: 5 + 3 = 9", "5 + 3 = 9", "8"),
    ("4 + 4 = 8 = 3 + 4", "8 = 3 + 4", "7"),
    ("30 minutes/day * 7 days = 211 minutes", "30 minutes/day * 7 = 211", "210"),
    ("$32 - $20 = $300 left.", "$32 - $20 = $300", "12"),
    ("12 \u00f7 4 = 4", "12 \u00f7 4 = 4", "3"),
]  # fmt: skip


@pytest.mark.parametrize("row", HOLDS.strip().split("\n"))
def test_what_holds_in_some_reading_is_let_pass(row):
    assert check_rationale(row[2:]) is None


@pytest.mark.parametrize(("line", "claim", "expected"), DEPARTS)
def test_what_holds_in_none_is_found_with_its_claim_and_value(line, claim, expected):
    found = check_rationale(line)
    assert found is not None
    assert found.expected == expected
    assert found.claim == claim


def test_the_first_such_line_is_named_by_number_and_text():
    text = "He has 3 + 4 = 7 pens.\n\n  He gives 2 away: 7 - 2 = 4.  \nThen 4 * 2 = 9."
    found = check_rationale(text)
    assert found is not None
    assert (found.line, found.text) == (3, "He gives 2 away: 7 - 2 = 4.")


# Laws ---------------------------------------------------------------------------------------------

TIMES = st.sampled_from(("*", "x", "\u00d7", r"\times ", r"\cdot "))
FRAMES = st.sampled_from((
    "{claim}", "So she has {claim} pens.", "Tom pays {claim}, and goes.", "Then: {claim}",
    "He keeps 5 of them.\nThe rest is {claim}.", r"\({claim}\)", "It is 7 + 1 = 8, so {claim}",
))  # fmt: skip


@st.composite
def sums(draw) -> tuple[str, Fraction]:
    """Arithmetic and its value, written in one of many ways."""
    space, times = draw(st.sampled_from(("", " "))), draw(TIMES)
    over = draw(st.sampled_from(("/", "\u00f7")))

    def made(depth: int) -> tuple[str, Fraction, bool]:
        if depth == 0 or draw(st.booleans()):
            number = draw(st.integers(1, 9999))
            written = f"{number:,}" if draw(st.booleans()) else str(number)
            return written, Fraction(number), False
        sign = draw(st.sampled_from("+-*/"))
        (left, a, left_sum), (right, b, _) = made(depth - 1), made(depth - 1)
        if sign == "/" and b == 0:
            sign = "+"
        value = {"+": a + b, "-": a - b, "*": a * b, "/": a / b if b else a}[sign]
        shown = {"*": times, "/": over}.get(sign, sign)
        left = f"({left})" if left_sum and sign in "*/" else left
        right = f"({right})" if not right.replace(",", "").isdigit() else right
        return f"{left}{space}{shown}{space}{right}", value, sign in "+-"

    left, a, _ = made(2)
    right, b, _ = made(1)
    right = right if right.replace(",", "").isdigit() else f"({right})"
    return f"{left}{space}+{space}{right}", a + b


def written(value: Fraction) -> str:
    if value.denominator == 1:
        return str(value.numerator)
    sign = "-" if value < 0 else ""
    return f"{sign}{abs(value.numerator)}/{value.denominator}"


@given(made=sums(), frame=FRAMES)
def test_true_arithmetic_is_never_accused(made, frame):
    text, value = made
    assert check_rationale(frame.format(claim=f"{text} = {written(value)}")) is None


@given(made=sums(), frame=FRAMES, by=st.integers(-50, 50).filter(bool))
def test_wrong_arithmetic_is_always_found(made, frame, by):
    text, value = made
    lines = frame.format(claim=f"{text} = {written(value + by)}")
    found = check_rationale(lines)
    assert found is not None
    assert found.line == lines.count("\n") + 1
    assert Fraction(found.expected) == value


@given(st.text(alphabet="0123456789+-*/^=().,$% x\\{}frac<>\n&!eq", max_size=300))
def test_no_text_is_an_error(text):
    check_rationale(text)


@pytest.mark.parametrize(
    "text",
    [
        "9**9**9**9 = 1",
        "9^999999999 = 1",
        "9^(9^(9^9)) = 1",
        "(" * 5000 + "1" + ")" * 5000 + " = 2",
        "1" * 10_000 + " + 1 = 2",
        "+".join(["1"] * 900) + " = 3",
        "1/" * 800 + "1 = 7",
        "1 = " * 490 + "1",
        "((((1+" * 200 + "= 2",
        "__import__('os').system('true') = 3 + 4",
    ],
)
def test_attacks_are_bounded_and_no_claims(text):
    assert check_rationale("\n".join([text] * 8)) is None


def test_what_is_beyond_the_bounds_is_not_read():
    assert check_rationale("x\n" * MAX_LINES + "1 + 1 = 3") is None
