"""Audio files as samples in blocks: by libsndfile, by ffmpeg what that cannot read, and WAV whose length was never written."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import numpy as np

from nemoport.errors import AudioError
from nemoport.wav import MAGICS, WavReader, skip_by_reading

FORMATS = "a WAV, FLAC, OGG (Vorbis, Opus), MP3 or other file that libsndfile reads"
UNKNOWN_FRAMES = 1 << 62  # from which on libsndfile means that it does not know
CONTAINERS = {  # (place, first bytes) -> what libsndfile does not read, and ffmpeg does
    (4, b"ftyp"): "MPEG-4 (m4a, mp4, mov, 3gp)",
    (0, b"\x1a\x45\xdf\xa3"): "Matroska (webm, mkv)",
    (0, b"#!AMR"): "AMR",
    (0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11"): "ASF (wma, wmv)",
    (8, b"AVI "): "AVI",
    (0, b"FLV\x01"): "Flash video",
    (0, b"\x00\x00\x01\xba"): "MPEG video",
    (0, b"ADIF"): "AAC",
    (0, b"MAC "): "Monkey's Audio",
    (0, b"wvpk"): "WavPack",
    (0, b"TTA1"): "TTA",
    (0, b".RMF"): "RealMedia",
    (0, b"DSD "): "DSF",
}
# No playlist, which could name other files, and nothing that makes sound out of text.
_DEMUXERS = (
    "aac,ac3,aiff,amr,amrnb,amrwb,ape,asf,au,avi,caf,dsf,dts,eac3,flac,flv,matroska,webm,mov,mp4,m4a,3gp,3g2,mj2,mp3,mpeg,mpegts,"
    "ogg,rm,tta,w64,wav,wv"
)


class Sound(Protocol):
    """Samples of a file, of all channels, at its own rate. frames: their number for each channel, None where it is unknown."""

    rate_hz: int
    channels: int
    frames: int | None

    def read(self, n: int) -> np.ndarray:
        """Returns the next f32 [n, channels], full scale 1.0, or fewer; none only at the end. Raises AudioError."""
        ...

    def skip(self, n: int) -> int:
        """Goes on by n samples, or to the end if that comes before, and returns by how many. Raises AudioError."""
        ...

    def close(self) -> None:
        """Closes the file."""
        ...


def open_sound(path: Path) -> Sound:
    """Opens a file. Raises AudioError for what is no file, no audio, or for ffmpeg, which is not installed."""
    import soundfile

    if not path.is_file():
        raise AudioError(
            f"There is no audio file at {path}.",
            expected=FORMATS,
            found="a folder" if path.is_dir() else "nothing" if not path.exists() else "neither file nor folder",
            todo="check the path; in a manifest, paths are relative to the manifest's folder",
        )
    try:
        sound = _Libsndfile(path)
    # An error of libsndfile; a .raw without a header; an absurd length in a damaged header.
    except (soundfile.SoundFileError, TypeError, ValueError, MemoryError) as error:
        return _by_ffmpeg(path, error)
    if not sound.frames and path.open("rb").read(4) in MAGICS:
        with suppress(AudioError):
            return WavReader(path.open("rb").read, str(path))
    return sound


def container_of(head: bytes) -> str | None:
    """Returns what ffmpeg reads and libsndfile does not, by the first bytes of a file."""
    for (at, magic), name in CONTAINERS.items():
        if head[at:].startswith(magic):
            return name
    adts = len(head) > 1 and head[0] == 0xFF and head[1] & 0xF6 == 0xF0
    transport = head[:1] == b"G" and head[188:189] == b"G"
    return "AAC" if adts else "MPEG transport stream" if transport else None


def unreadable(path: Path, found: object, todo: str = "convert it, for example with `ffmpeg -i in out.wav`") -> AudioError:
    """Returns the error for a file that is no audio, or is damaged."""
    what = f"{path} cannot be read as audio."
    return AudioError(what, expected=FORMATS, found=f"{path.stat().st_size} bytes; {found}", todo=todo)


class _Libsndfile:
    def __init__(self, path: Path):
        import soundfile

        class Sequential(soundfile.SoundFile):
            def seekable(self) -> bool:
                """Blocks are read one after another: soundfile would seek behind each, which fails in a FLAC from a pipe."""
                return False

        # soundfile takes no text that the file system's encoding does not have; bytes it does, but on Windows.
        self._file = Sequential(path if os.name == "nt" else os.fsencode(path))  # pyright: ignore[reportArgumentType]
        self._can_seek = super(Sequential, self._file).seekable()
        self._path, self.rate_hz, self.channels = path, self._file.samplerate, self._file.channels
        self.frames = self._file.frames if self._file.frames < UNKNOWN_FRAMES else None

    def read(self, n: int) -> np.ndarray:
        import soundfile

        try:
            return self._file.read(n, dtype="float32", always_2d=True)
        except (soundfile.SoundFileError, MemoryError) as error:
            raise unreadable(self._path, error) from error

    def skip(self, n: int) -> int:
        if self.frames is None or not self._can_seek:  # GSM and some ADPCM
            return skip_by_reading(self.read, n)
        self._file.seek(n := min(n, self.frames))
        return n

    def close(self) -> None:
        self._file.close()


def _by_ffmpeg(path: Path, error: Exception) -> Sound:
    """Opens a file that libsndfile refused with `error`. Raises AudioError."""
    with path.open("rb") as file:
        kind = container_of(file.read(200))
    if kind is None:
        raise unreadable(path, error) from error
    if not shutil.which("ffmpeg"):
        todo = "install ffmpeg, or convert the file where it is installed: `ffmpeg -i in out.wav`"
        raise unreadable(path, f"{kind}, which ffmpeg reads; there is no ffmpeg here", todo) from error
    return _Ffmpeg(path)


class _Ffmpeg(WavReader):
    """The first audio stream of a file, as ffmpeg decodes it."""

    def __init__(self, path: Path):
        self._path, self._errors = path, tempfile.TemporaryFile()  # noqa: SIM115  # open as long as the process writes
        command = ["ffmpeg", "-nostdin", "-v", "error", "-protocol_whitelist", "file,pipe", "-format_whitelist", _DEMUXERS]
        command += ["-i", f"file:{path}", "-map", "0:a:0", "-c:a", "pcm_f32le", "-f", "wav", "-"]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=self._errors)
        assert self._process.stdout
        try:
            super().__init__(self._process.stdout.read, str(path))
        except AudioError as error:
            self.close()
            raise self._failed() from error

    def read(self, n: int) -> np.ndarray:
        samples = super().read(n)
        if len(samples) < n and self._process.wait():
            raise self._failed()
        return samples

    def close(self) -> None:
        self._process.kill()
        self._process.wait()

    def _failed(self) -> AudioError:
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        return unreadable(self._path, f"ffmpeg: {lines[-1] if lines else 'nothing'}")

    def __del__(self):
        if hasattr(self, "_process"):
            self.close()
