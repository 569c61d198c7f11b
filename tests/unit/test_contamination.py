"""Overlap of test questions with training rows."""

from lorid.method.contamination import Overlap, words_of

QUESTION = (
    "Natalia sold clips to 48 of her friends in April, and then she sold half as many clips in "
    "May. How many clips did Natalia sell altogether?"
)


def found(questions, *rows, **options):
    overlap = Overlap([(f"q{n}", text) for n, text in enumerate(questions)], **options)
    for number, row in enumerate(rows):
        overlap.look_at(f"r{number}", row)
    return overlap


def test_a_copy_with_other_case_and_punctuation_is_found_at_both_lengths():
    overlap = found([QUESTION, "What is the sum of two and three?"], "So: " + QUESTION.upper())
    assert overlap.details() == {
        "num_questions": 2, "num_rows": 1, "questions_13_words": 1, "questions_8_words": 1,
        "rows_13_words": 1, "rows_8_words": 1,
    }  # fmt: skip
    (row,) = overlap.rows()
    assert (row["problem_id"], row["row_id"], row["num_words"]) == ("q0", "r0", 13)
    assert row["words"] in " ".join(words_of(QUESTION))


def test_a_shorter_run_is_found_at_its_length_only():
    words = words_of(QUESTION)
    nine, seven = " ".join(["x", *words[3:12], "y"]), " ".join(["x", *words[3:10], "y"])
    overlap = found([QUESTION], nine)
    assert (overlap.num_found(13), overlap.num_found(8)) == (0, 1)
    assert next(overlap.rows())["num_words"] == 8
    assert found([QUESTION], seven).num_found(8) == 0


def test_runs_do_not_cross_from_one_text_to_the_next():
    words = words_of(QUESTION)
    overlap = Overlap([("q", QUESTION)])
    overlap.look_at("r", " ".join(words[:7]), " ".join(words[7:14]))
    assert overlap.num_found(8) == 0


def test_a_short_question_counts_whole_and_a_very_short_one_never():
    short = "How many legs do three dogs have?"
    overlap = found([short, "2 + 3 = ?"], f"Tell me. {short} Think.", "2 + 3 = 5")
    assert [row["problem_id"] for row in overlap.rows()] == ["q0"]
    assert overlap.num_found(13) == overlap.num_found(8) == 1
