"""Answers as models really give them: chains of thought, marks, two letters, refusals, units. For scoring item by item."""

import json
import random

from evaluation.tables.tsv import literal_list

REFUSALS = (
    "Sorry, I can't help with images of people yet.", "Cannot determine the answer", "I'm sorry, but without the image provided I cannot",
    "I cannot tell.", "None of the above.", "Z", "N/A as far as I see", "I do not know, sorry",
)  # fmt: skip
TAILS = (
    "", ".", " because of what stands there in plain sight, as anybody can tell", "\n\nBecause it is so.", " (I am sure)", "!", " :)",
    ". Not the others, which are all wrong for many reasons",
)  # fmt: skip


def letters_said(letter, other, text, draw):
    low = letter.lower()
    return draw.choice(
        [
            letter, low, f"({letter})", f"**{letter}**", f"**{letter}.** {text}", f"{letter}. {text}", f"{letter}: {text}", f'"{letter}"',
            f"{letter} or {other}", f"{letter}, {other}", f"{letter} and {other}", f"Option {letter}", f"option {low}",
            f"The answer is {letter}", f"the answer is {low}", f"Answer is {letter}", f"The correct answer is {low}", f"The answer is **{low}**",
            f"The answer is ({letter})", f"The answer is: {letter}", f"The Answer  is\n**{letter}**", f"the answer is definitely {letter}",
            f"answer is {letter}{other}", f"The answer is not {letter} but {other}", f"My answer is a {text}", f"Best answer: {letter}",
            f"The best option is {letter}", f"The correct option is {letter}", f"ANSWER IS {letter}", f"\\boxed{{{letter}}}", f"\\boxed{{({letter})}}",
            f"$\\boxed{{\\text{{{letter}}}}}$", f"First \\boxed{{({other})}}, no: \\boxed{{({letter})}}", f"\\boxed{{({letter})}}\nor \\boxed{{({other})}}",
            f"\\boxed{{({letter})}} is the answer, not \\boxed{{ }}", f"Final Answer: {letter}", f"**Final Answer**: {letter}", f"答案是{letter}", f"答案：{letter}",
            text, text.upper(), f"It is {text}", f"Not {text}", f"{letter}, since A dog is seen", f"<answer>{letter}</answer>", f"<answer> {low} </answer> {other}",
            f"Let us see. {other} is wrong. So it is {letter}", f"A. is wrong; the answer is {letter}", f"{other}. No wait, {letter}.", f"I'd go with {letter}, not {other}",
            f"Let us think step by step. {text} is what I see in the middle of the image. So the answer is {letter}", f"{letter}{letter}", f"#{letter}#", f"[{letter}]",
            f"{letter}/{other}", f"Is it {letter}?", f"{letter}1", f"Antwort: {letter}", "Bus stop", f"The answer is {letter}\nThe answer is {other}",
        ]
    )  # fmt: skip


def choice(item, number, draw):
    names = list(item.choices) or ["A", "B", "C", "D"]
    letter, other = item.gold if draw.random() < 0.5 else draw.choice(names), draw.choice(names)
    said = letters_said(letter, other, item.choices.get(letter, "blue"), draw) + draw.choice(TAILS)
    if draw.random() < 0.1:
        said = draw.choice(REFUSALS)
    extract = draw.choice(
        [letter, f"({other})", f"The answer is {letter.lower()}", "Z", f"Option {letter}", "hm, neither of these"]
    )
    return said, {"extract": extract, "right": draw.random() < 0.5}


def letter(item, number, draw):
    gold, other = item.gold if draw.random() < 0.5 else draw.choice("ABCDE"), draw.choice("ABCDE")
    said = letters_said(gold, other, draw.choice(["blue", "Blue car", "no such thing", "a Cat"]), draw) + draw.choice(TAILS)
    if draw.random() < 0.1:
        said = draw.choice(
            [*REFUSALS, "f", "e", "(", "it shows nothing of what was asked for here in any way or form", "<answer></answer>"]
        )
    if draw.random() < 0.3:
        x, y = draw.randrange(30), draw.randrange(30)
        boxes = (f"[{x},{y},{x + 20},{y + 20}]", f"[{x}, {y}, 40, 40]", f"[{x},{y},0,0]", f" [{x},{y},{x + 9},{y + 9}] ", "")
        said = f"<think>I see <box>{draw.choice(boxes)}</box> and <box>{draw.choice(boxes)}</box></think> {said}"
    return said, {}


def contained(item, number, draw):
    gold = draw.choice(literal_list(item.gold))
    return draw.choice(
        [
            gold, gold.upper(), gold.lower(), gold.replace(" ", ""), gold.replace(" ", "\n"), gold.replace(" ", "  "), f"**{gold}**", f'It says "{gold}".',
            f"{gold[:-1]}", f"The text reads\n{gold}\nin red.", f"not {gold}", f"${gold}$", f"\\boxed{{{gold}}}", "I cannot read it.", "nothing", f"{gold[0]} {gold[1:]}",
            f"{gold}s and more", gold.title(), gold.swapcase(), f"<answer>{gold}</answer>", "none of it", f"\t{gold}\t", f"{gold[::-1]}",
        ]
    ) + draw.choice(["", "", ".", " indeed", "\n"]), {}  # fmt: skip


def charted(item, number, draw):
    gold = draw.choice(literal_list(item.gold))
    bare = gold.rstrip("%")
    return draw.choice(
        [
            gold, f" {gold} ", f"{gold}.", f"{gold}%", bare, f"{bare} %", f"{gold} million", f"${gold}", f"about {gold}", f"{gold}.0", f"-{gold}", f"**{gold}**",
            f"{gold} km", f"{gold}, because the bar says so", gold.upper(), gold.lower(), "14.6", "14.7", "13.3", "13.4", "0.25", "0.26", "0.2625", "0.263", "25", "1.57", "1.58", "1.425",
            "1.42", "10%", "0", "0.0", "0%", "-0", "2019", "2,018", "1,000", "nan.", "inf", "-inf", "1e1", "14_0", "yes.", "Yes", "YES", "no", "BLUE", "dark blue", "It is blue.",
            "\\boxed{14}", "fourteen", "２０１８", "2018.0", "1923", "2119", "I cannot tell.", "25.0%", "24%",
        ]
    ), {"extract": "Z", "right": draw.random() < 0.5}  # fmt: skip


def numbers_said(gold, draw):
    return draw.choice(
        [
            gold, f" {gold} ", f"{gold}.", f"{gold}.0", f"+{gold}", f"-{gold}", f"**{gold}**", f"\\boxed{{{gold}}}", f"$\\boxed{{{gold}}}$", f"${gold}$", f"\\({gold}\\)", f"x={gold}",
            f"x = {gold}", f"{gold} cm", f"{gold}cm^2", f"{gold}%", f"{gold}\\%", f"{gold}°", f"about {gold}", f"It is {gold}.", f"{gold} or 7", f"[{gold}]", f"({gold})", f"{gold}/1",
            f"\\frac{{{gold}}}{{1}}", f"{gold}*1", f"0{gold}", f"{gold}e0", f"{gold}0", "7", "0", "seven", "0.5", "1/2", "\\frac{1}{2}", "50%", "6/2", "2^3", "2**3", "\\sqrt{9}", "9**0.5", "3!",
            "1,000", "\\text{12}", "\\frac12", "10-7", "3.0000001", "3.00001", "12.", "12 + 0", "\\pi", "null value", "I cannot tell.", "So 3 + 4 = 7, and then 12.", "１２",
            f"Let us count: 1, 2, 3.\nThe answer is {gold}", f"The final answer is $\\boxed{{{gold}}}$.",
        ]
    )  # fmt: skip


def value(item, number, draw):
    """For MathVista."""
    if item.fields["question_type"] == "multi_choice":
        right = item.fields["answer_option"]
        names = list(item.choices)
        one, other = right if draw.random() < 0.5 else draw.choice(names), draw.choice(names)
        said = letters_said(one, other, item.choices[one], draw) + draw.choice(TAILS)
        return said, {"extract": letters_said(draw.choice([right, other]), other, item.choices[other], draw)}
    said, extract = numbers_said(item.gold, draw) + draw.choice(["", "", "", " units"]), numbers_said(item.gold, draw)
    return said, {"extract": extract}


def judged_value(item, number, draw):
    """For MathVerse."""
    extract = draw.choice(
        [item.gold, f" {item.gold} ", f"**{item.gold}**", f"{item.gold}.", "nothing at all", "7", f"x={item.gold}"]
    )
    same = draw.choice(["0", "1", " 1 ", "1.", "0\n", "**1**", "yes", "Judgement: 1", "10", "01"])
    return numbers_said(item.gold, draw), {"extract": extract, "same": same}


def vision(item, number, draw):
    if item.choices:
        names = list(item.choices)
        one, other = item.gold if draw.random() < 0.5 else draw.choice(names), draw.choice(names)
        said = letters_said(one, other, item.choices[one], draw) + draw.choice(TAILS)
        extract = draw.choice(
            [
                one,
                f"\\({one}\\)",
                f"\\({one}",
                letters_said(item.gold, other, item.choices[other], draw),
                "neither of them all",
            ]
        )
        return said, {"extract": extract}
    gold = item.gold.removeprefix("\\boxed{").removesuffix("}") if "boxed" in item.gold else item.gold
    said, extract = numbers_said(gold, draw), numbers_said(gold, draw)
    said = draw.choice([said] * 8 + ["A", item.gold])
    return said, {"extract": draw.choice([extract, extract, f"\\({gold}\\)", f"so \\({gold}\\)", item.gold])}


def short(item, number, draw):
    gold, kind = item.gold, item.fields["answer_type"]
    plain = {
        "float": lambda: draw.choice([numbers_said(gold, draw), f"{float(gold) + 0.001:.4f}", f"{float(gold) + 0.0011:.4f}", "2π", "π", "-1.5π m", f"{gold} π", "1e-3", "", " "]),
        "multiple choice": lambda: draw.choice([letters_said(draw.choice([gold, "A"]), "B", "it", draw), gold, gold.lower(), "e", "", "?", "F", "Option", f"{gold} is it"]),
        "text": lambda: draw.choice([gold, gold.upper(), gold[0], f"{gold}!", "", "no", " ", f"{gold[0]}\n", "I say so", "e"]),
    }[kind]  # fmt: skip
    answer, other = plain(), plain()
    said = draw.choice(
        [
            json.dumps({"solution": "so", "short answer": answer}), f"```json\n{json.dumps({'solution': 'a {b}', 'short answer': answer}, indent=1)}\n```",
            json.dumps({"solution": "so", "short_answer": answer}), json.dumps({"short answer": None}), json.dumps({"short answer": "" if kind == "text" else 3}), json.dumps([answer]), answer,
            f"Here it is: {{'short answer': '{answer}'}}", f'{{"solution": "\\frac{{1}}{{2}}", "short answer": "{answer}"}}', f"The answer is {answer}", f"{{{answer}", f"}} {answer} {{",
            f'{{"short answer": "{answer}"}} and {{"short answer": "{other}"}}', f"**{answer}**", f"<answer>{answer}</answer>", f'{{"short answer": "{answer}",}}',
        ]
    )  # fmt: skip
    return said or "?", {"extract": other or "?"}


def letters(item, number, draw):
    gold = "".join(item.gold.split(", "))
    extract = draw.choice(
        [
            gold,
            gold[::-1],
            gold.lower(),
            f"{gold}.",
            ", ".join(gold),
            f"**{gold}**",
            f" {gold}",
            "Z",
            "D",
            "ABCD",
            f"{gold}{gold[0]}",
            "Ａ",
            "I",
            f"Answer {gold}",
        ]
    )
    return letters_said(gold[0], "D", "it", draw), {"extract": extract}


def graded(item, number, draw):
    key = "extract_answer" if "extract_answer" in item.fields["grading_query"] else "extracted_answer"
    score = draw.choice([0, 1, 1.0, 0.5, 0.25, True, False])
    good = json.dumps({key: "4", "score": score})
    extract = draw.choice(
        [
            good,
            good,
            good,
            f" {good}\n",
            f"```json\n{good}\n```",
            json.dumps({"answer": "4", "score": 1}),
            "[1]",
            "1",
            "not json",
            json.dumps({key: "4"}),
            f"{good}.",
        ]
    )
    return numbers_said(item.gold, draw), {"extract": extract}


def make(items, kind, seed=0):
    """(item id -> prediction, item id -> replies of the stub judge)."""
    draw = random.Random(f"nasty{seed}")
    predictions, table = {}, {}
    for number, item in enumerate(items):
        said, replies = kind(item, number, draw)
        predictions[item.item_id] = said
        table[item.item_id] = {"extract": "Z", "same": "0", "right": False} | replies
    return predictions, table
