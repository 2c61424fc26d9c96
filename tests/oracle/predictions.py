"""Answers of every kind for the look-alikes, and what the stub judge says of them."""

import random

from evaluation.tables.tsv import literal_list

WRONG_LETTER = {"A": "B", "B": "C", "C": "D", "D": "A", "E": "A"}


def choice(item, number, draw):
    gold = item.gold
    letter = gold if draw.random() < 0.5 else WRONG_LETTER[gold]
    text = item.choices.get(letter, "thing")
    said = draw.choice(
        [
            letter, f"({letter})", f"The answer is {letter}", f"{letter}. {text}", text, f"**{letter}**", f"\\boxed{{{letter}}}",
            f"between A and B, as it is #q{number}#", f"It cannot be told what it is here, at all #q{number}#", "Z",
            f"The answer is {letter}. Because it stands there in plain sight so clearly #q{number}#", letter.lower(),
        ]
    )  # fmt: skip
    if said == letter.lower():
        said += f" #q{number}#"
    return said, {"extract": draw.choice([gold, WRONG_LETTER[gold], f"Option {gold}", "Z"])}


def wemath_rule(item, number, draw):
    letter = item.gold if draw.random() < 0.7 else draw.choice("ABCD")
    return draw.choice(
        [f"Answer: {letter}", f"<Answer>: {letter}.", letter, "Answer", f"It is {letter}", "none Answer: (B"]
    ), {}


def letter(item, number, draw):
    found = item.gold if draw.random() < 0.5 else draw.choice("ABCDE")
    said = draw.choice(
        [
            found, f"({found})", f"Answer: {found}", f"The best answer is {found}", f"The best option is {found}", "blue", "Bus stop",
            f"Best answer: {found}", f"\\boxed{{({found})}}", f"**Answer**: {found}", "F", f"<answer> {found.lower()} </answer>",
            f"<answer>blue</answer> {found}", "it does not show what is asked for here in any way or form", "b",
        ]
    )  # fmt: skip
    return said, {}


def boxed_letter(item, number, draw):
    said, judged = letter(item, number, draw)
    x, y = draw.randrange(30), draw.randrange(30)
    box = draw.choice(
        [f"<box>[{x},{y},{x + 20},{y + 20}]</box>", f"<box>[{x}, {y}, 9, 9]</box>", "", f"<box>[{x},{y},0,0]</box>"]
    )
    return f"{box} {said}".strip(), judged


def contained(item, number, draw):
    gold = draw.choice(literal_list(item.gold))
    return draw.choice([gold, f"It says {gold.upper()}", gold.replace(" ", ""), "nothing", f"a\n{gold} b"]), {}


def charted(item, number, draw):
    gold = draw.choice(literal_list(item.gold))
    return draw.choice(
        [gold, f" {gold} ", "14.6", "0.25", "25", "10%", "0.0", "2019", "yes.", "BLUE", "1,000", "nan", "1.57"]
    ), {}


def value(item, number, draw):
    """For MathVista: exact values, letters, prose for the judge."""
    gold = item.gold
    if item.fields["question_type"] == "multi_choice":
        option = item.fields["answer_option"]
        said = draw.choice(
            [option, f"The answer is {option}", f"hm #q{number}#", WRONG_LETTER[option], f"perhaps, as said #q{number}#"]
        )
        return said, {"extract": draw.choice([option, WRONG_LETTER[option], "nothing"])}
    said = draw.choice([gold, f"it is {gold} #q{number}#", f"about so much #q{number}#", "7", f"{gold}.0"])
    if not said.endswith("#"):
        said = f"{said} #q{number}#" if said != gold else said
    return said, {"extract": draw.choice([gold, "7", f"{gold}.0", "null", "seven"])}


def judged_value(item, number, draw):
    """For MathVerse: always extracted, then a verdict."""
    right = draw.random() < 0.4
    extract = item.gold if right else f"maybe more #q{number}#"
    return f"So x is what it is. #q{number}#", {"extract": extract, "same": draw.choice(["0", "1", "1.", " 1 "])}


def vision(item, number, draw):
    gold = item.gold
    if item.choices:
        said = draw.choice(
            [gold, f"The answer is {gold}", f"hm #q{number}#", WRONG_LETTER[gold], f"either, or both #q{number}#"]
        )
        return said, {"extract": draw.choice([gold, WRONG_LETTER[gold], "nothing", gold.lower()])}
    said = draw.choice([gold, "0.5", r"\frac{1}{2}", "50%", f"it is {gold} #q{number}#", "6/2", f"x={gold} #q{number}#"])
    if said != gold and "#" not in said:
        said = f"{said}" if draw.random() < 0.5 else f"{said} #q{number}#"
    return said, {"extract": draw.choice([gold, "0.5", r"\frac{1}{2}", "50%", "1/2", "6/2", "x", r"\sqrt{2}"])}


def short(item, number, draw):
    gold, kind = item.gold, item.fields["answer_type"]
    off = {"float": f"{float(gold) + 0.0009:.4f}" if kind == "float" else "", "multiple choice": "A", "text": "y"}[kind]
    said = draw.choice(
        [
            f'{{"solution": "so", "short answer": "{gold}"}}', f'```json\n{{"solution": "so", "short answer": "{off}"}}\n```',
            gold, f"The answer is so and so #q{number}#", f'{{"answer": "{gold}"}} #q{number}#', f"{{broken #q{number}#",
        ]
    )  # fmt: skip
    return said, {"extract": draw.choice([gold, off, "2π" if kind == "float" else gold, "neither of these ABC"])}


def letters(item, number, draw):
    gold = "".join(item.gold.split(", "))
    return f"I choose what fits #q{number}#", {"extract": draw.choice([gold, gold[::-1], "Z", "a", "B.", "D", "ABCD"])}


def graded(item, number, draw):
    key = "extract_answer"
    good = f'{{"{key}": "4", "score": 1}}'
    replies = [
        good,
        f'{{"{key}": "4", "score": 0}}',
        f"```json\n{good}\n```",
        '{"answer": "4", "score": 1}',
        "[1]",
        "not json",
    ]
    return f"There are four #q{number}#", {"extract": draw.choice(replies)}


def make(items, kind, seed=0):
    """(item id -> prediction, number -> replies of the stub judge)."""
    draw = random.Random(seed)
    predictions, table = {}, {}
    for number, item in enumerate(items):
        said, replies = kind(item, number, draw)
        predictions[item.item_id] = said
        table[number] = {"extract": "Z", "same": "0"} | replies
    return predictions, table
