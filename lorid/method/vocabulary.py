"""Words that the quality gate knows: which mean nothing when a rule and a question share them.

Lists of plain words, looked up and never interpreted; what they are used for is in
`lorid.method.mentions` and `lorid.method.gate`.
"""

import re
from fractions import Fraction


def _listed(text: str) -> frozenset[str]:
    return frozenset(text.split())


def _topics(words: str) -> re.Pattern[str]:
    """Finds a word that begins like one of these; a sign stands anywhere."""
    begun = (rf"\b{word}" if word[0].isalpha() else word for word in words.split())
    return re.compile("|".join(begun), re.IGNORECASE)


# Capitalised words that name nothing of a story: they belong to mathematics and measuring.
NO_NAMES = _listed(
    """
    algebra am arabic archimedes arithmetic asa binet binomial bodmas calculus cartesian
    cauchy cavalieri cd celsius ceva chebyshev cosine cosines cramer diophantine dvd euclid
    euclidean euler fahrenheit fermat fibonacci foil fundamental gauss gaussian gcd gcf
    geometry greek gst hcf hero heron jensen kelvin lagrange latin law lcd lcm leibniz lhs
    menelaus newton pascal pemdas pm pythagoras pythagorean rhs roman sas schwarz simon sine
    sines sss stewart theorem triangle trigonometry tv us usd vat venn vieta wilson
    """
)
# Words that questions and rules begin with.
BEGINNINGS = _listed(
    """
    a about above according add adding additionally after afterwards again all also
    altogether among an analyse analyze and another any apply applying approximately are
    arrange as ask assign assume assuming at because before begin below besides between both
    but by calculate calculating can cancel check choose combine compare compute conclude
    consider considering convert could count cross currently decide decrease deduce define
    derive describe determine determining did distribute divide dividing do does double draw
    due during each eight either eleven employ ensure enter equal establish estimate
    evaluate even eventually every everyone expand explain express factor figure final
    finally find finding first five fold for form formulate fortunately four from general
    get give given great group half halve has have he her here hers his how however i
    identify if ignore imagine in increase initially inside instead interpret into invert is
    isolate it its just keep know knowing label last later leave let list look make many
    mean meanwhile measure might more most multiply multiplying must my name near neither
    next nine no nobody none normally not note now observe obtain of off on once one only or
    order organize other otherwise our out over overall partition per perform pick please
    plot plug previously prove provide read rearrange reason recall recognise recognize
    reduce relate remember remove repeat replace represent review rewrite round same sample
    second set setting seven several shall she should show shown similarly simplify
    simplifying simply since six size solve solving some somebody someone sometimes sort
    start state still substitute subtract subtracting sum suppose take ten test than that
    the their them then there therefore these they thing think third this those three
    through thus to today together tomorrow tonight total track translate treat triple turn
    twelve twenty twice two under understand unfortunately unless until up upon use using
    usually utilize value verify was we were what when whenever where which while who
    whoever whole whose why with within without work would write yes yesterday yet you your
    zero
    """
)

# Words of every second rule or question: alone they make neither a phrase nor a difference.
FILL = _listed(
    """
    a all altogether amount an and any are as at be by calculate can compute determine did
    do does each equal find for from get given had has have he her his how if in into is it
    its many more much number obtain of on one or per she so sum than that the their them
    then there these they this to total two value was were what when which who will with you
    your
    """
)
COUNTED_ANYWHERE = _listed(
    """
    and angle base case coefficient consecutive digit dimension distinct equal equation
    expression factor fold group integer line minus number of or part place plus point
    possible quantity second side step term time times to unknown value variable vertex way
    """
) | {""}


# Numbers that everybody knows, each with the words that show that this is what is meant.
CONSTANTS = {
    Fraction(number): _topics(words)
    for number, words in {
        3: "feet foot yard triangle triple",
        4: "quarter square rectang season",
        5: "nickel",
        6: "cube hexagon dice",
        7: "week day",
        8: "octagon ounce",
        10: "decimal digit power base place dime percent",
        12: "month year dozen inch foot feet",
        16: "ounce pound",
        24: "hour day",
        25: "quarter cent",
        28: "february",
        32: "fahrenheit celsius freezing",
        30: "month day degree",
        31: "month day",
        36: "yard inch",
        45: "degree angle",
        52: "week year card deck",
        60: "minute second hour degree",
        90: "degree angle right perpendicular complement",
        100: r"percent % cent hundred",
        180: "degree angle triangle supplement straight linear",
        212: "fahrenheit celsius boil",
        360: "degree angle circle rotation",
        365: "day year",
        366: "day year leap",
        1000: "kilo milli gram liter litre meter metre thousand",
        1760: "mile yard",
        2000: "ton",
        3600: "second hour",
        5280: "mile feet foot",
    }.items()
} | {
    Fraction(314, 100): _topics(r"pi\b circle circum cylind"),
    Fraction(22, 7): _topics(r"pi\b circle circum cylind"),
    Fraction(9, 5): _topics("fahrenheit celsius"),
    Fraction(5, 9): _topics("fahrenheit celsius"),
}

OPERATIONS = {
    "addition": (
        re.compile(r"[\w)$%]\s*\+\s*[\w($]"),
        _topics(
            r"add sum total combine combining altogether together plus increase increasing "
            r"accumulat both whole gain"
        ),
    ),
    "subtraction": (
        re.compile(r"\d\s*[-\u2212]\s*\$?\d"),
        _topics(
            r"subtract minus differ remain left decrease decreasing reduc less fewer deduct "
            r"remov taken take chang"
        ),
    ),
    "multiplication": (
        re.compile(r"\d\s*[*x\u00d7]\s*\$?\d|\\times|\\cdot"),
        _topics(
            r"multiply multiplied multiplying multiplication product times twice double triple "
            r"rate percent scale factor area volume square each power repeated"
        ),
    ),
    "division": (
        re.compile(r"\d\s*[/\u00f7]\s*\$?\d|\\frac|\\div"),
        _topics(
            r"divi quotient per\b average mean half halv fraction ratio share split equal\w* "
            r"percent quarter third unit proportion"
        ),
    ),
}
