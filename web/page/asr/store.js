// Files kept in this browser (origin private file system), each under its sha256, and the packages that they are of.

const FOLDER = "nemoport";
const INDEX = "packages.json";

/** Opens the store; null where the browser has none. For a worker: a page cannot write files everywhere. */
export async function openStore() {
  try {
    const root = await navigator.storage.getDirectory();
    return new Store(await root.getDirectoryHandle(FOLDER, { create: true }));
  } catch {
    return null; // an old browser, or a private window
  }
}

export class Store {
  constructor(folder) {
    this._folder = folder;
  }

  /** Returns an ArrayBuffer, null where the file is not kept. */
  async read(name) {
    try {
      return await (await (await this._folder.getFileHandle(name)).getFile()).arrayBuffer();
    } catch {
      return null;
    }
  }

  /** Keeps a file. Returns whether there was room. */
  async write(name, buffer) {
    try {
      const access = await (await this._folder.getFileHandle(name, { create: true })).createSyncAccessHandle();
      try {
        access.truncate(0);
        const written = access.write(new Uint8Array(buffer));
        access.flush();
        if (written === buffer.byteLength) return true;
      } finally {
        access.close();
      }
    } catch {
      // no room, or another tab writes it
    }
    await this.remove(name);
    return false;
  }

  async remove(name) {
    await this._folder.removeEntry(name).catch(() => {});
  }

  /** Returns the packages that are kept: [{ name, manifest }]. */
  async packages() {
    const buffer = await this.read(INDEX);
    try {
      return buffer ? JSON.parse(new TextDecoder().decode(buffer)) : [];
    } catch {
      return [];
    }
  }

  /** Notes that files of a package are kept. */
  async remember(manifest) {
    const others = (await this.packages()).filter((one) => one.manifest.digest !== manifest.digest);
    await this._index([{ name: manifest.name, manifest }, ...others]);
  }

  /** Removes a package's files, but for those that another one has too. */
  async forget(digest) {
    const all = await this.packages();
    const others = all.filter((one) => one.manifest.digest !== digest);
    const used = new Set(others.flatMap((one) => one.manifest.files.map((file) => file.sha256)));
    const own = all.filter((one) => one.manifest.digest === digest).flatMap((one) => one.manifest.files);
    for (const { sha256 } of own) if (!used.has(sha256)) await this.remove(sha256);
    await this._index(others);
  }

  async _index(packages) {
    await this.write(INDEX, new TextEncoder().encode(JSON.stringify(packages)).buffer);
  }
}
