"""French grammar sentences for the reference recipe: templates of numbers, things, rooms, days, weather and people.

The French counterpart of the grammar in ``text``. ``%`` stands for a space inside one entry of a list. No noun here begins
with an aspirated h, so a first letter decides every elision.
"""

from __future__ import annotations

import random
import re

from . import written

DIGITS = "zéro un deux trois quatre cinq six sept huit neuf".split()
TEENS = "dix onze douze treize quatorze quinze seize dix-sept dix-huit dix-neuf".split()
TENS = "vingt trente quarante cinquante soixante".split()
PEOPLE = "Anne Marc Claire David Emma Louis Marie Paul Julie Thomas mon%frère ma%sœur le%docteur la%voisine".split()
ROOMS = (
    "la%cuisine la%chambre la%salle%de%bain le%jardin le%bureau le%couloir le%garage l'école la%bibliothèque la%gare "
    "l'église le%marché"
).split()
THINGS_M = "livre stylo téléphone ventilateur réveil courrier sac miroir tapis couteau chapeau vélo".split()
THINGS_F = "lampe porte fenêtre radio télévision clé lettre boîte table chaise montre valise".split()
COLORS = (
    "rouge rouge",
    "vert verte",
    "bleu bleue",
    "jaune jaune",
    "blanc blanche",
    "noir noire",
    "gris grise",
    "brun brune",
    "petit petite",
    "grand grande",
)
DAYS = "lundi mardi mercredi jeudi vendredi samedi dimanche".split()
WHEN = DAYS + ["aujourd'hui", "demain", "ce%soir", "demain%matin"]
MONTHS = "janvier février mars avril mai juin juillet août septembre octobre novembre décembre".split()
FOODS = (
    "du%pain",
    "du%beurre",
    "du%fromage",
    "des%pommes",
    "du%café",
    "du%thé",
    "du%lait",
    "de%la%soupe",
    "du%riz",
    "du%poisson",
    "des%oranges",
    "de%l'eau",
)
PLACES = ("Paris Lyon Marseille Genève Bruxelles la%rivière la%montagne l'aéroport la%plage la%ville la%forêt la%mer").split()
WEATHER = "beau froid chaud gris doux".split()
ACTIONS = "ouvrir fermer trouver apporter nettoyer porter prendre garder vendre acheter".split()

TEMPLATES = (
    "{digits}",
    "mon numéro est le {digits}",
    "le code est {digits}",
    "appelle {person} au {digits}",
    "allume {thing} dans {room}",
    "éteins {thing} dans {room}",
    "il faut {action} {colored}",
    "{action} {thing}",
    "{person} va {action} {colored} {when}",
    "règle le réveil sur {number}",
    "réveille-moi à {time} {when}",
    "il va faire {weather} à {city} {when}",
    "est-ce qu'il fait {weather} à {city}?",
    "{person} voudrait {food} et {food}",
    "ajoute {food} et {food} à la liste",
    "le train pour {city} part à {time}",
    "combien de kilomètres y a-t-il entre {place} et {place}?",
    "le {number} {month} est un {day}",
    "rappelle à {person} d'acheter {food} {when}",
    "à quelle heure ouvre {room} {when}?",
    "il y a {number} personnes dans {room}",
    "{person} et {person} sont partis {when} avec {number} valises",
    "mets {colored} à côté de {thing} dans {room}",
    "joue la chanson numéro {number}",
    "oui",
    "non",
    "arrête",
    "merci",
    "bonjour {person}",
    "{number} plus {number} font {number}",
    "où est {thing}?",
    "qui a pris {colored}?",
)


def number_words(rng: random.Random) -> str:
    """Draws a number from two upwards, as words."""
    kind = rng.random()
    if kind < 0.3:
        return rng.choice(DIGITS[2:])
    if kind < 0.55:
        return rng.choice(TEENS)
    unit = rng.choice(DIGITS[1:])
    tens = rng.choice(TENS)
    small = f"{tens} et un" if unit == "un" else f"{tens}-{unit}"
    return small if kind < 0.85 else f"{rng.choice(DIGITS[2:])} cent {small}"


def sentence(rng: random.Random) -> str:
    """Draws one sentence of the grammar, lower-case but for names, without its final full stop."""

    def thing() -> str:
        return rng.choice((f"le {rng.choice(THINGS_M)}", f"la {rng.choice(THINGS_F)}"))

    def colored() -> str:
        color = rng.choice(COLORS).split()
        before = color[0] in ("petit", "grand")
        feminine = rng.random() < 0.5
        noun, adjective = rng.choice(THINGS_F if feminine else THINGS_M), color[feminine]
        return ("la " if feminine else "le ") + (f"{adjective} {noun}" if before else f"{noun} {adjective}")

    fill = dict(
        person=lambda: rng.choice(PEOPLE),
        room=lambda: rng.choice(ROOMS),
        thing=thing,
        colored=colored,
        day=lambda: rng.choice(DAYS),
        when=lambda: rng.choice(WHEN),
        city=lambda: rng.choice(PLACES[:5]),
        month=lambda: rng.choice(MONTHS),
        food=lambda: rng.choice(FOODS),
        place=lambda: rng.choice(PLACES),
        weather=lambda: rng.choice(WEATHER),
        action=lambda: rng.choice(ACTIONS),
        number=lambda: number_words(rng),
        digits=lambda: " ".join(rng.choices(DIGITS, k=rng.randint(1, 8))),
        time=lambda: f"{rng.choice(DIGITS[2:] + TEENS[:3])} heures {rng.choice(['trente', 'quinze', 'vingt', 'dix'])}",
    )
    return written.elided(re.sub(r"{(\w+)}", lambda slot: fill[slot[1]](), rng.choice(TEMPLATES)).replace("%", " "))
