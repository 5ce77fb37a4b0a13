// The words on the page: final and tentative ones, times on hover, playback from a word, by mouse and by keyboard.

import { segmentsOf } from "../asr/words.js";

export class Transcript {
  constructor({ box, final, tentative, spoken, player }) {
    Object.assign(this, { _box: box, _final: final, _tentative: tentative, _spoken: spoken, _player: player });
    this.clear();
    box.addEventListener("click", (event) => this._play(event.target.closest(".word")));
    box.addEventListener("keydown", (event) => this._key(event));
    player.addEventListener("timeupdate", () => this._follow(player.currentTime));
  }

  clear() {
    this.words = [];
    this._current = -1;
    for (const part of [this._final, this._tentative, this._spoken]) part.textContent = "";
  }

  /** Adds words that are final, and shows the one that may go on. */
  add(words, tentative) {
    for (const word of words) {
      const place = document.createElement("span");
      place.className = "word";
      place.textContent = word.text;
      place.title = `${word.start.toFixed(2)} – ${word.end.toFixed(2)} s`;
      this._final.append(place, " ");
      this.words.push({ ...word, place });
    }
    this._tentative.textContent = tentative;
    if (!words.length) return;
    const news = document.createElement("p");
    news.textContent = words.map(({ text }) => text).join(" ");
    this._spoken.append(news);
    this._box.scrollTop = this._box.scrollHeight;
  }

  /** The text, a sentence a line. */
  get text() {
    return segmentsOf(this.words, 1)
      .map((words) => words.map(({ text }) => text).join(" "))
      .join("\n");
  }

  _play(place) {
    const index = this.words.findIndex((word) => word.place === place);
    if (index < 0) return;
    this._mark(index);
    if (!this._player.src) return;
    this._player.currentTime = this.words[index].start;
    this._player.play().catch(() => {});
  }

  _key(event) {
    const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: 10, ArrowUp: -10 }[event.key];
    if (step && this.words.length) {
      event.preventDefault();
      this._mark(Math.max(0, Math.min(this.words.length - 1, this._current + step)));
      this.words[this._current].place.scrollIntoView({ block: "nearest" });
    } else if (event.key === "Enter" && this._current >= 0) {
      this._play(this.words[this._current].place);
    }
  }

  _mark(index) {
    this.words[this._current]?.place.classList.remove("current");
    this._current = index;
    this.words[index]?.place.classList.add("current");
    const { text, start } = this.words[index] ?? { text: "", start: 0 };
    this._box.setAttribute("aria-description", text && `${text}, at ${start.toFixed(1)} seconds`);
  }

  _follow(time) {
    const index = this.words.findIndex(({ start, end }) => time >= start && time < end + 0.1);
    if (index >= 0) this._mark(index);
  }
}
