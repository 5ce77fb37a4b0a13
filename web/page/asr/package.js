// A package of nemoport, layout native or web, or a build: its manifest, its config, and the graphs of one variant, each file
// checked by size and sha256.

import { PageError } from "./errors.js";
import { readPieces } from "./spelling.js";

const LAYOUTS = ["native", "web"];
const ONNX = "onnxruntime";
const PARTS = ["encoder", "decoder"];
const MOST_FILE_BYTES = 2 ** 31 - 1; // what a browser gives in one piece
const AGAIN = "download the package again; `nemoport verify` checks one on the disk";

/** Opens the package of a source of sources.js. store: of store.js, or null. */
export async function openPackage(source, store = null) {
  const manifest = source.manifest ?? (await manifestOf(source));
  const files = new Map(manifest.files.map((file) => [file.path, file]));
  const found = new Package(source, store, manifest, files);
  found.config = checkedConfig(json(await found.read("config.json"), "config.json"));
  return found;
}

class Package {
  constructor(source, store, manifest, files) {
    // The files of a build are not kept: nothing would name them to be removed.
    Object.assign(this, { manifest, _source: source, _store: manifest.digest ? store : null, _files: files });
    this.name = manifest.name;
    this.variants = Object.keys(manifest.variants).map((name) => ({
      name,
      bytes: [...files.values()].filter(({ path }) => path.startsWith(`${name}/`)).reduce((sum, { bytes }) => sum + bytes, 0),
    }));
  }

  /** Reads a file: from the store, else from the source, checked either way. */
  async read(path, progress = () => {}) {
    const entry = this._files.get(path);
    if (!entry) return this._source.read(path); // the shared files of a build have no hashes
    const kept = await this._store?.read(entry.sha256);
    if (kept) {
      if (!(await problemOf(entry, kept))) return kept;
      await this._store.remove(entry.sha256); // it was not written to its end
    }
    const buffer = await this._source.read(path, { bytes: entry.bytes, progress });
    const problem = await problemOf(entry, buffer);
    if (problem) throw problem;
    await this._store?.write(entry.sha256, buffer);
    return buffer;
  }

  /** Whether a file is there: a build lists none of those that it shares. */
  has(path) {
    return this._files.has(path) || Boolean(this._source.paths?.includes(path));
  }

  /** Reads what all variants share: { filterbank, vocabulary }. */
  async shared() {
    const bytes = await this.read("shared/filterbank.bin");
    const text = async (path) => new TextDecoder().decode(await this.read(path));
    const spelling = this.has("shared/spelling.json") ? await text("shared/spelling.json") : null;
    const vocabulary = readPieces(await text("shared/tokens.txt"), spelling);
    return { filterbank: new Float32Array(bytes), vocabulary };
  }

  /** Reads a variant: { config, encoder, decoder }. progress(bytes, all): is called as they come. */
  async variant(name, progress = () => {}) {
    const paths = [...this._files.keys()].filter((path) => path.startsWith(`${name}/`));
    const all = paths.reduce((sum, path) => sum + this._files.get(path).bytes, 0);
    if (!paths.length) throw wrongVariant(name, this.variants);
    for (const path of paths) checkSize(this._files.get(path));
    let done = 0;
    const read = async (path) => {
      const buffer = await this.read(path, (bytes) => progress(done + bytes, all));
      done += buffer.byteLength;
      progress(done, all);
      return buffer;
    };
    const model = { config: this.config };
    for (const part of PARTS) {
      const graph = `${name}/${part}_model.onnx`;
      const data = [];
      for (const path of paths.filter((one) => one.startsWith(`${graph}.data`)).sort()) {
        data.push({ path: path.slice(name.length + 1), data: new Uint8Array(await read(path)) });
      }
      model[part] = { graph: new Uint8Array(await read(graph)), data };
    }
    await this._store?.remember(this.manifest);
    return model;
  }
}

/** Reads manifest.json; of a build the manifests of its variants. */
async function manifestOf(source) {
  const { paths } = source;
  if (!paths || paths.includes("manifest.json")) return checkedManifest(json(await source.read("manifest.json"), "manifest.json"));
  const own = paths.filter((path) => /^[^/]+\/manifest\.json$/u.test(path));
  if (!paths.includes("config.json") || !own.length) {
    throw new PageError("The folder is no package.", {
      expected: "config.json and manifest.json, and a folder for each variant",
      found: paths.slice(0, 5).join(", ") || "nothing",
      todo: "choose the package's own folder; make one with `nemoport package`",
    });
  }
  const manifest = { name: json(await source.read("config.json"), "config.json").checkpoint?.name ?? "", variants: {}, files: [] };
  for (const path of own) {
    const { variant, files, recipe } = json(await source.read(path), path);
    const onlyParent = /(^|-)smoothed$/u.test(variant); // others are made of it, and nobody runs it
    if (onlyParent || !files || (recipe?.parameters?.target ?? ONNX) !== ONNX) continue;
    manifest.variants[variant] = {};
    manifest.files.push(...Object.values(files).map((file) => ({ ...file, path: `${variant}/${file.path}` })));
  }
  return manifest;
}

function checkedManifest(manifest) {
  const { layout, files, variants } = manifest;
  if (!Array.isArray(files) || !variants || !LAYOUTS.includes(layout)) {
    throw new PageError("This package has another layout.", {
      expected: `the layout ${LAYOUTS.join(" or ")}`,
      found: layout ? `the layout ${layout}` : "a manifest.json that is none of nemoport's",
      todo: "make it again with `nemoport package --layout web`",
    });
  }
  return manifest;
}

function checkSize({ path, bytes }) {
  if (bytes <= MOST_FILE_BYTES) return;
  throw new PageError(`${path} is too large for a browser.`, {
    expected: "files below 2 GB",
    found: `${(bytes / 1e9).toFixed(1)} GB`,
    todo: "take a smaller variant, or make the package again with `nemoport package --layout web`, which divides large files",
  });
}

function checkedConfig(config) {
  const { spec, encoder } = config;
  if (!spec?.frontend || !spec.decoding || !encoder || !(config.decoder || config.ctc)) {
    throw new PageError("config.json is none of a package.", {
      expected: "spec, encoder, and decoder or ctc",
      found: Object.keys(config).slice(0, 8).join(", "),
      todo: AGAIN,
    });
  }
  return config;
}

async function problemOf({ path, bytes, sha256 }, buffer) {
  if (buffer.byteLength !== bytes) {
    const [expected, found] = [`${bytes} bytes`, `${buffer.byteLength} bytes`];
    return new PageError(`${path} is ${buffer.byteLength < bytes ? "cut off" : "too long"}.`, { expected, found, todo: AGAIN });
  }
  const found = await sha256Of(buffer);
  if (found === sha256) return null;
  return new PageError(`${path} is not the file of the manifest.`, { expected: `sha256 ${sha256}`, found, todo: AGAIN });
}

async function sha256Of(buffer) {
  if (!globalThis.crypto?.subtle) {
    throw new PageError("This page cannot check what it loads.", {
      expected: "a secure page: https, or localhost",
      found: globalThis.location?.origin ?? "no crypto.subtle",
      todo: "open it over https, or serve it on this machine with `make web`",
    });
  }
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", buffer));
  return Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

function json(buffer, path) {
  try {
    const value = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(buffer));
    if (value && typeof value === "object") return value;
  } catch {
    // states the same
  }
  throw new PageError(`${path} cannot be read.`, { expected: "JSON, in UTF-8", found: "something else", todo: AGAIN });
}

function wrongVariant(name, variants) {
  return new PageError(`The package has no variant ${name}.`, {
    expected: variants.map((one) => one.name).join(", "),
    found: name,
    todo: "choose one of these",
  });
}
