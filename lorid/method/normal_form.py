r"""One spelling for what can be written in many ways, before answers are compared.

    normal_form(r"\left( 1{,}000\!, \dfrac12 \right)")   # "(1,000, \frac{1}{2})"

Unicode signs become LaTeX or ASCII, spacing and decoration go, `\text{...}` is unwrapped. Nothing
is interpreted here: numbers, units and brackets are read by `lorid.method.reading`.
"""

import re
import unicodedata

# Stands for the dollar sign of money, so that no other one is left.
DOLLAR = "\u00a4"
_SUPERSCRIPTS = str.maketrans("\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079"
                              "\u207a\u207b\u207f\u2071", "0123456789+-ni")  # fmt: skip
_SUBSCRIPTS = str.maketrans(
    "\u2080\u2081\u2082\u2083\u2084\u2085\u2086\u2087\u2088\u2089", "0123456789"
)
_RAISED = re.compile(
    "[\u2070\u00b9\u00b2\u00b3\u2074-\u2079\u207a\u207b\u207f\u2071]+"
)  # superscripts are no ASCII letters of NFKC: x\u00b2 would become x2
_LOWERED = re.compile("[\u2080-\u2089]+")
_SIGNS = {
    **dict.fromkeys("\u2010\u2011\u2012\u2013\u2014\u2015\u2212\ufe58\ufe63\uff0d\u207b", "-"),
    "\u00d7": "\\cdot ", "\u22c5": "\\cdot ", "\u00b7": "\\cdot ", "\u2217": "\\cdot ",
    "\u2219": "\\cdot ", "\u00f7": "/", "\u2215": "/", "\u2044": "/",
    "\u2264": "\\le ", "\u2265": "\\ge ", "\u2a7d": "\\le ", "\u2a7e": "\\ge ", "\u2260": "\\ne ",
    "\u00b0": " degrees ", "\u221e": "\\infty ", "\u03c0": "\\pi ", "\u00b1": "\\pm ",
    "\u2213": "\\mp ", "\u222a": "\\cup ", "\u2229": "\\cap ", "\u2208": "\\in ",
    "\u2205": "\\emptyset ", "\u00d8": "\\emptyset ", "\u211d": "\\mathbb{R}",
    "\u2248": "\\approx ", "\u2245": "\\approx ", "\u221d": "\\propto ",
    "\u27e8": "\\langle ", "\u27e9": "\\rangle ", "\u2329": "\\langle ", "\u232a": "\\rangle ",
    "\u2018": "'", "\u2019": "'", "\u2032": "'", "\u201c": '"', "\u201d": '"', "\u2026": "\\ldots ",
    "\u03b8": "\\theta ", "\u03b1": "\\alpha ", "\u03b2": "\\beta ", "\u03bb": "\\lambda ",
    "\u03b3": "\\gamma ", "\u03c6": "\\phi ", "\u03bc": "\\mu ", "\u03c9": "\\omega ",
    "\u202f": " ", "\u00a0": " ", "\u2009": " ", "\u2192": "\\to ",
}  # fmt: skip
_TRANSLATED = str.maketrans(_SIGNS)
_FRACTION_SIGNS = re.compile("[\u00bc-\u00be\u2150-\u215e]")
_ROOT = re.compile("\u221a\\s*(?:\\(([^()]*)\\)|(\\d+(?:\\.\\d+)?|[a-z]))")
_SPACING = re.compile(
    r"(?<!\\)\\(?:[,;:> ]|quad\b|qquad\b|thinspace\b|hspace\*?\{[^{}]*\}|displaystyle(?![a-zA-Z])"
    r"|limits(?![a-zA-Z])|(?:[Bb]igg?[lrm]?|left|right|middle)(?![a-zA-Z])\.?)|~|&nbsp;"
)
_TEXT = re.compile(
    r"\\(?:text(?:rm|bf|it|sf|tt|normal|up)?|m(?:ath)?(?:rm|bf|it|sf|tt)|mbox|hbox|operatorname\*?|boldsymbol"
    r"|bm|emph|underline|boxed|fbox|mathop)\s*\{([^{}]*)\}"
)
_DELIMITER = re.compile(r"(?<!\\)\\[()\[\]](?!\d*[a-z]*pt\b)|(?<!\\)\$")
_SYNONYMS = [
    (re.compile(r"\\[dtc]frac(?![a-zA-Z])"), r"\\frac"),
    (re.compile(r"\\(?:times|cdot|ast)(?![a-zA-Z])"), r"\\cdot "),
    (re.compile(r"(?<!\*)\*(?!\*)"), r"\\cdot "),
    (re.compile(r"\*\*"), "^"),
    (re.compile(r"\\div(?![a-zA-Z])"), "/"),
    (re.compile(r"\\(?:leq|leqslant)(?![a-zA-Z])|<="), r"\\le "),
    (re.compile(r"\\(?:geq|geqslant)(?![a-zA-Z])|>="), r"\\ge "),
    (re.compile(r"\\(?:neq)(?![a-zA-Z])|!="), r"\\ne "),
    (re.compile(r"\\lt(?![a-zA-Z])"), "<"),
    (re.compile(r"\\gt(?![a-zA-Z])"), ">"),
    (re.compile(r"\^\s*\{?\s*\\circ\s*\}?|\\degrees?(?![a-zA-Z])"), " degrees "),
    (re.compile(r"\\(?:varnothing)(?![a-zA-Z])|\\\{\s*\\\}"), r"\\emptyset "),
    (re.compile(r"\\(?:lbrace)(?![a-zA-Z])"), r"\\{"),
    (re.compile(r"\\(?:rbrace)(?![a-zA-Z])"), r"\\}"),
    (re.compile(r"\\(?:simeq|approxeq)(?![a-zA-Z])"), r"\\approx "),
    (re.compile(r"\\(?:dots|cdots|ldots)(?![a-zA-Z])|\.\.\.+"), r"\\ldots "),
    (re.compile(r"\\%"), "%"),
    (re.compile(r"\\[$]"), DOLLAR),
    (re.compile(r"\{,\}"), ","),
    (re.compile(r"(?<![\\}])\{\}"), ""),
    (re.compile(r"\\frac\s*(\d)\s*(\d)"), r"\\frac{\1}{\2}"),
    (re.compile(r"\\frac\s*(\d|[a-zA-Z])\s*\{"), r"\\frac{\1}{"),
    (re.compile(r"(\\frac\s*\{[^{}]*\})\s*(\d|[a-zA-Z])"), r"\1{\2}"),
    (re.compile(r"\\frac\s+\{"), r"\\frac{"),
    (re.compile(r"\\sqrt\s*(\d|[a-zA-Z])"), r"\\sqrt{\1}"),
    (re.compile(r"\\sqrt\s+"), r"\\sqrt"),
    (re.compile(r"(?<![\\a-zA-Z])sqrt\s*\(([^()]*)\)"), r"\\sqrt{\1}"),
    (re.compile(r"(?<![\\a-zA-Z])pi(?![a-zA-Z])"), r"\\pi "),
    (re.compile(r"(?<![\\a-zA-Z])(?:infinity|inf|oo)(?![a-zA-Z])"), r"\\infty "),
    (re.compile(r"\s+([\^_,;])"), r"\1"),
    (re.compile(r"(?<=[a-zA-Z0-9)}'])_\s*([a-zA-Z0-9])(?![a-zA-Z0-9])"), r"_{\1}"),
    (re.compile(r"(?<=log)_\s*(\d)(?=\d)"), r"_{\1}"),
]


def normal_form(answer: str) -> str:
    """The same answer in one spelling; the work is linear in its length."""
    text = _FRACTION_SIGNS.sub(_plain_fraction, answer)
    text = _RAISED.sub(lambda found: "^{" + found.group().translate(_SUPERSCRIPTS) + "}", text)
    text = _LOWERED.sub(lambda found: "_{" + found.group().translate(_SUBSCRIPTS) + "}", text)
    text = _ROOT.sub(lambda found: "\\sqrt{" + (found[1] or found[2]) + "}", text)
    text = unicodedata.normalize("NFKC", text.translate(_TRANSLATED)).translate(_TRANSLATED)
    text = "".join(map(_visible, text)) if not text.isascii() or not text.isprintable() else text
    text = _without_emphasis(text.strip()).replace("\\!", "")
    text = _DELIMITER.sub("", _currency(_SPACING.sub(" ", text)))
    for _ in range(3):
        text = _TEXT.sub(r" \1 ", text)
    for pattern, replacement in _SYNONYMS:
        text = pattern.sub(replacement, text)
    return " ".join(text.split()).strip(" ").rstrip(".;:,").rstrip()


def _visible(char: str) -> str:
    """Control and formatting characters (null bytes, right-to-left marks) are not content."""
    category = unicodedata.category(char)
    return (" " if char.isspace() else "") if category in ("Cc", "Cf") else char


def _plain_fraction(found: re.Match[str]) -> str:
    return " " + unicodedata.normalize("NFKC", found.group()).replace("\u2044", "/")


def _without_emphasis(text: str) -> str:
    # "**73**" is bold; "2**3" is a power and stays.
    for mark in ("**", "__", "`", "*", '"'):
        inner = text[len(mark) : -len(mark)]
        if len(text) > 2 * len(mark) and text.startswith(mark) and text.endswith(mark):
            text = inner.strip() if mark not in inner else text
    return text


def _currency(text: str) -> str:
    r"""A dollar sign before a number, without a partner, is money: "$18", "-$5"."""
    if "$" not in text or text.replace("\\$", "").count("$") % 2 == 0:
        return text
    return re.sub(r"(?<!\\)\$(?=\s*-?\s*[\d.])", r"\\$", text, count=1)
