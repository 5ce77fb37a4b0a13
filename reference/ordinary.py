"""Ordinary English: made-up sentences of common words, because a dictionary treats "kitchen" and "quisling" alike.

Word strings train the encoder; these train the predictor on how words follow one another in plain prose.
"""

from __future__ import annotations

import random

NOUNS = """man woman child boy girl baby friend mother father husband wife son daughter uncle aunt grandfather grandmother
neighbor stranger king queen prince soldier captain sailor farmer hunter driver painter writer singer dancer actor cook baker
judge lawyer priest student nurse waiter guest crowd family people dog cat horse cow pig sheep goat mouse rabbit fox wolf bear
bird duck goose hen eagle snake frog spider bee ant worm fish whale tiger lion monkey elephant tree flower grass leaf branch
root seed fruit apple pear peach cherry grape lemon potato carrot onion bean corn wheat egg meat sugar salt pepper honey juice
wine beer water ice snow rain wind storm cloud sky sun moon star night morning evening summer winter autumn season hill valley
lake pond stream island coast wave shore sand stone rock cave forest field meadow road street path bridge corner wall fence
gate roof floor ceiling stairs window curtain carpet chair sofa bed pillow blanket mirror candle fire smoke ash stove oven
plate bowl cup glass bottle knife fork spoon pot pan basket bag bucket rope chain nail hammer saw ladder brush broom soap
towel shirt coat hat shoe boot sock glove dress skirt scarf belt ring button pocket needle thread wool cotton leather paper
pencil pen ink page story poem song picture map newspaper magazine ticket coin money bank price gift toy doll ball game team
race prize match bell drum guitar piano train bus car truck boat ship plane bicycle wheel engine motor machine tool metal iron
gold silver copper glass plastic wood brick tower castle palace temple prison hospital hotel restaurant theater museum shop
farm barn mill factory bakery head hair face eye ear nose mouth tooth tongue neck shoulder arm hand finger chest back stomach
leg knee foot heart blood bone skin voice dream idea question answer word letter name number hour minute moment week month year
birthday holiday party wedding war peace law truth lie secret mistake trouble danger accident journey adventure breakfast
lunch dinner supper meal sandwich chocolate pie cream doctor office computer telephone camera television message lesson
""".split()
VERBS = """saw found took brought carried held dropped caught threw kicked pushed pulled lifted moved turned opened closed
locked broke fixed built painted cleaned washed cut cooked baked ate drank tasted smelled heard watched followed met helped
called asked told taught showed gave sold bought paid stole lost kept hid covered filled emptied burned fed killed saved
loved hated liked wanted needed remembered forgot knew understood believed read wrote drew sang played won left visited
reached crossed climbed passed touched hit shook pointed chose changed counted measured tied hung planted grew picked
gathered collected wore sewed packed sent received shared spilled poured mixed ordered served searched
""".split()
MOVES = """walked ran jumped fell sat stood slept woke smiled laughed cried shouted spoke talked waited worked rested swam flew
rode drove sailed danced landed stopped started arrived returned disappeared died lived stayed hurried wandered stepped turned
looked listened prayed fought argued agreed""".split()
ADJECTIVES = """big small large little tall short long wide narrow thick thin heavy light old young new fresh good bad great
nice kind cruel brave shy quiet loud silent happy sad angry hungry thirsty tired sick strong weak fast slow quick hot cool wet
soft hard smooth rough sharp dull bright dark clean dirty empty full rich poor cheap sweet sour bitter wild gentle clever
foolish strange famous common rare simple difficult easy dangerous safe beautiful ugly pretty broken wooden golden round
square flat deep high low early late lazy busy proud honest lonely whole warm dusty frozen sleepy careful""".split()
ADVERBS = """again always never often sometimes soon already still slowly quickly quietly carefully suddenly finally early late
yesterday together alone away here there everywhere outside inside upstairs well badly before once twice too""".split()
PLACES = """in on under over near behind beside between across around through into toward from against below above past after
before without with along inside outside""".split()
SUBJECTS = "i you he she it we they nobody everyone somebody who".split()
HELPERS = "would could should might must can will did didn't don't can't won't couldn't wouldn't".split()
BARE = """see find take bring carry hold drop catch throw open close lock break fix build paint clean wash cut cook eat drink
taste smell hear watch follow meet help call ask tell show give sell buy pay keep hide fill burn feed save love like want need
remember forget know understand believe read write draw sing play win leave visit reach cross climb touch choose change count
tie plant pick wear pack send share spill pour mix order serve stop try use put get make say think""".split()
LINKS = "and but because when while until if so before after although".split()


def noun_phrase(rng: random.Random) -> str:
    """Draws an article or the like with a noun, some with an adjective."""
    article = rng.choice(
        (
            "the",
            "the",
            "the",
            "a",
            "a",
            "his",
            "her",
            "my",
            "our",
            "their",
            "your",
            "this",
            "that",
            "every",
            "one",
            "two",
            "some",
            "no",
        )
    )
    noun = rng.choice(NOUNS)
    described = f"{rng.choice(ADJECTIVES)} {noun}" if rng.random() < 0.35 else noun
    if article in ("two", "some"):
        described += "es" if described.endswith(("s", "sh", "ch", "x")) else "s"
    if article == "a" and described[0] in "aeio":
        article = "an"
    return f"{article} {described}"


def clause(rng: random.Random) -> str:
    """Draws one clause, lower-case."""
    subject = rng.choice(SUBJECTS) if rng.random() < 0.4 else noun_phrase(rng)
    place = f"{rng.choice(PLACES)} {noun_phrase(rng)}"
    kind = rng.random()
    if kind < 0.4:
        return f"{subject} {rng.choice(VERBS)} {noun_phrase(rng)}" + (f" {place}" if rng.random() < 0.5 else "")
    if kind < 0.55:
        return f"{subject} {rng.choice(MOVES)} {rng.choice((place, rng.choice(ADVERBS), place))}"
    if kind < 0.7:
        return f"{subject} {rng.choice(('is', 'was', 'were', 'are', 'has been', 'will be', 'became'))} " + rng.choice(
            (rng.choice(ADJECTIVES), f"{rng.choice(('very', 'too', 'not', 'so'))} {rng.choice(ADJECTIVES)}", place)
        )
    if kind < 0.85:
        return f"{subject} {rng.choice(HELPERS)} {rng.choice(BARE)} {noun_phrase(rng)}"
    if kind < 0.93:
        return f"there {rng.choice(('is', 'was', 'were', 'are'))} {noun_phrase(rng)} {place}"
    return f"{rng.choice(ADJECTIVES)} {rng.choice(NOUNS)}s and {rng.choice(NOUNS)}s are {rng.choice(ADJECTIVES)}"


def sentence(rng: random.Random) -> str:
    """Draws one or two clauses of plain prose, lower-case."""
    first = clause(rng)
    return f"{first} {rng.choice(LINKS)} {clause(rng)}" if rng.random() < 0.3 else first
