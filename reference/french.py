"""French sentences for the reference recipe, written as French is: a grammar, plain prose, words, transcripts.

As in ``text``, a tenth of the grammar sentences, by hash, and the starred words of ``text/fr_unseen_*.txt`` are kept
from training. No noun here begins with an aspirated h, so a first letter decides every elision.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator

from . import text, written

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

NOUNS_M = """ami homme enfant garçon père fils mari oncle grand-père voisin roi prince soldat capitaine chasseur peintre
chanteur cuisinier juge avocat prêtre chien chat cheval cochon mouton loup ours oiseau canard aigle serpent poisson lion singe
arbre fruit raisin citron champignon blé œuf sucre sel poivre miel jus vin vent orage nuage ciel soleil matin soir été hiver
automne printemps lac étang ruisseau sable rocher bois champ chemin pont coin mur toit sol escalier rideau lit coussin feu four
bol verre panier seau marteau clou savon manteau chapeau soulier gant bouton pull cuir papier crayon tableau journal billet prix
cadeau jouet ballon jeu tambour piano train camion bateau avion moteur métal fer plastique château palais hôpital hôtel musée
magasin moulin visage œil nez cou bras doigt dos genou pied sang rêve mot nombre mois an anniversaire repas dîner secret danger
voyage problème exercice village quartier monde temps travail argent film pays bruit silence côté bord""".split()
NOUNS_F = """femme fille mère amie tante grand-mère voisine reine princesse danseuse actrice avocate foule famille vache chèvre
souris abeille fourmi baleine fleur herbe feuille branche racine graine pomme poire cerise pêche carotte pomme%de%terre viande
salade bière glace neige pluie tempête lune étoile nuit soirée saison colline vallée île côte vague pierre grotte route rue
maison barrière cheminée couverture bougie fumée assiette tasse bouteille fourchette cuillère corde chaîne brosse serviette
chemise robe jupe ceinture bague poche aiguille laine page histoire chanson image carte revue pièce banque poupée équipe course
cloche guitare voiture moto roue machine tour prison église usine boulangerie ferme tête oreille bouche dent langue épaule main
jambe poitrine peau voix idée question réponse lettre heure minute semaine année fête guerre paix loi vérité erreur aventure
leçon place eau terre vie""".split()
ADJECTIVES = """grand/grande petit/petite long/longue court/courte lourd/lourde léger/légère vieux/vieille nouveau/nouvelle
bon/bonne mauvais/mauvaise gentil/gentille calme/calme heureux/heureuse triste/triste fort/forte faible/faible rapide/rapide
lent/lente chaud/chaude froid/froide dur/dure doux/douce sombre/sombre clair/claire propre/propre sale/sale vide/vide plein/pleine
riche/riche pauvre/pauvre rouge/rouge vert/verte bleu/bleue blanc/blanche noir/noire simple/simple difficile/difficile
facile/facile beau/belle joli/jolie rond/ronde carré/carrée profond/profonde haut/haute bas/basse important/importante
sérieux/sérieuse curieux/curieuse ancien/ancienne étrange/étrange célèbre/célèbre dangereux/dangereuse tranquille/tranquille
""".split()
# participle, third person of the present, infinitive
VERBS = """vu/voit/voir trouvé/trouve/trouver pris/prend/prendre apporté/apporte/apporter porté/porte/porter tenu/tient/tenir
lancé/lance/lancer poussé/pousse/pousser tiré/tire/tirer ouvert/ouvre/ouvrir fermé/ferme/fermer cassé/casse/casser
réparé/répare/réparer construit/construit/construire peint/peint/peindre nettoyé/nettoie/nettoyer lavé/lave/laver
coupé/coupe/couper mangé/mange/manger bu/boit/boire goûté/goûte/goûter entendu/entend/entendre regardé/regarde/regarder
suivi/suit/suivre rencontré/rencontre/rencontrer aidé/aide/aider appelé/appelle/appeler montré/montre/montrer
donné/donne/donner vendu/vend/vendre acheté/achète/acheter payé/paie/payer volé/vole/voler perdu/perd/perdre gardé/garde/garder
caché/cache/cacher rempli/remplit/remplir aimé/aime/aimer oublié/oublie/oublier compris/comprend/comprendre
connu/connaît/connaître lu/lit/lire écrit/écrit/écrire dessiné/dessine/dessiner
chanté/chante/chanter gagné/gagne/gagner quitté/quitte/quitter
visité/visite/visiter traversé/traverse/traverser touché/touche/toucher choisi/choisit/choisir changé/change/changer
compté/compte/compter reçu/reçoit/recevoir attendu/attend/attendre cherché/cherche/chercher laissé/laisse/laisser
préparé/prépare/préparer servi/sert/servir utilisé/utilise/utiliser demandé/demande/demander""".split()
MOVES = """est%parti est%arrivé est%tombé est%resté est%venu a%marché a%couru a%sauté a%souri a%pleuré a%crié a%parlé a%dormi
a%travaillé a%nagé a%attendu vit travaille dort habite reste joue marche""".split()
PLACE_WORDS = "dans sur sous devant derrière avec sans pour contre chez vers après avant".split()
ADVERBS = """toujours souvent jamais encore déjà bientôt lentement rapidement doucement ensemble ici dehors demain hier
maintenant beaucoup trop peu bien mal tard""".split()
HAVE = ("j'ai", "tu as", "il a", "elle a", "on a", "nous avons", "vous avez", "ils ont", "elles ont")
MODALS = (
    "je veux",
    "je dois",
    "je peux",
    "tu peux",
    "tu dois",
    "il veut",
    "elle doit",
    "on peut",
    "nous allons",
    "nous voulons",
    "vous pouvez",
    "vous devez",
    "ils vont",
    "ils veulent",
    "elle va",
    "il faut",
    "je vais",
    "je ne veux pas",
    "il ne peut pas",
    "nous ne devons pas",
)
LINKS = ("et", ", mais", "parce que", "quand", ", donc", "car", "pendant que")
LITTLE = (
    "le la les un une des et de à il elle je tu nous vous ils que qui ne pas est sont a ont dans sur avec pour par plus "
    "tout mais ou où si comme très"
).split()
RARE_ENDINGS = re.compile(
    "(ass(e|es|ent|iez|ions)|[uie]ss(es|iez|ions)|[âîû](mes|tes|t)|[aiu]s|èrent|[iu]rent|eraient|erions|eriez)$"
)


def elided(line: str) -> str:
    """le, la, de, que, je, ce before a vowel or h lose theirs; parce que il becomes parce qu'il."""
    line = re.sub(r"\b([Ll]|[Dd]|[Qq]u|[Jj]|[Nn])(?:e|a) (?!onze)(?=[aeiouhàâéèêîôœ])", r"\1'", line)
    line = re.sub(r"\bde le ", "du ", re.sub(r"\bde les ", "des ", line))
    return re.sub(r"\bà le ", "au ", re.sub(r"\bà les ", "aux ", line))


def number_words(rng: random.Random) -> str:
    kind = rng.random()
    if kind < 0.3:
        return rng.choice(DIGITS[2:])
    if kind < 0.55:
        return rng.choice(TEENS)
    unit = rng.choice(DIGITS[1:])
    tens = rng.choice(TENS)
    small = f"{tens} et un" if unit == "un" else f"{tens}-{unit}"
    return small if kind < 0.85 else f"{rng.choice(DIGITS[2:])} cent {small}"


def grammar_sentence(rng: random.Random) -> str:
    """One sentence of the grammar, lower-case but for names, without its final full stop."""

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
    return elided(re.sub(r"{(\w+)}", lambda slot: fill[slot[1]](), rng.choice(TEMPLATES)).replace("%", " "))


def noun_phrase(rng: random.Random) -> str:
    feminine = rng.random() < 0.5
    noun = rng.choice(NOUNS_F if feminine else NOUNS_M)
    kind = rng.random()
    if kind < 0.5:
        article = "la" if feminine else "le"
    elif kind < 0.75:
        article = "une" if feminine else "un"
    else:  # mon amie: before a vowel the masculine form stands for both
        own = ("ma ta sa" if feminine and noun[0] not in "aeiouhàâéèêîôœ" else "mon ton son").split()
        article = rng.choice([*own, "notre", "votre", "leur", "chaque"])
    phrase = f"{article} {noun}"
    return f"{phrase} {rng.choice(ADJECTIVES).split('/')[feminine]}" if rng.random() < 0.3 else phrase


def clause(rng: random.Random) -> str:
    participle, present, infinitive = rng.choice(VERBS).split("/")
    place = f" {rng.choice(PLACE_WORDS)} {noun_phrase(rng)}" if rng.random() < 0.5 else ""
    kind = rng.random()
    if kind < 0.25:
        return f"{rng.choice(HAVE)} {participle} {noun_phrase(rng)}{place}"
    if kind < 0.4:
        return f"{noun_phrase(rng)} {present} {noun_phrase(rng)}{place}"
    if kind < 0.5:
        return f"{noun_phrase(rng)} a {participle} {noun_phrase(rng)}"
    if kind < 0.7:
        return f"{rng.choice(MODALS)} {infinitive} {noun_phrase(rng)}{place}"
    if kind < 0.8:
        return f"il {rng.choice(MOVES)}{place or ' ' + rng.choice(ADVERBS)}"
    if kind < 0.9:
        feminine = rng.random() < 0.5
        return (
            f"{'la' if feminine else 'le'} {rng.choice(NOUNS_F if feminine else NOUNS_M)} {rng.choice(('est', 'était'))} "
            f"{rng.choice(('', 'très ', 'trop ', 'plus '))}{rng.choice(ADJECTIVES).split('/')[feminine]}"
        )
    return f"il y a {noun_phrase(rng)}{place}"


def ordinary_sentence(rng: random.Random) -> str:
    """One or two clauses of plain prose; one in eight a question."""
    line = clause(rng)
    if rng.random() < 0.3:
        line = f"{line} {rng.choice(LINKS)} {clause(rng)}".replace(" ,", ",")
    elif rng.random() < 0.15:
        line = f"est-ce que {line}?"
    return elided(line.replace("%", " "))


def held_out_words() -> frozenset[str]:
    """Starred words of both unseen files and simple inflections, in spoken form."""
    lines = "\n".join(path.read_text() for path in sorted(text.TEXT_FOLDER.glob("fr_unseen_*.txt")))
    words = {written.spoken(word) for word in re.findall(rf"\*([{written.LETTERS}{written.CAPITALS}]+)", lines)}
    stems = words | {word[:-1] for word in words if word[-1] in "sx"}
    return frozenset(stem + ending for stem in stems for ending in ("", "s", "x", "e", "es"))


def unseen_sentences(name: str) -> list[str]:
    return [line.replace("*", "") for line in (text.TEXT_FOLDER / f"fr_unseen_{name}.txt").read_text().splitlines()]


def grammar_held_out(sentence: str) -> bool:
    return text.grammar_held_out(written.spoken(sentence))


def trainable(sentence: str, held_out: frozenset[str]) -> bool:
    """Whether a written sentence holds no held-out word and is no held-out grammar sentence."""
    words = re.sub("'", " ", written.spoken(sentence)).split()
    return not held_out.intersection(words) and not grammar_held_out(sentence)


def grammar_sentences(seed: str, held_out: bool) -> Iterator[str]:
    """Endless written grammar sentences of one side of the split."""
    rng = random.Random(f"french grammar {seed}")
    while True:
        sentence = written.tidy(grammar_sentence(rng))
        if grammar_held_out(sentence) == held_out:
            yield sentence


class TextSource:
    """Draws written training sentences; ``words`` are dictionary words, ``transcripts`` tidied sentences."""

    def __init__(self, words: list[str], transcripts: list[str], seed: str):
        self.held_out = held_out = held_out_words()
        self.rng = random.Random(f"french corpus {seed}")
        self.grammar = grammar_sentences(f"train {seed}", held_out=False)
        self.transcripts = sorted({line for line in transcripts if trainable(line, held_out)})
        self.known = sorted(
            {word for line in NOUNS_M + NOUNS_F for word in line.split("%")}
            | {word for line in self.transcripts for word in written.spoken(line).split()}
        )
        self.words = (
            sorted(
                {word for word in words if re.fullmatch(f"[{written.LETTERS}]{{3,12}}", word) and not RARE_ENDINGS.search(word)}
                - held_out
            )
            or self.known
        )

    def word(self) -> str:
        kind = self.rng.random()
        return self.rng.choice(LITTLE if kind < 0.35 else self.known if kind < 0.65 else self.words)

    def sentence(self) -> str:
        kind = self.rng.random()
        if kind < 0.3:
            return next(self.grammar)
        if kind < 0.62:
            return ordinary_sentence(self.rng)
        if kind < 0.72:
            return " ".join(self.rng.choice(self.words) for _ in range(self.rng.randint(1, 3)))
        if kind < 0.8 and self.transcripts:
            return self.rng.choice(self.transcripts)
        return " ".join(self.word() for _ in range(self.rng.randint(3, 10)))

    def draw(self) -> str:
        """One written sentence of at most 20 words, free of whatever is held out."""
        while True:
            line = written.tidy(self.sentence())
            if line and trainable(line, self.held_out) and len(line.split()) <= 20:
                return line
