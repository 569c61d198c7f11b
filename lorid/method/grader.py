"""The version of the grader: what counts as the answer in a text, and when two answers are equal.

Raise it with every change by which `extract_answer` or `AnswerChecker` decides a case differently.
Triples and evaluations carry it, so that figures of two graders are not compared by mistake.
"""

GRADER_VERSION = 2
