"""A server: POST /transcribe takes an audio file, the WebSocket /live takes 16-bit samples and gives text as it becomes final.

    pip install 'nemoport[examples]'
    NEMOPORT_VARIANT=dist/streaming-en/kv-int8-weight uvicorn server:app

The model is opened once. Each live client has a stream of its own; chunks are transcribed one at a time, in a thread, so that the
server goes on taking packets. `nemoport serve` is the whole one: streams that share batches, limits, tokens, see docs/serving.md.
"""

import asyncio
import os
import tempfile
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
from fastapi import FastAPI, HTTPException, UploadFile, WebSocket, WebSocketDisconnect

from nemoport import Recognizer
from nemoport.errors import AudioError

LARGEST_BYTES = 100 * 2**20  # of an uploaded file


@asynccontextmanager
async def opened(app: FastAPI):
    app.state.recognizer = Recognizer.open(os.environ["NEMOPORT_VARIANT"], threads=1)
    app.state.turn = asyncio.Lock()
    yield


app = FastAPI(title="nemoport", lifespan=opened)


async def in_turn(function, *arguments):
    """Runs a call of the recognizer in a thread, one at a time."""
    async with app.state.turn:
        return await asyncio.to_thread(function, *arguments)


@app.post("/transcribe")
async def transcribe(file: UploadFile):
    """Returns the text of an audio file, and its words with times in seconds and confidence."""
    content = await file.read(LARGEST_BYTES + 1)
    if len(content) > LARGEST_BYTES:
        raise HTTPException(413, "the file is too large")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "upload" + Path(file.filename or "").suffix)
        path.write_bytes(content)
        try:
            found = await in_turn(app.state.recognizer.transcribe_file, path)
        except AudioError as error:
            raise HTTPException(422, error.what) from error
    words = [{"text": w.text, "start": w.start, "end": w.end, "confidence": w.confidence} for w in found.words]
    return {"text": found.text, "seconds": found.audio_seconds, "words": words}


@app.websocket("/live")
async def live(socket: WebSocket):
    """Takes packets of 16-bit mono samples at the model's rate, of any size; an empty packet ends the stream. Sends the text of
    each packet that made any final, and "" at the end."""
    await socket.accept()
    recognizer = app.state.recognizer
    stream, spelling = recognizer.stream(), recognizer.spelling()
    rest = b""
    try:
        while packet := await socket.receive_bytes():
            rest += packet
            even = len(rest) - len(rest) % 2  # a packet may end within a sample
            samples, rest = np.frombuffer(rest[:even], "<i2").astype(np.float32) / 2**15, rest[even:]
            if text := spelling.feed(await in_turn(stream.feed, samples)):
                await socket.send_text(text)
        text = spelling.feed(await in_turn(stream.finish)) + spelling.finish()
        if text:
            await socket.send_text(text)
        await socket.send_text("")
        await socket.close()
    except WebSocketDisconnect:
        pass  # the client is gone, and its stream with it
