// Service worker: keeps the page's own files for use without a network, and adds the headers that threads need, for hosts that
// cannot send them. It answers for this folder alone, and never for files of a package.

const CACHE = "nemoport-page-1";
const OWN = /\/(|index\.html|style\.css|icon\.svg|(app|worker|capture)\.js|(asr|ui)\/\w+\.js|ort\/[\w.-]+)$/u;
const HEADERS = { "Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Embedder-Policy": "require-corp" };

self.addEventListener("install", () => self.skipWaiting());

self.addEventListener("activate", (event) => {
  const old = caches.keys().then((names) => Promise.all(names.filter((name) => name !== CACHE).map((name) => caches.delete(name))));
  event.waitUntil(old.then(() => self.clients.claim()));
});

self.addEventListener("fetch", (event) => {
  const url = new URL(event.request.url);
  const scope = new URL(self.registration.scope);
  const own = url.origin === scope.origin && url.pathname.startsWith(scope.pathname) && OWN.test(url.pathname);
  if (event.request.method === "GET" && own) event.respondWith(answer(event.request));
});

/** The network first, so that a new version of the page shows; what is kept where there is none. */
async function answer(request) {
  const cache = await caches.open(CACHE);
  try {
    const response = await fetch(request);
    if (response.status === 200) await cache.put(request, response.clone());
    return isolated(response);
  } catch (error) {
    const kept = await cache.match(request, { ignoreSearch: true });
    if (!kept) throw error;
    return isolated(kept);
  }
}

function isolated(response) {
  if (response.status !== 200) return response;
  const headers = new Headers(response.headers);
  for (const [name, value] of Object.entries(HEADERS)) headers.set(name, value);
  return new Response(response.body, { status: response.status, statusText: response.statusText, headers });
}
