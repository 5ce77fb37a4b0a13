// The elements of the page, and how a control's work is run.

let busy = false;

export const element = (id) => document.getElementById(id);

/** Runs what a control asks for, one at a time; an error is shown in one place. */
export async function attempt(work) {
  if (busy) return;
  busy = true;
  document.body.setAttribute("aria-busy", "true");
  element("error").hidden = true;
  try {
    await work();
  } catch (error) {
    showError(error);
    status("That did not work: see the message above.");
  } finally {
    busy = false;
    document.body.removeAttribute("aria-busy");
  }
}

export function showError(error) {
  element("error").textContent = error.message ?? String(error);
  element("error").hidden = false;
}

export function status(text) {
  element("status").textContent = text;
}

export function options(select, choices, chosen) {
  select.replaceChildren(...choices.map(([value, text]) => new Option(text, value, false, String(value) === String(chosen))));
}

export function megabytes(bytes) {
  return `${(bytes / 1e6).toFixed(bytes < 1e7 ? 1 : 0)} MB`;
}
