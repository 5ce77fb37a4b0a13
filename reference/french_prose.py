"""Ordinary French: made-up sentences of common words, with their genders and elisions.

The French counterpart of ``ordinary``. ``%`` stands for a space inside one entry of a list. No noun here begins with an
aspirated h, so a first letter decides every elision.
"""

from __future__ import annotations

import random

from . import written

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


def noun_phrase(rng: random.Random) -> str:
    """Draws an article or possessive with a noun, some with an adjective."""
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
    """Draws one clause, lower-case, elisions not yet made."""
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


def sentence(rng: random.Random) -> str:
    """Draws one or two clauses of plain prose, lower-case; about one in ten is a question."""
    line = clause(rng)
    if rng.random() < 0.3:
        line = f"{line} {rng.choice(LINKS)} {clause(rng)}".replace(" ,", ",")
    elif rng.random() < 0.15:
        line = f"est-ce que {line}?"
    return written.elided(line.replace("%", " "))
