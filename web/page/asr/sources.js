// Where the files of a package are: chosen from the disk, at a URL, or kept in this browser. Each has `read(path, entry)`, which
// resolves to an ArrayBuffer, and `paths`, null where a source cannot list its files.

import { PageError } from "./errors.js";

export class FilesSource {
  /** files: of an <input webkitdirectory> or of a dropped folder: [{ path, file }]. */
  constructor(files) {
    const roots = files.filter(({ path }) => path.split("/").at(-1) === "config.json").map(({ path }) => path.slice(0, -11));
    this.root = roots.sort((a, b) => a.length - b.length)[0] ?? "";
    const inside = files.filter(({ path }) => path.startsWith(this.root));
    this._files = new Map(inside.map(({ path, file }) => [path.slice(this.root.length), file]));
    this.paths = [...this._files.keys()];
    this.place = "The folder";
  }

  async read(path) {
    const file = this._files.get(path);
    if (!file) throw missing(this.place, path);
    try {
      return await file.arrayBuffer();
    } catch (error) {
      throw unreadable(path, error);
    }
  }
}

export class UrlSource {
  /** url: of the package's folder, or of its page on the Hub. */
  constructor(url) {
    this.url = folderUrl(url);
    this.paths = null;
    this.place = this.url;
  }

  async read(path, { bytes = 0, progress = () => {} } = {}) {
    let response;
    try {
      response = await fetch(this.url + path, { credentials: "omit", referrerPolicy: "no-referrer" });
    } catch (error) {
      throw new PageError(`${this.url + path} cannot be reached.`, {
        expected: "a server that answers, and allows other sites to read it (CORS)",
        found: String(error.message ?? error),
        todo: "check the address and the network, or choose the folder from your disk",
      });
    }
    if (!response.ok) throw missing(this.url, path, `status ${response.status}`);
    if (!response.body || !bytes) return response.arrayBuffer();
    const parts = [];
    let count = 0;
    try {
      for (const reader = response.body.getReader(); ; ) {
        const { done, value } = await reader.read();
        if (done) break;
        parts.push(value);
        count += value.length;
        progress(count);
        if (count > bytes) break; // `checked` of package.js states it
      }
    } catch (error) {
      throw unreadable(path, error);
    }
    return new Blob(parts).arrayBuffer();
  }
}

export class KeptSource {
  /** manifest: of a package that the store keeps; Package.read finds its files there. */
  constructor(manifest) {
    this.manifest = manifest;
    this.paths = null;
  }

  async read(path) {
    throw new PageError(`${path} is not kept in this browser.`, {
      expected: "a variant that was loaded before",
      found: "another one, or one that the browser has removed to make room",
      todo: "open the package again from its folder or address",
    });
  }
}

/** Returns the address of a folder, with its slash. A page of the Hub stands for its files. */
export function folderUrl(text) {
  let url;
  try {
    url = new URL(text);
  } catch {
    url = null;
  }
  if (!url || !["https:", "http:"].includes(url.protocol)) {
    throw new PageError("That is no address of a package.", {
      expected: "https://, and the folder that has manifest.json",
      found: text.slice(0, 200) || "nothing",
      todo: "copy the address of the folder, or of the model's page on the Hub",
    });
  }
  const hub = url.hostname === "huggingface.co" && /^\/([^/]+\/[^/]+)(?:\/tree\/([^/]+))?\/?$/u.exec(url.pathname);
  if (hub) return `${url.origin}/${hub[1]}/resolve/${hub[2] ?? "main"}/`;
  const path = url.pathname.replace(/[^/]*\.json$/u, "");
  return url.origin + (path.endsWith("/") ? path : `${path}/`);
}

function missing(place, path, found = "no such file") {
  return new PageError(`${place} has no ${path}.`, {
    expected: "a package that nemoport made, in the layout native or web",
    found,
    todo: "choose the folder that has config.json and manifest.json",
  });
}

function unreadable(path, error) {
  return new PageError(`${path} could not be read to its end.`, {
    found: String(error.message ?? error),
    todo: "try again; if it stays, download the package again",
  });
}
