"""Words of prose between numbers, by what they do to the arithmetic beside them.

Lists of plain words, looked up and never interpreted; `lorid.method.sides` says what follows.
"""

from lorid.method.quantities import NUMBER_WORDS


def _listed(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Right before a number they change what it says, or make it a label: "Step 2", "less 5 + 3".
CHANGES = frozenset(NUMBER_WORDS) | _listed(
    """
    plus minus than per less off step part case method option question number chapter phase stage
    round level room page grade sum combined day days week weeks month months year years pages
    chapters grades steps
    """
)
# Before those one word more may stand: "twice the 5 + 3", "a third of 6 + 3".
SHARES = _listed(
    """
    times twice double doubled triple tripled thrice half average mean median third thirds quarter
    quarters fourth fourths fifth fifths sixth seventh eighth ninth tenth tenths squared cubed root
    square cube log ln sin cos tan sqrt mod modulo gcd lcm max min floor ceil abs choose
    """
)
# Behind a number these are no part of its unit: a new statement begins, or it was an ordinal.
NO_UNITS = frozenset(NUMBER_WORDS) | _listed(
    """
    and or so then since because but while therefore thus hence if when where which meaning st nd
    rd th
    """
)
# A number behind one of these belongs to what stands before it: "3 rows of 4 + 2",
BINDS = _listed("of to in at for with by per from the a than into as on about and")
# except in "a total of 4 + 2".
WHOLES = _listed("total cost length price amount number distance area profit sum")
# What alone between two numbers makes one statement of them: "1 in 4", "5 out of 20".
PROPORTIONS = (["of"], ["in"], ["to"], ["by"], ["per"], ["or"], ["from"], ["out", "of"])
# Behind a number: "2 and a half".
POWERS = _listed("squared cubed factorial choose")
PARTS = _listed("half third quarter")
# Between an equal sign and its number: "is equal to about 5".
LEADS = _listed(
    "about approximately roughly around nearly almost exactly only just a an the total of"
)
